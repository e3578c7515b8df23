"""What an application holds of a subscription: a bounded buffer, and the loops over it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .agreement import Wish, wish
from .errors import FanfareError, unsubscribed
from .values import Event, Gap, Message, Overflow, Policy, Recovery, Terms, TopicPosition

if TYPE_CHECKING:
    from types import TracebackType

    from .feed import Feed

logger = logging.getLogger("fanfare")

#: What happens when the buffer is full: the older half is left out, and told by gaps with the reason
#: `buffer`; or the connection is not read from until there is room.
WhenFull: TypeAlias = Literal["drop", "wait"]
#: Topics whose positions are kept for the application.
TAKEN_MAX = 65_536


@dataclass(slots=True)
class Actions:
    """What a subscription asks of its client."""

    leave: Callable[[], None]
    update: Callable[[Wish], Awaitable[Terms]]
    #: Whether the buffer of one that wants nothing dropped is full.
    full: Callable[[bool], None]


@dataclass(slots=True)
class Item:
    """An event in the buffer, and where the application stands once it has had it."""

    event: Event
    marks: Sequence[TopicPosition]


class Subscription:
    """A subscription to a topic or a filter. Made by `Client.subscribe`.

    A loop over it gives its messages, one over `events()` everything that it is told. At the end of
    an `async with` block the subscription ends.
    """

    def __init__(self, topic: str, buffer: int, when_full: WhenFull) -> None:
        if buffer < 1:
            raise ValueError("the buffer must have room for a message")
        #: The topic or filter.
        self.topic = topic
        self._bound = buffer
        self._waits = when_full == "wait"
        self._items: deque[Item] = deque()
        self._taken: dict[str, TopicPosition] = {}
        self._opened = False
        self._error: FanfareError | None = None
        self._closed = False
        self._news = asyncio.Event()
        self._feed: Feed | None = None
        self._actions: Actions | None = None

    # --- For applications

    async def ready(self) -> None:
        """Waits until the server has accepted; raises if it has refused."""
        while not self._opened:
            if self._closed:
                raise self._error or unsubscribed()
            await self._wait()

    @property
    def positions(self) -> list[TopicPosition]:
        """Where the loop stands in each topic, the one used last first: to be given as `since`."""
        return list(reversed(self._taken.values()))

    @property
    def terms(self) -> Terms | None:
        """What the server grants; None until it has said so."""
        return self._feed.agreement.granted if self._feed else None

    @property
    def stale(self) -> bool:
        """Whether the topic is stale; of a filter, whether any of its topics is."""
        return bool(self._feed and self._feed.stale)

    @property
    def duplicates(self) -> int:
        """How many messages were dropped because they had been given before."""
        return self._feed.duplicates if self._feed else 0

    async def update(
        self,
        *,
        policy: Policy | None = None,
        max_hz: float | None = None,
        overflow: Overflow | None = None,
    ) -> Terms:
        """Changes the terms while messages flow, and for after a reconnect.

        What is left out stays as it is. Returns what is granted. If the server refuses, everything
        stays as it was. Of changes that follow each other quickly the last one counts.
        """
        change = wish(policy, max_hz, overflow)
        if self._closed or self._actions is None:
            raise self._error or unsubscribed()
        return await self._actions.update(change)

    def unsubscribe(self) -> None:
        """Ends the subscription, and the loops over it. What waits in the buffer is dropped."""
        if self._closed:
            return
        self._items.clear()
        self.end(None)
        if self._actions:
            self._actions.leave()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unsubscribe()

    async def events(self) -> AsyncIterator[Event]:
        """Messages, and whatever else is told, in the order in which it happened."""
        while True:
            while self._items:
                item = self._items.popleft()
                self._mark(item.marks)
                self._made_room()
                yield item.event
            if self._closed:
                if self._error is not None:
                    raise self._error
                return
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[Message]:
        async for event in self.events():
            if isinstance(event, Message):
                yield event
            elif isinstance(event, Gap) or (isinstance(event, Recovery) and not event.recovered):
                # Nobody may miss something in silence; who wants to act on it loops over `events()`.
                logger.warning("%s: %s", self.topic, event)

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _mark(self, marks: Sequence[TopicPosition]) -> None:
        for mark in marks:
            self._taken.pop(mark.topic, None)
            self._taken[mark.topic] = mark
            if len(self._taken) > TAKEN_MAX:
                del self._taken[next(iter(self._taken))]

    # --- For the client

    def bind(self, feed: Feed, actions: Actions, since: Sequence[TopicPosition]) -> None:
        self._feed, self._actions = feed, actions
        self._mark(tuple(reversed(since)))

    def opened(self) -> None:
        self._opened = True
        self._news.set()

    def tell(self, event: Event | None, marks: Sequence[TopicPosition]) -> None:
        if self._closed:
            return
        if event is None:
            self._move(marks)
            return
        self._items.append(Item(event, marks))
        if self._actions and self._waits and len(self._items) == self._bound:
            self._actions.full(True)
        # Of one that waits more may come, as long as answers are waited for that come behind it.
        if len(self._items) > self._bound * (1 + self._waits):
            self._overflow()
        self._news.set()

    def _move(self, marks: Sequence[TopicPosition]) -> None:
        """The application stands there when it has had what is in the buffer."""
        if self._items:
            last = self._items[-1]
            last.marks = tuple({mark.topic: mark for mark in (*last.marks, *marks)}.values())
        else:
            self._mark(marks)

    def end(self, error: FanfareError | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._error = error
        if self._actions and self._waits:
            self._actions.full(False)
        self._news.set()

    def _made_room(self) -> None:
        if self._actions and self._waits and len(self._items) == self._bound - 1:
            self._actions.full(False)

    def _overflow(self) -> None:
        """Leaves out the messages of the older half at once, so that few gaps tell of it."""
        half = (len(self._items) + 1) // 2
        old = [self._items.popleft() for _ in range(half)]
        kept = _without_messages(old)
        if len(kept) > max(1, self._bound // 4):
            marks = [mark for item in old for mark in item.marks]
            latest = {mark.topic: mark for mark in marks}
            kept = [Item(Recovery(self.topic, False, "buffer"), tuple(latest.values()))]
        self._items.extendleft(reversed(kept))


def _without_messages(items: list[Item]) -> list[Item]:
    """Gaps in place of messages: one for each topic, between other events."""
    kept: list[Item] = []
    runs: dict[str, Item] = {}
    for item in items:
        gap = _as_gap(item.event)
        if gap is None:
            kept += [*runs.values(), item]
            runs = {}
            continue
        before = runs.pop(gap.topic, None)
        if before is not None and isinstance(before.event, Gap) and before.event.last < gap.first:
            gap = Gap(gap.topic, before.event.first, gap.last, before.event.count + gap.count, gap.reason)
        elif before is not None:
            # Offsets that begin anew: another epoch.
            kept.append(before)
        runs[gap.topic] = Item(gap, item.marks or (before.marks if before else ()))
    return [*kept, *runs.values()]


def _as_gap(event: Event) -> Gap | None:
    if isinstance(event, Message):
        return Gap(event.topic, event.offset, event.offset, 1, "buffer")
    return event if isinstance(event, Gap) and event.reason == "buffer" else None
