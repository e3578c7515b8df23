"""What every subscription must have been told: each message once, in order, and nothing missing.

Nothing is believed because a client says so: a gap, or a resume that failed, must be explained by what
was published and by what the topic holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: How many messages the topics hold whose name begins so; the others hold all of them.
BRIEF, BRIEF_HOLDS = "brief.", 20


@dataclass
class Topic:
    """What was published to a topic: its epoch, and what each offset holds."""

    epoch: str = ""
    data: dict[int, Any] = field(default_factory=dict)

    @property
    def top(self) -> int:
        return max(self.data, default=0)


@dataclass
class Place:
    """Where a subscription stands in a topic."""

    offset: int = 0
    #: A resume has failed since: the next message may come after so many as the topic does not hold.
    broken: str = ""


class Judge:
    """One subscription, event by event."""

    def __init__(self, name: str, topics: dict[str, Topic]) -> None:
        self.name = name
        self.findings: list[str] = []
        self.messages = 0
        self.recovered = 0
        self.broken = 0
        self.gaps = 0
        self._topics = topics
        self._places: dict[str, Place] = {}
        #: What is compared in the end, because whoever published may learn of it last.
        self._contents: list[tuple[str, int, object, object]] = []
        self._gaps: list[tuple[str, int]] = []

    def find(self, text: str) -> None:
        self.findings.append(f"{self.name}: {text}")

    def at(self, topic: str) -> int:
        place = self._places.get(topic)
        return place.offset if place else 0

    def told(self, line: dict[str, Any]) -> None:
        if "message" in line:
            self._message(line["message"])
        elif "gap" in line:
            self._gap(line["gap"])
        elif "recovered" in line:
            self._recovered(line["recovered"])

    def _place(self, topic: str) -> Place:
        return self._places.setdefault(topic, Place())

    def _message(self, message: dict[str, Any]) -> None:
        self.messages += 1
        topic, offset = message["topic"], message["offset"]
        place = self._place(topic)
        missing = offset - place.offset - 1
        if missing < 0:
            self.find(f"{topic} {offset} comes after {place.offset}")
        elif missing > 0 and not place.broken:
            self.find(f"{topic} {place.offset + 1} to {offset - 1} are missing, and nobody said so")
        elif place.broken and not self._explains(topic, missing):
            self.find(f"{topic} {offset} comes after {place.offset}, not recovered: {place.broken}")
        self._contents.append((topic, offset, message.get("epoch"), message.get("data")))
        place.offset, place.broken = max(offset, place.offset), ""

    def _gap(self, gap: dict[str, Any]) -> None:
        self.gaps += 1
        topic, last = gap["topic"], gap["to"]
        place = self._place(topic)
        first = max(gap["from"], place.offset + 1)
        held = topic.startswith(BRIEF) and gap["reason"] == "trimmed"
        if not held or gap["from"] != place.offset + 1:
            self.find(f"a gap that nothing explains, after {place.offset}: {gap}")
        self._gaps.append((topic, last))
        place.offset = max(place.offset, last, first - 1)

    def _recovered(self, recovery: dict[str, Any]) -> None:
        topic = recovery["topic"]
        if recovery["recovered"]:
            self.recovered += 1
            return
        self.broken += 1
        if topic not in self._topics:
            self.find(f"not recovered as a whole: {recovery}")
        elif not topic.startswith(BRIEF) or recovery.get("reason") != "trimmed":
            self.find(f"not recovered, and nothing explains it: {recovery}")
        else:
            self._place(topic).broken = recovery["reason"]

    def _explains(self, topic: str, missing: int) -> bool:
        """Whether so many missing messages are a reason not to resume."""
        return topic.startswith(BRIEF) and missing > BRIEF_HOLDS

    def end(self, topics: list[str]) -> None:
        """It must stand at the top of all of its topics, and have got what was published."""
        for topic, last in self._gaps:
            # The topic went past them only if it has got as many as it holds since.
            if self._topics[topic].top - last < BRIEF_HOLDS:
                self.find(f"a gap to {last} of {topic}, and the top is {self._topics[topic].top}")
        for topic, offset, epoch, data in self._contents:
            published = self._topics[topic]
            if (epoch, data) != (published.epoch, published.data.get(offset)):
                self.find(f"{topic} {offset} is {epoch} {data}, not {published.data.get(offset)}")
        for topic in topics:
            top = self._topics[topic].top
            if self.at(topic) != top:
                self.find(f"stands at {self.at(topic)} of {topic}, and the top is {top}")
