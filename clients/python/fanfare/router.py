"""Brings what the server pushes to the subscriptions that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import reading
from .errors import FanfareError
from .feed import Feed
from .reading import Body
from .subscription import Subscription
from .values import Joined, Left, Message, PresenceState, Terms

#: The longest time for which a server that stops is left alone, in seconds.
AFTER_MAX = 3_600.0
#: The code of `notAllowed`, which is told by name when a subscription ends.
NOT_ALLOWED = 115


@dataclass(frozen=True, slots=True)
class Entry:
    """A subscription on both sides: the server's and the application's."""

    feed: Feed
    subscription: Subscription


class Router:
    """The subscriptions of a client, and what is pushed to them."""

    def __init__(self) -> None:
        #: By topic or filter.
        self.entries: dict[str, Entry] = {}
        #: Left, though what they asked to come first is still coming.
        self.left: list[Feed] = []
        #: How long the server has asked to stay away, in seconds.
        self.after: float = 0
        self._filters: dict[str, Feed] = {}
        self._pushes: dict[str, Callable[[Body], None]] = {
            "message": self._message,
            "position": self._position,
            "gap": self._gap,
            "snapshotEnd": self._snapshot_end,
            "unsubscribed": self._unsubscribed,
            "presenceState": self._present,
            "joined": self._joined,
            "left": self._left,
            "stale": self._stale,
            "fresh": self._fresh,
            "reconnect": self._reconnect,
        }

    def add(self, entry: Entry) -> None:
        self.entries[entry.feed.topic] = entry
        if entry.feed.filter:
            self._filters[entry.feed.topic] = entry.feed

    def remove(self, feed: Feed) -> Subscription | None:
        """Takes a feed out, if it is still there."""
        entry = self.entries.get(feed.topic)
        if entry is None or entry.feed is not feed:
            return None
        del self.entries[feed.topic]
        self._filters.pop(feed.topic, None)
        return entry.subscription

    def holds(self, feed: Feed) -> bool:
        entry = self.entries.get(feed.topic)
        return entry is not None and entry.feed is feed

    def push(self, event: Body) -> None:
        """Passes an event on; one that is not known is passed over."""
        for name, handle in self._pushes.items():
            if name in event:
                handle(reading.body(event, name))
                return

    def lost(self) -> None:
        self.left.clear()
        for entry in self.entries.values():
            entry.feed.lost()

    def presence(self, state: PresenceState) -> None:
        entry = self.entries.get(state.topic)
        if entry and entry.feed.live and entry.feed.presence:
            entry.subscription.tell(state, ())

    # --- Pushes

    def _message(self, body: Body) -> None:
        topic, offset = reading.text(body, "topic"), reading.number(body, "offset")
        feeds = self._takers(topic, offset)
        epoch = next(filter(None, (feed.epoch(topic) for feed in feeds)), None)
        message: Message = reading.message(body, epoch)
        dense = self._dense(topic)
        for feed in feeds:
            feed.take(message, dense)

    def _position(self, body: Body) -> None:
        position = reading.topic_position(body)
        for feed in self._route(position.topic):
            feed.place(position)

    def _gap(self, body: Body) -> None:
        gap = reading.gap(body)
        dense = self._dense(gap.topic)
        for feed in self._takers(gap.topic, gap.first):
            feed.gap(gap, dense)

    def _snapshot_end(self, body: Body) -> None:
        topic = reading.text(body, "topic")
        positions = [reading.topic_position(item) for item in reading.items(body, "positions")]
        for feed in self.left:
            if feed.topic == topic:
                self.left.remove(feed)
                return
        entry = self.entries.get(topic)
        if entry:
            entry.feed.snapshot_end(positions)

    def _unsubscribed(self, body: Body) -> None:
        entry = self.entries.get(reading.text(body, "topic"))
        # One that is not live yet has been opened anew: the event is about its predecessor.
        if entry is None or not entry.feed.live:
            return
        name = reading.text(body, "reason", "") or "unsubscribed"
        sentence = f"the server ended the subscription to {entry.feed.topic}"
        error = FanfareError(NOT_ALLOWED if name == "notAllowed" else 0, name, "never", sentence)
        self.remove(entry.feed)
        entry.feed.end(error)
        entry.subscription.end(error)

    def _present(self, body: Body) -> None:
        self.presence(reading.presence(body))

    def _joined(self, body: Body) -> None:
        member = reading.member(reading.body(body, "member"))
        self._crowd(Joined(reading.text(body, "topic"), member))

    def _left(self, body: Body) -> None:
        member = reading.member(reading.body(body, "member"))
        self._crowd(Left(reading.text(body, "topic"), member))

    def _crowd(self, event: Joined | Left) -> None:
        entry = self.entries.get(event.topic)
        if entry and entry.feed.live and entry.feed.presence:
            entry.subscription.tell(event, ())

    def _stale(self, body: Body) -> None:
        topic, since = reading.text(body, "topic"), reading.number(body, "since", 0)
        for feed in self._route(topic):
            feed.became_stale(topic, since or None)

    def _fresh(self, body: Body) -> None:
        topic = reading.text(body, "topic")
        for feed in self._route(topic):
            feed.became_fresh(topic)

    def _reconnect(self, body: Body) -> None:
        self.after = min(reading.number(body, "afterMs", 0) / 1_000, AFTER_MAX)

    # --- Who gets what

    def _route(self, topic: str) -> list[Feed]:
        """The live feeds that a topic belongs to. There are few filters: the server allows 8."""
        return [feed for feed in self._matching(topic) if feed.live]

    def _matching(self, topic: str) -> Iterator[Feed]:
        entry = self.entries.get(topic)
        if entry and not entry.feed.filter:
            yield entry.feed
        for feed in self._filters.values():
            if feed.matches(topic):
                yield feed

    def _takers(self, topic: str, offset: int) -> list[Feed]:
        """The feeds to be told of a message, or of a gap that begins at an offset.

        What was asked to come first is for who asked: it may have holes, and be older than what the
        others asked for.
        """
        feeds = self._route(topic)
        filling = any(feed.filling for feed in feeds) or any(feed.matches(topic) for feed in self.left)
        if not filling:
            return feeds
        return [feed for feed in feeds if feed.filling or feed.follows(topic, offset)]

    def _dense(self, topic: str) -> Terms | None:
        """The terms under which the server passes over no message of a topic, if that is certain.

        It is where there is a subscription to exactly this topic, because its terms are the ones that
        count. What comes by a filter may be paced by a rule for some of its topics, and nobody tells
        for which.
        """
        entry = self.entries.get(topic)
        if entry is None or not entry.feed.live or entry.feed.filter:
            return None
        return entry.feed.agreement.dense
