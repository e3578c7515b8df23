"""Where subscriptions stand, without a network: what is given, what is missing, what is asked for."""

from __future__ import annotations

import unittest
from typing import Any

import fanfare
from fanfare import Fresh, Gap, Message, Recovery, SnapshotEnd, Stale, Terms, TopicPosition, Tuning
from fanfare.agreement import Wish
from fanfare.errors import FanfareError
from fanfare.feed import RESUME_BYTES_MAX, Asked, Feed, Past
from fanfare.names import Pattern, is_filter
from fanfare.router import Entry, Router
from fanfare.subscription import Subscription

EPOCH = {"epoch": "e", "offset": 0}


def position(topic: str, offset: int, epoch: str = "e") -> dict[str, Any]:
    return {"topic": topic, "epoch": epoch, "offset": offset}


class Bench:
    """Subscriptions of one client, and what each was told, as short words."""

    def __init__(self) -> None:
        self.router = Router()
        self.told: dict[str, list[Any]] = {}
        self.feeds: dict[str, Feed] = {}

    def subscribe(self, topic: str, *, past: Past | None = None, **answer: Any) -> Feed:
        told = self.told[topic] = []

        def tell(event: Any, _: Any) -> None:
            if isinstance(event, Message):
                told.append((event.topic, event.offset))
            elif event is not None and not isinstance(event, Terms):
                told.append(event)

        feed = Feed(topic, Asked(past or Past(), Wish()), Tuning().positions_max, tell)
        self.feeds[topic] = feed
        self.router.add(Entry(feed, Subscription(topic, 10, "drop")))
        feed.command()
        feed.subscribed({"topic": topic, **answer})
        return feed

    def messages(self, topic: str, *offsets: int) -> None:
        for offset in offsets:
            self.router.push({"message": {"topic": topic, "offset": offset, "data": offset}})

    def resume(self, topic: str, **answer: Any) -> dict[str, Any]:
        """Loses the connection and comes back; what was asked for."""
        self.router.lost()
        command = self.feeds[topic].command()
        self.feeds[topic].subscribed({"topic": topic, **answer})
        return command

    def take(self, topic: str) -> list[Any]:
        told, self.told[topic][:] = list(self.told[topic]), []
        return told


class Holes(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    async def test_a_hole_of_which_nothing_was_said_is_told_as_lost(self) -> None:
        self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1, 2, 5)
        self.assertEqual(self.bench.take("a"), [("a", 1), ("a", 2), Gap("a", 3, 4, 2, "lost"), ("a", 5)])

    async def test_the_first_message_is_lost_too(self) -> None:
        self.bench.subscribe("a", position={"epoch": "e", "offset": 7})
        self.bench.messages("a", 9)
        self.assertEqual(self.bench.take("a"), [Gap("a", 8, 8, 1, "lost"), ("a", 9)])

    async def test_terms_that_pass_messages_over_explain_holes(self) -> None:
        for terms in ({"policy": "latest"}, {"policy": "maxHz", "maxHz": 1.0}):
            self.bench.subscribe("a", position=EPOCH, **terms)
            self.bench.messages("a", 1, 5)
            self.assertEqual(self.bench.take("a"), [("a", 1), ("a", 5)])

    async def test_the_first_message_under_new_terms_may_come_after_a_hole(self) -> None:
        feed = self.bench.subscribe("a", position=EPOCH, policy="latest")
        self.bench.messages("a", 3)
        feed.granted({"policy": "all"})
        self.bench.messages("a", 6, 8)
        self.assertEqual(self.bench.take("a"), [("a", 3), ("a", 6), Gap("a", 7, 7, 1, "lost"), ("a", 8)])

    async def test_of_a_filter_nobody_knows_whether_a_hole_is_right(self) -> None:
        self.bench.subscribe("*")
        self.bench.router.push({"position": position("a", 0)})
        self.bench.messages("a", 1, 4)
        self.assertEqual(self.bench.take("*"), [("a", 1), ("a", 4)])

    async def test_beside_a_subscription_to_the_topic_it_is_known_of_a_filter_too(self) -> None:
        self.bench.subscribe("*")
        self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1, 4)
        for name in ("a", "*"):
            self.assertEqual(self.bench.take(name), [("a", 1), Gap("a", 2, 3, 2, "lost"), ("a", 4)])

    async def test_a_snapshot_of_keys_has_holes(self) -> None:
        self.bench.subscribe("a", past=Past(snapshot=True), position={"epoch": "e", "offset": 9})
        self.bench.messages("a", 3, 7)
        self.bench.router.push({"snapshotEnd": {"topic": "a", "positions": [position("a", 9)]}})
        self.bench.messages("a", 10, 12)
        expected = [("a", 3), ("a", 7), SnapshotEnd("a"), ("a", 10), Gap("a", 11, 11, 1, "lost"), ("a", 12)]
        self.assertEqual(self.bench.take("a"), expected)

    async def test_a_gap_that_was_seen_in_part_is_told_in_part(self) -> None:
        self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1, 2, 3)
        for _ in range(2):
            self.bench.router.push({"gap": {"topic": "a", "from": 2, "to": 5, "count": 4, "reason": "slow"}})
        expected = [("a", 1), ("a", 2), ("a", 3), Gap("a", 4, 5, 2, "slow")]
        self.assertEqual(self.bench.take("a"), expected)


class Doubles(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    async def test_what_comes_twice_is_given_once(self) -> None:
        feed = self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1, 2, 1, 2, 3)
        self.assertEqual((self.bench.take("a"), feed.duplicates), ([("a", 1), ("a", 2), ("a", 3)], 2))

    async def test_a_topic_and_a_filter_get_a_message_each(self) -> None:
        self.bench.subscribe("a", position=EPOCH)
        self.bench.subscribe("*")
        self.bench.messages("a", 1)
        self.assertEqual((self.bench.take("a"), self.bench.take("*")), ([("a", 1)], [("a", 1)]))

    async def test_what_comes_first_for_one_is_not_live_for_the_other(self) -> None:
        self.bench.subscribe("a", position={"epoch": "e", "offset": 5})
        self.bench.subscribe("*", past=Past(snapshot=True))
        self.bench.messages("a", 3)
        self.bench.router.push({"snapshotEnd": {"topic": "*", "positions": [position("a", 5)]}})
        self.bench.messages("a", 6)
        self.assertEqual(self.bench.take("a"), [("a", 6)])
        self.assertEqual(self.bench.take("*"), [("a", 3), SnapshotEnd("*"), ("a", 6)])


class Resuming(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    async def test_a_topic_resumes_after_its_last_message(self) -> None:
        self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1, 2)
        here = {"epoch": "e", "offset": 4}
        command = self.bench.resume("a", position=here, recovered=True)
        self.assertEqual(command, {"topic": "a", "since": {"epoch": "e", "offset": 2}})
        self.bench.messages("a", 3, 4)
        self.assertEqual(self.bench.take("a")[2:], [Recovery("a", True), ("a", 3), ("a", 4)])

    async def test_behind_a_snapshot_that_was_cut_nothing_may_be_missing(self) -> None:
        here = {"epoch": "e", "offset": 9}
        self.bench.subscribe("a", past=Past(snapshot=True), position=here)
        self.bench.messages("a", 3, 6)
        command = self.bench.resume("a", position=here, recovered=True)
        self.assertEqual(command["since"], {"epoch": "e", "offset": 6})
        self.bench.messages("a", 7, 9)
        expected = [Recovery("a", True), ("a", 7), Gap("a", 8, 8, 1, "lost"), ("a", 9)]
        self.assertEqual(self.bench.take("a")[2:], expected)

    async def test_a_server_that_says_yes_to_another_place_is_not_believed(self) -> None:
        for place in ({"epoch": "f", "offset": 9}, {"epoch": "e", "offset": 1}, None):
            self.bench.subscribe("a", position=EPOCH)
            self.bench.messages("a", 1, 2)
            answer = {"position": place} if place else {}
            self.bench.resume("a", recovered=True, **answer)
            self.assertEqual(self.bench.take("a")[2:], [Recovery("a", False, "epochChanged")])

    async def test_after_a_resume_that_failed_live_messages_go_on(self) -> None:
        self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1)
        here = {"epoch": "f", "offset": 3}
        self.bench.resume("a", position=here, recovered=False, reason="trimmed")
        self.bench.messages("a", 4)
        self.assertEqual(self.bench.take("a")[1:], [Recovery("a", False, "trimmed"), ("a", 4)])

    async def test_a_filter_resumes_every_topic_the_one_used_last_first(self) -> None:
        self.bench.subscribe(">")
        for topic in ("a", "b.c"):
            self.bench.router.push({"position": position(topic, 0)})
            self.bench.messages(topic, 1)
        self.bench.messages("a", 2)
        outcomes = [
            {"topic": "a", "position": {"epoch": "e", "offset": 2}, "recovered": True},
            {"topic": "b.c", "recovered": False, "reason": "expired"},
        ]
        command = self.bench.resume(">", topics=outcomes)
        self.assertEqual(command["positions"], [position("a", 2), position("b.c", 1)])
        self.assertEqual(self.bench.take(">")[3:], [Recovery("a", True), Recovery("b.c", False, "expired")])

    async def test_positions_beyond_what_a_command_holds_are_told(self) -> None:
        feed = self.bench.subscribe(">")
        for nth in range(1_000):
            self.bench.router.push({"position": position(f"topic.{nth:0200}", 5)})
        command = self.bench.resume(">", topics=[])
        size = sum(len(str(each)) for each in command["positions"])
        self.assertLess(size, RESUME_BYTES_MAX)
        self.assertLess(len(command["positions"]), 1_000)
        self.assertEqual(self.bench.take(">")[0], Recovery(">", False, "tooMany"))
        self.assertEqual(feed.positions(), [])

    async def test_a_filter_whose_snapshot_was_cut_knows_no_position(self) -> None:
        self.bench.subscribe("*", past=Past(snapshot=True))
        self.bench.messages("a", 3)
        self.bench.resume("*")
        self.assertEqual(self.bench.take("*"), [("a", 3), Recovery("*", False, "noPosition")])

    async def test_a_topic_that_turns_up_after_a_break_is_told(self) -> None:
        self.bench.subscribe("*")
        self.bench.resume("*")
        self.bench.router.push({"position": position("new", 0)})
        self.bench.messages("new", 1)
        self.bench.router.push({"position": position("old", 4)})
        self.bench.messages("old", 5)
        expected = [("new", 1), Recovery("old", False, "noPosition"), ("old", 5)]
        self.assertEqual(self.bench.take("*"), expected)

    async def test_a_topic_that_begins_anew_is_told(self) -> None:
        self.bench.subscribe("*")
        self.bench.router.push({"position": position("a", 0)})
        self.bench.messages("a", 1)
        self.bench.router.push({"position": position("a", 0, "f")})
        self.bench.messages("a", 1)
        self.assertEqual(self.bench.take("*"), [("a", 1), Recovery("a", False, "epochChanged"), ("a", 1)])

    async def test_positions_that_the_server_does_not_take_are_forgotten_and_told(self) -> None:
        feed = self.bench.subscribe("a", position=EPOCH)
        self.bench.messages("a", 1)
        self.bench.router.lost()
        feed.command()
        self.assertTrue(feed.forget(FanfareError(104, "badPosition", "never", "")))
        self.assertEqual(feed.command(), {"topic": "a"})
        feed.subscribed({"position": {"epoch": "e", "offset": 9}})
        self.assertEqual(self.bench.take("a"), [("a", 1), Recovery("a", False, "badPosition")])
        self.assertFalse(feed.forget(FanfareError(104, "badPosition", "never", "")))

    async def test_of_a_filter_it_is_told_anew_what_is_stale(self) -> None:
        feed = self.bench.subscribe("*")
        self.bench.router.push({"stale": {"topic": "a", "since": 7}})
        self.bench.router.push({"stale": {"topic": "a", "since": 8}})
        self.bench.messages("a", 1)
        self.bench.router.push({"stale": {"topic": "a"}})
        self.assertEqual(self.bench.take("*"), [Stale("a", 7), Fresh("a"), ("a", 1), Stale("a", None)])
        self.assertEqual(feed.stale, {"a": None})


class Buffers(unittest.IsolatedAsyncioTestCase):
    """What is dropped is told, in order and within the bound."""

    def fill(self, events: list[Any], bound: int) -> Subscription:
        subscription = Subscription("*", bound, "drop")
        for event in events:
            marks = () if not isinstance(event, Message) else (TopicPosition(event.topic, "e", event.offset),)
            subscription.tell(event, marks)
        subscription.end(None)
        return subscription

    @staticmethod
    def message(topic: str, offset: int, epoch: str = "e") -> Message:
        return Message(topic, offset, epoch=epoch)

    async def test_each_topic_has_one_gap(self) -> None:
        events = [self.message(topic, offset) for offset in range(1, 51) for topic in ("a", "b")]
        got = [event async for event in self.fill(events, 10).events()]
        self.assertLessEqual(len(got), 11)
        gaps = [event for event in got if isinstance(event, Gap)]
        self.assertEqual([gap.topic for gap in gaps], ["a", "b"])
        for topic in ("a", "b"):
            gap = next(gap for gap in gaps if gap.topic == topic)
            rest = [event.offset for event in got if isinstance(event, Message) and event.topic == topic]
            self.assertEqual((gap.first, gap.count, gap.reason), (1, gap.last, "buffer"))
            self.assertEqual(rest, list(range(gap.last + 1, 51)))

    async def test_what_is_no_message_stays(self) -> None:
        events: list[Any] = [self.message("a", 1), Recovery("a", False, "trimmed")]
        events += [self.message("a", offset) for offset in range(5, 40)]
        got = [event async for event in self.fill(events, 12).events()]
        self.assertEqual(got[:2], [Gap("a", 1, 1, 1, "buffer"), Recovery("a", False, "trimmed")])
        self.assertIsInstance(got[2], Gap)

    async def test_too_much_of_what_is_no_message_becomes_one_word(self) -> None:
        events: list[Any] = [Stale(str(nth)) for nth in range(1_000)]
        got = [event async for event in self.fill(events, 12).events()]
        self.assertLessEqual(len(got), 13)
        self.assertEqual(got[0], Recovery("*", False, "buffer"))

    async def test_positions_are_those_of_what_was_taken(self) -> None:
        subscription = self.fill([self.message("a", 1), self.message("b", 1), self.message("a", 2)], 10)
        self.assertEqual(subscription.positions, [])
        loop = aiter(subscription)
        for expected in ([("a", 1)], [("b", 1), ("a", 1)], [("a", 2), ("b", 1)]):
            await anext(loop)
            self.assertEqual([(place.topic, place.offset) for place in subscription.positions], expected)

    async def test_a_loop_over_messages_alone_does_not_hide_what_is_missing(self) -> None:
        subscription = self.fill([Gap("a", 1, 2, 2, "slow"), self.message("a", 3)], 10)
        with self.assertLogs("fanfare", "WARNING") as logged:
            self.assertEqual([message.offset async for message in subscription], [3])
        self.assertIn("slow", logged.output[0])

    async def test_a_buffer_has_room(self) -> None:
        with self.assertRaises(ValueError):
            Subscription("a", 0, "drop")


class Names(unittest.TestCase):
    def test_a_filter_matches_what_it_stands_for(self) -> None:
        table = [
            ("ticker.*", "ticker.IBM", True),
            ("ticker.*", "ticker.IBM.bid", False),
            ("ticker.*", "ticker", False),
            ("ticker.>", "ticker.IBM.bid", True),
            ("ticker.>", "ticker", False),
            ("*.b", "a.b", True),
            ("*.b", "a.c", False),
            (">", "a", True),
            ("*", "a.b", False),
            ("a.*.c.>", "a.b.c.d.e", True),
            ("a.*.c.>", "a.b.c", False),
        ]
        for name, topic, expected in table:
            self.assertEqual(Pattern(name).matches(topic), expected, (name, topic))

    def test_what_has_a_wildcard_is_a_filter(self) -> None:
        for name, expected in (("a.*", True), (">", True), ("a.b", False), ("a*.b", False), (">.a", False)):
            self.assertEqual(is_filter(name), expected, name)


class Asking(unittest.IsolatedAsyncioTestCase):
    """What makes no sense is refused before anything is sent."""

    async def test_arguments_that_make_no_sense_raise(self) -> None:
        async with fanfare.connect("http://127.0.0.1:1/ws") as client:
            self.assertRaises(ValueError, client.subscribe, "a", max_hz=float("nan"))
            self.assertRaises(TypeError, client.subscribe, "a.*", since=fanfare.Position("e", 1))
            for draft in (
                {},
                {"data": 1, "text": "x"},
                {"delete": True},
                {"delete": True, "key": "k", "text": ""},
            ):
                with self.assertRaises(TypeError):
                    await client.publish("a", **draft)
            for nonsense in (float("nan"), "\ud800"):
                with self.assertRaises(ValueError):
                    await client.publish("a", nonsense)
            with self.assertRaises(TypeError):
                await client.publish("a", object())
            self.assertFalse(client._calls.awaited)
        with self.assertRaises(ValueError):
            fanfare.connect("ftp://example.org")

    async def test_a_second_subscription_to_a_topic_is_refused(self) -> None:
        async with fanfare.connect("ws://127.0.0.1:1/ws") as client:
            first, second = client.subscribe("a"), client.subscribe("a")
            with self.assertRaises(FanfareError) as refused:
                await second.ready()
            self.assertEqual((refused.exception.code, refused.exception.name), (107, "alreadySubscribed"))
            second.unsubscribe()
            first.unsubscribe()
            third = client.subscribe("a")
        self.assertEqual([message async for message in third], [])
        with self.assertRaises(FanfareError):
            await client.publish("a", 1)
