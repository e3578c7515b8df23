"""Commands that have no answer yet: their numbers, their order, and which are sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import FanfareError, Malformed, disconnected, unknown_outcome
from .reading import Body, body, number, refusal
from .wire import Frame, Wire

#: What answers which command.
ANSWERS = {
    "connect": "connected",
    "subscribe": "subscribed",
    "unsubscribe": "unsubscribed",
    "update": "updated",
    "publish": "published",
    "history": "historyPage",
    "presence": "presenceState",
    "refresh": "refreshed",
    "ping": "pong",
}
#: Commands that are sent again after a reconnect.
RESENT = ("publish", "history")


@dataclass(slots=True)
class Call:
    """A command and who waits for its answer."""

    id: int
    action: str
    frame: Frame
    resolve: Callable[[Body], None]
    reject: Callable[[FanfareError], None]
    #: Whether the bound on calls counts it.
    counted: bool = False
    #: The connection on which it was sent last, and when it was sent first.
    link: object = None
    first_sent: float | None = None


class Calls:
    """Every call until its answer, in the order in which they were made."""

    def __init__(self, wire: Wire, most: int) -> None:
        self._wire = wire
        self._most = most
        self._open: dict[int, Call] = {}
        self._last = 0
        self._counted = 0

    @property
    def awaited(self) -> bool:
        """Whether an application waits for an answer."""
        return self._counted > 0

    def check_room(self) -> None:
        if self._counted >= self._most:
            text = f"{self._most} calls wait for an answer, and that is the limit"
            raise FanfareError(0, "queueFull", "later", text)

    def make(
        self,
        action: str,
        fields: Mapping[str, Any],
        resolve: Callable[[Body], None],
        reject: Callable[[FanfareError], None],
    ) -> Call:
        """A call that is not sent yet; raises if its fields cannot be spelled."""
        frame = self._wire.encode({"id": self._last + 1, action: fields})
        self._last += 1
        call = Call(self._last, action, frame, resolve, reject)
        self._open[call.id] = call
        return call

    def count(self, call: Call) -> None:
        call.counted = True
        self._counted += 1

    def forget(self, call: Call) -> None:
        """Nobody waits for this one any more."""
        if call.id in self._open:
            self._settle(call)

    def _settle(self, call: Call) -> Call:
        del self._open[call.id]
        self._counted -= int(call.counted)
        return call

    def answer(self, event: Body) -> None:
        """Settles what an event answers; one that nobody waits for any more is passed over."""
        name = number(event, "id")
        if name > self._last:
            raise Malformed(f"an answer to the command {name}, and there were {self._last}")
        if name not in self._open:
            return
        call = self._settle(self._open[name])
        expected = ANSWERS[call.action]
        if "error" in event:
            call.reject(refusal(body(event, "error")))
        elif expected in event:
            call.resolve(body(event, expected))
        else:
            text = f"the server did not answer with {expected}"
            call.reject(FanfareError(0, "badAnswer", "never", text))
            raise Malformed(text)

    def lost(self, link: object) -> None:
        """A connection is gone: what was sent on it and is not to be sent again has failed."""
        for call in list(self._open.values()):
            if call.link is link and call.action not in RESENT:
                self._settle(call).reject(disconnected())

    def unsent(self, link: object, since: float) -> list[Call]:
        """What is to be sent on a new connection; publishes of before `since` have failed."""
        for call in list(self._open.values()):
            too_old = call.first_sent is not None and call.first_sent < since
            if too_old and call.action == "publish" and call.link is not link:
                self._settle(call).reject(unknown_outcome())
        return [call for call in self._open.values() if call.link is not link]

    def end(self, error: FanfareError) -> None:
        for call in list(self._open.values()):
            unknown = call.action == "publish" and call.first_sent is not None
            self._settle(call).reject(unknown_outcome() if unknown else error)
