"""The judge finds what it is there to find."""

from __future__ import annotations

import unittest
from typing import Any

from judge import BRIEF_HOLDS, Judge, Topic

ROOM, BRIEF = "room.1", "brief.1"


def message(offset: int, topic: str = ROOM, **more: Any) -> dict[str, Any]:
    return {"message": {"topic": topic, "offset": offset, "epoch": "e", "data": offset, **more}}


def messages(*offsets: int, topic: str = ROOM) -> list[dict[str, Any]]:
    return [message(offset, topic) for offset in offsets]


def lost(topic: str, reason: str = "trimmed") -> dict[str, Any]:
    return {"recovered": {"topic": topic, "recovered": False, "reason": reason}}


def gap(topic: str, first: int, last: int, reason: str = "trimmed") -> dict[str, Any]:
    return {"gap": {"topic": topic, "from": first, "to": last, "count": last - first + 1, "reason": reason}}


class Judging(unittest.TestCase):
    def judged(self, lines: list[dict[str, Any]], topic: str, top: int) -> list[str]:
        topics = {topic: Topic("e", {offset: offset for offset in range(1, top + 1)})}
        judge = Judge("here", topics)
        for line in lines:
            judge.told(line)
        judge.end([topic])
        return judge.findings

    def test_what_is_right_is_passed(self) -> None:
        top = BRIEF_HOLDS + 3
        table = [
            (ROOM, messages(1, 2, 3), 3),
            (ROOM, [*messages(1), {"recovered": {"topic": ROOM, "recovered": True}}, *messages(2)], 2),
            (BRIEF, [*messages(1, topic=BRIEF), lost(BRIEF), message(top, BRIEF)], top),
            (BRIEF, [gap(BRIEF, 1, 3), *messages(*range(4, top + 1), topic=BRIEF)], top),
        ]
        for topic, lines, last in table:
            self.assertEqual(self.judged(lines, topic, last), [], lines)

    def test_what_is_wrong_is_found(self) -> None:
        table: list[tuple[str, list[dict[str, Any]], int, str]] = [
            (ROOM, messages(1, 3), 3, "nobody said so"),
            (ROOM, messages(2), 2, "nobody said so"),
            (ROOM, messages(1, 1), 1, "comes after"),
            (ROOM, messages(1, 2, 1), 2, "comes after"),
            (ROOM, messages(1), 2, "the top is 2"),
            (ROOM, [], 1, "the top is 1"),
            (ROOM, [message(1, data="other")], 1, "is e other"),
            (ROOM, [message(1, epoch="f")], 1, "is f 1"),
            (ROOM, [message(1), lost(ROOM), message(2)], 2, "nothing explains it"),
            (ROOM, [gap(ROOM, 1, 2), message(3)], 3, "nothing explains"),
            (BRIEF, [message(1, BRIEF), lost(BRIEF), message(3, BRIEF)], 3, "not recovered"),
            (
                BRIEF,
                [message(1, BRIEF), lost(BRIEF, "expired"), message(40, BRIEF)],
                40,
                "nothing explains it",
            ),
            (BRIEF, [message(1, BRIEF), lost("brief.*"), message(40, BRIEF)], 40, "as a whole"),
            (BRIEF, [gap(BRIEF, 1, 3), *messages(4, 5, topic=BRIEF)], 5, "a gap to 3"),
            (
                BRIEF,
                [gap(BRIEF, 1, 2, "lost"), *messages(*range(3, 41), topic=BRIEF)],
                40,
                "nothing explains",
            ),
        ]
        for topic, lines, last, words in table:
            found = self.judged(lines, topic, last)
            self.assertTrue(found and words in found[0], (lines, found))


if __name__ == "__main__":
    unittest.main()
