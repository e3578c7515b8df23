"""Where one subscription stands in its topics, what is missing, and what to ask for after a break.

Owns the places of a subscription; everything that it is told becomes events of the application's.
Invariants: offsets of a topic rise within an epoch; what is missing is told, by a `Gap` where the hole
is known and by a `Recovery` where it is not, but for what the terms allow to be passed over.
Not here: connections and queues. Nothing in here waits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import reading
from .agreement import Agreement, Wish
from .errors import FanfareError
from .names import Pattern, is_filter
from .reading import Body
from .values import (
    Event,
    Fresh,
    Gap,
    Message,
    Position,
    Recovery,
    SnapshotEnd,
    Stale,
    Terms,
    TopicPosition,
)

#: Bytes of positions in one command: the server takes messages up to 64 KiB.
RESUME_BYTES_MAX = 60_000
#: Topics of one filter whose offsets are followed; of more of them a message may come twice.
PLACES_MAX = 65_536
#: The server does not take the positions themselves: badPosition, tooManyPositions.
POSITIONS_REFUSED = (104, 111)
#: The server does not take an option: badOption.
OPTION_REFUSED = 105

#: Takes an event, or None, and the positions at which the application stands once it has had it.
Tell = Callable[[Event | None, Sequence[TopicPosition]], None]


@dataclass(frozen=True, slots=True)
class Past:
    """What is to come before live messages."""

    positions: tuple[TopicPosition, ...] = ()
    snapshot: bool = False
    last: int = 0

    @property
    def least(self) -> int:
        """How many messages of a topic, at least: a snapshot is at least the latest one."""
        return max(self.last, int(self.snapshot))


@dataclass(frozen=True, slots=True)
class Asked:
    past: Past
    wish: Wish
    presence: bool = False


@dataclass(slots=True)
class Place:
    """Where a feed stands in one topic."""

    #: Unknown while a filter's snapshot is under way.
    epoch: str | None
    #: The last offset that was given; -1 until the first of what comes first.
    seen: int
    #: Live messages come after this; up to it, holes are not worth a word.
    floor: int
    #: The terms under which the message at `seen` came, if they pass over none.
    dense: Terms | None = None


class Feed:
    """One subscription on the server."""

    def __init__(self, topic: str, asked: Asked, positions_max: int, tell: Tell) -> None:
        self.topic = topic
        self.filter = is_filter(topic)
        self.agreement = Agreement(asked.wish)
        #: Whether the server has accepted it on this connection.
        self.live = False
        #: How often in a row it was told to try again later.
        self.attempt = 0
        #: Messages that were dropped because they had been given before.
        self.duplicates = 0
        #: Whether what was asked to come first is coming now.
        self.filling = False
        #: The topics that are stale, and since when.
        self.stale: dict[str, int | None] = {}
        self._pattern = Pattern(topic)
        self._asked = asked
        self._positions_max = positions_max
        self._tell = tell
        #: By topic, the one used last at the end.
        self._places: dict[str, Place] = {}
        #: What the last command resumed from, as far as it is unanswered.
        self._resuming: dict[str, TopicPosition] = {}
        self._opened = False
        #: Whether a topic that turns up for the first time may have had messages while we were away.
        self._was_away = False
        #: Why the next command cannot resume everything.
        self._loss = ""
        for position in reversed(asked.past.positions):
            self._begin(position)

    @property
    def presence(self) -> bool:
        """Whether it is told who joins and leaves."""
        return self._asked.presence

    @property
    def fills(self) -> bool:
        """Whether something is to come first, closed by the end of a snapshot."""
        return self._asked.past.least > 0

    def matches(self, topic: str) -> bool:
        return self._pattern.matches(topic) if self.filter else self.topic == topic

    def epoch(self, topic: str) -> str | None:
        place = self._places.get(topic)
        return place.epoch if place else None

    def end(self, error: FanfareError) -> None:
        self.lost()
        self.agreement.end(error)

    def lost(self) -> None:
        """The connection is gone."""
        self.live = False
        self.agreement.lost()
        # What the rest of a filter's snapshot would have held is not known; nor is it of a topic's,
        # before the first of its messages: they rise, so from that one on it can be resumed.
        place = self._places.get(self.topic)
        if self.filling and (self.filter or place is None or place.seen < 0):
            self._loss = self._loss or "noPosition"
        self.filling = False

    def positions(self) -> list[TopicPosition]:
        """The places from which this feed can resume, the one used last first."""
        return [
            TopicPosition(topic, place.epoch, place.seen)
            for topic, place in reversed(self._places.items())
            if place.epoch is not None and place.seen >= 0
        ]

    # --- Opening and resuming

    def command(self) -> dict[str, Any]:
        """What to ask the server for."""
        positions = self._fitting()
        if len(positions) < len(self._places):
            self._loss = self._loss or "tooMany"
        self._resuming = {position.topic: position for position in positions}
        for topic in [topic for topic in self._places if topic not in self._resuming]:
            del self._places[topic]
        # A loss is reported for all topics at once.
        self._was_away = not self._loss and (self._opened or bool(positions))
        past, since = self._asked.past, self._resuming.get(self.topic)
        fields: dict[str, Any] = {
            "topic": self.topic,
            # With `last` too, for the end that it then has.
            "snapshot": past.least > 0 or None,
            "last": past.last or None,
            "presence": self.presence or None,
            "since": None if self.filter or since is None else _spelled(since),
            "positions": [_spelled(position, "topic") for position in positions] if self.filter else None,
        }
        return {name: value for name, value in fields.items() if value} | self.agreement.all().body()

    def _fitting(self) -> list[TopicPosition]:
        size, fitting = 0, []
        for position in self.positions()[: self._positions_max]:
            size += len(json.dumps(_spelled(position, "topic"))) + 1
            if size <= RESUME_BYTES_MAX:
                fitting.append(position)
        return fitting

    def forget(self, error: FanfareError) -> bool:
        """Forgets a change, or positions, that the server does not take; whether to try without."""
        if error.code == OPTION_REFUSED:
            return self.agreement.refuse(error)
        if not self._opened or not self._resuming or error.code not in POSITIONS_REFUSED:
            return False
        self._places.clear()
        self._loss = error.name
        return True

    def subscribed(self, answer: Body) -> None:
        loss, self._loss = self._loss, ""
        self.live = self._opened = True
        self.attempt = 0
        self.filling = self.fills
        self.granted(answer)
        # Of a filter's topics it is told after what comes first.
        if not self.filter and reading.flag(answer, "stale"):
            self.became_stale(self.topic, None)
        elif not self.filter:
            self.became_fresh(self.topic)
        if loss:
            self._recovered(Recovery(self.topic, False, loss))
        told = reading.items(answer, "topics") if self.filter else [{**answer, "topic": self.topic}]
        for outcome in told:
            self._resumed(reading.text(outcome, "topic"), outcome)
        for topic in list(self._resuming):
            self._resumed(topic, {})

    def granted(self, answer: Body) -> None:
        """The server has answered what terms it grants."""
        terms = reading.terms(answer)
        if self.agreement.grant(terms):
            self._tell(terms, ())

    def _resumed(self, topic: str, outcome: Body) -> None:
        since = self._resuming.pop(topic, None)
        position = reading.position(outcome, "position")
        place = self._places.get(topic)
        recovered = reading.flag(outcome, "recovered")
        # A server that says yes to another epoch, or to a place behind, is not believed.
        if since and place and recovered and position and _is_at_or_after(position, since):
            # Exactly the missing ones follow, whatever came first before.
            place.floor = 0
            place.dense = self._dense
            self._recovered(Recovery(topic, True))
            return
        begins = position and TopicPosition(topic, position.epoch, position.offset)
        if begins:
            self._begin(begins, self._asked.past.least)
        else:
            self._places.pop(topic, None)
        marks = (begins,) if begins and not self.fills else ()
        if since:
            reason = reading.text(outcome, "reason", "") or "epochChanged"
            self._recovered(Recovery(topic, False, reason), marks)
        elif self._was_away:
            self._recovered(Recovery(topic, False, "noPosition"), marks)
        elif marks:
            self._tell(None, marks)

    def _begin(self, position: TopicPosition, replayed: int = 0) -> None:
        """Begins anew in a topic whose live messages come after a position.

        At least `replayed` messages before that may come first.
        """
        seen = -1 if replayed > 0 else position.offset
        self._put(position.topic, Place(position.epoch, seen, position.offset, self._dense))

    @property
    def _dense(self) -> Terms | None:
        """The terms under which the next message follows the one before, if that is certain."""
        return None if self.filter else self.agreement.dense

    def _put(self, topic: str, place: Place) -> None:
        self._places.pop(topic, None)
        self._places[topic] = place
        if len(self._places) > PLACES_MAX:
            del self._places[next(iter(self._places))]
            self._loss = "tooMany"

    # --- Messages

    def follows(self, topic: str, offset: int) -> bool:
        """Whether this feed has had all that is before."""
        place = self._places.get(topic)
        return place is not None and offset <= place.seen + 1

    def take(self, message: Message, dense: Terms | None) -> None:
        """Takes a message, with its epoch as far as any feed knows it.

        `dense`: the terms that count for the topic, if they pass over no message.
        """
        topic, offset = message.topic, message.offset
        place = self._places.get(topic) or self._meet(topic, offset, message.epoch)
        if offset <= place.seen:
            self.duplicates += 1
            return
        self._advance(topic, place, offset, offset, dense)
        if message.epoch != place.epoch:
            message = replace(message, epoch=place.epoch)
        self._put(topic, place)
        if self.filter:
            self.became_fresh(topic)
        self._tell(message, _marks(topic, place, offset))

    def _meet(self, topic: str, offset: int, epoch: str | None) -> Place:
        """The first message of a topic whose position was told to another feed, or not at all."""
        if self._was_away and offset > 1:
            self._recovered(Recovery(topic, False, "noPosition"))
        place = Place(epoch, offset - 1, 0)
        self._put(topic, place)
        return place

    def _advance(self, topic: str, place: Place, first: int, last: int, dense: Terms | None) -> None:
        """What is told next reaches from one offset to another.

        What should have come before it is lost. That can be said where the same terms held all the
        way, and pass over nothing.
        """
        expected = max(place.seen, place.floor) + 1
        if dense is not None and dense is place.dense and first > expected:
            lost = Gap(topic, expected, first - 1, first - expected, "lost")
            self._tell(lost, _marks(topic, place, first - 1))
        place.seen = last
        # A filter's snapshot may skip offsets until its end.
        place.dense = None if self.filter and self.filling else dense

    def place(self, position: TopicPosition) -> None:
        """The server tells where a topic stands."""
        place = self._places.get(position.topic)
        if place and place.epoch in (None, position.epoch):
            place.epoch = position.epoch
            return
        marks = (position,)
        self._begin(position)
        if place:
            self._recovered(Recovery(position.topic, False, "epochChanged"), marks)
        elif self._was_away and position.offset > 0:
            self._recovered(Recovery(position.topic, False, "noPosition"), marks)
        else:
            self._tell(None, marks)

    def gap(self, gap: Gap, dense: Terms | None) -> None:
        topic = gap.topic
        place = self._places.get(topic) or self._meet(topic, gap.first, None)
        first = max(gap.first, place.seen + 1)
        if gap.last < first:
            return
        self._advance(topic, place, gap.first, gap.last, dense)
        count = min(gap.count, gap.last - first + 1)
        self._tell(Gap(topic, first, gap.last, count, gap.reason), _marks(topic, place, gap.last))

    def snapshot_end(self, positions: Sequence[TopicPosition]) -> None:
        self.filling = False
        for position in positions:
            self.place(position)
            place = self._places.get(position.topic)
            if place:
                place.seen = max(place.seen, position.offset)
        self._tell(SnapshotEnd(self.topic), positions)

    def became_stale(self, topic: str, since: int | None) -> None:
        if topic not in self.stale and len(self.stale) < PLACES_MAX:
            self.stale[topic] = since
            self._tell(Stale(topic, since), ())

    def became_fresh(self, topic: str) -> None:
        if topic in self.stale:
            del self.stale[topic]
            self._tell(Fresh(topic), ())

    def _recovered(self, recovery: Recovery, marks: Sequence[TopicPosition] = ()) -> None:
        # Of a filter's topics it is told anew which are stale.
        if self.filter and not recovery.recovered:
            for topic in [name for name in self.stale if recovery.topic in (self.topic, name)]:
                self.became_fresh(topic)
        self._tell(recovery, marks)


def _spelled(position: TopicPosition, *more: str) -> dict[str, Any]:
    return {name: getattr(position, name) for name in (*more, "epoch", "offset")}


def _marks(topic: str, place: Place, offset: int) -> Sequence[TopicPosition]:
    return () if place.epoch is None else (TopicPosition(topic, place.epoch, offset),)


def _is_at_or_after(position: Position, other: TopicPosition) -> bool:
    return position.epoch == other.epoch and position.offset >= other.offset
