"""The terms of one subscription: what was asked for, what is under way, and what is granted.

Invariants: at most one change is under way; others meanwhile become one that comes after it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import FanfareError
from .values import Overflow, Policy, Terms


@dataclass(frozen=True, slots=True)
class Wish:
    """Terms as they are asked for. None leaves it to the server, in a change as it is."""

    policy: Policy | None = None
    max_hz: float | None = None
    overflow: Overflow | None = None

    def after(self, change: Wish | None) -> Wish:
        """These terms after a change, which leaves as it is what it leaves out."""
        if change is None:
            return self
        keeps = change.policy is None
        policy, max_hz = (self.policy, self.max_hz) if keeps else (change.policy, change.max_hz)
        return Wish(policy, max_hz, change.overflow or self.overflow)

    def body(self) -> dict[str, Any]:
        fields = {"policy": self.policy, "maxHz": self.max_hz, "overflow": self.overflow}
        return {name: value for name, value in fields.items() if value is not None}


def wish(policy: Policy | None, max_hz: float | None, overflow: Overflow | None) -> Wish:
    """What an application asks for; a rate alone means the policy `maxHz`."""
    if max_hz is not None and not math.isfinite(max_hz):
        raise ValueError("max_hz must be a number")
    return Wish(policy or (None if max_hz is None else "maxHz"), max_hz, overflow)


@dataclass(slots=True)
class Change:
    wish: Wish
    outcomes: list[asyncio.Future[Terms]] = field(default_factory=list)

    def grant(self, terms: Terms) -> None:
        for outcome in self._open():
            outcome.set_result(terms)

    def refuse(self, error: FanfareError) -> None:
        for outcome in self._open():
            outcome.set_exception(error)

    def _open(self) -> Iterable[asyncio.Future[Terms]]:
        # Whoever waited may have gone.
        return [outcome for outcome in self.outcomes if not outcome.done()]


class Agreement:
    def __init__(self, asked: Wish) -> None:
        #: What the server grants; with each of its answers another object.
        self.granted: Terms | None = None
        self._asked = asked
        self._sent: Change | None = None
        self._waiting: Change | None = None

    @property
    def dense(self) -> Terms | None:
        """What is granted, if that is every message and nothing is about to change it."""
        if self._sent or self.granted is None or self.granted.policy != "all":
            return None
        return self.granted

    def change(self, wish: Wish, outcome: asyncio.Future[Terms]) -> None:
        before = self._waiting or Change(Wish())
        self._waiting = Change(before.wish.after(wish), [*before.outcomes, outcome])

    def next(self) -> Wish | None:
        """The change to send now, if there is one and none is under way."""
        if self._sent is not None:
            return None
        self._sent, self._waiting = self._waiting, None
        return self._sent.wish if self._sent else None

    def all(self) -> Wish:
        """Everything, for a command to subscribe."""
        self.next()
        return self._asked.after(self._sent.wish if self._sent else None)

    def lost(self) -> None:
        """There will be no answer: what was under way has to be sent again."""
        if self._sent is None:
            return
        sent, later = self._sent, self._waiting or Change(Wish())
        self._sent = None
        self._waiting = Change(sent.wish.after(later.wish), [*sent.outcomes, *later.outcomes])

    def grant(self, terms: Terms) -> bool:
        """Whether that is another grant than before."""
        before, self.granted = self.granted, terms
        if self._sent is not None:
            self._asked = self._asked.after(self._sent.wish)
            self._sent.grant(terms)
            self._sent = None
        return terms != before

    def refuse(self, error: FanfareError) -> bool:
        """Forgets the change that is under way; whether there was one."""
        sent, self._sent = self._sent, None
        if sent is not None:
            sent.refuse(error)
        return sent is not None

    def end(self, error: FanfareError) -> None:
        self.lost()
        if self._waiting is not None:
            self._waiting.refuse(error)
