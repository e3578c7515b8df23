"""The scenarios of `clients/scenarios.md`, in each spelling: one test for each row, with its title."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

import fanfare
from fanfare import Gap, Message, Position, Published, Recovery, SnapshotEnd, Terms
from fanfare.proto import varint
from fanfare.wire import Spelling

from .support import (
    BINARY,
    SOON,
    TEXT,
    Broker,
    Inbox,
    Peer,
    Proxy,
    Script,
    Test,
    free_port,
    is_message,
    is_recovery,
    messages,
    task,
    within,
)


class InJson(Test):
    """All of them. Subclassed for the other spelling."""

    spelling: Spelling = "json"

    async def broker(self, config: str = "") -> Broker:
        return await self.enter(Broker(config))

    async def proxy(self, broker: Broker) -> Proxy:
        return await self.enter(Proxy(broker.port))

    async def script(self) -> Script:
        return await self.enter(Script(self.spelling))

    async def client(self, url: str, **options: Any) -> fanfare.Client:
        return await self.connect(url, spelling=self.spelling, **options)

    async def scripted(self, **options: Any) -> tuple[Script, fanfare.Client, Peer]:
        """A client with its first connection."""
        script = await self.script()
        client = await self.client(script.url, **options)
        return script, client, await script.greet()

    async def test_a_subscription_gets_what_is_published_after_it(self) -> None:
        broker = await self.broker()
        client = await self.client(broker.url)
        await client.publish("room.1", "before")
        subscriptions = [client.subscribe("room.1"), client.subscribe("stock.>")]
        inboxes = [self.listen(subscription) for subscription in subscriptions]
        for subscription in subscriptions:
            await within("acceptance", subscription.ready())
        for topic, inbox in zip(("room.1", "stock.a.b"), inboxes, strict=True):
            places = [await client.publish(topic, {"nth": nth}, key=f"k{nth}") for nth in range(3)]
            self.assertEqual(await inbox.next(), Terms("all"))
            got = [await inbox.next("a message") for _ in places]
            self.assertEqual(
                [(m.topic, m.epoch, m.offset, m.key, m.data) for m in got],
                [
                    (topic, place.epoch, place.offset, f"k{nth}", {"nth": nth})
                    for nth, place in enumerate(places)
                ],
            )
            self.assertTrue(all(message.time > 1_600_000_000_000 for message in got))
            self.assertEqual(inbox.all(), [])

    async def test_a_snapshot_comes_first_and_ends(self) -> None:
        broker = await self.broker()
        client = await self.client(broker.url)
        for topic, data in (("a.one", 1), ("a.one", 2), ("a.two", 3)):
            await client.publish(topic, data)
        for name, expected in (("a.*", [2, 3]), ("a.one", [2])):
            async with client.subscribe(name, snapshot=True) as subscription:
                inbox = self.listen(subscription)
                self.assertEqual(await inbox.next("the terms"), Terms("all"))
                first = [await inbox.next("a message") for _ in expected]
                self.assertEqual([message.data for message in messages(first)], expected)
                self.assertEqual(await inbox.next("the end"), SnapshotEnd(name))
                place = await client.publish("a.one", 2)
                live = await inbox.next("what is live")
                self.assertEqual((live.topic, live.offset, live.epoch), ("a.one", place.offset, place.epoch))

    async def test_history_is_asked_for_page_by_page(self) -> None:
        broker = await self.broker()
        client = await self.client(broker.url)
        places = [await client.publish("log", nth) for nth in range(5)]
        since, offsets, pages = Position(places[0].epoch, 0), [], 0
        more = True
        while more:
            page = await client.history("log", since=since, limit=2)
            self.assertEqual(page.top, Position(places[0].epoch, 5))
            offsets += [message.offset for message in page.messages]
            pages, more = pages + 1, page.more
            since = page.last or since
        self.assertEqual((offsets, pages), ([1, 2, 3, 4, 5], 3))
        self.assertEqual([m.offset for m in (await client.history("log", limit=2)).messages], [4, 5])
        nothing = await client.history("nothing.here")
        self.assertEqual((nothing.top, nothing.messages, nothing.more), (None, (), False))
        with self.assertRaises(fanfare.FanfareError) as refused:
            await client.history("log", since=Position("A" * 22, 1))
        self.assertEqual((refused.exception.code, refused.exception.name), (150, "epochChanged"))

    async def test_a_publish_is_answered_with_its_position(self) -> None:
        broker = await self.broker()
        client = await self.client(broker.url)
        first, second = await client.publish("room.1", 1), await client.publish("room.1", text="two")
        self.assertEqual((first.offset, second.offset, first.durability), (1, 2, "memory"))
        self.assertEqual((await client.history("room.1")).top, Position(second.epoch, 2))
        with self.assertRaises(fanfare.FanfareError) as refused:
            await client.publish("a..b", 1)
        self.assertEqual((refused.exception.code, refused.exception.name), (101, "badTopic"))

    async def test_a_publish_repeated_with_its_idempotency_key_is_one_message(self) -> None:
        broker = await self.broker()
        proxy = await self.proxy(broker)
        direct, client = await self.client(broker.url), await self.client(proxy.url)
        subscription = direct.subscribe("room.1")
        inbox = self.listen(subscription)
        await within("acceptance", subscription.ready())
        await within("the connection", client.ready())
        proxy.hold()
        async with task(client.publish("room.1", "once")) as publishing:
            message = await inbox.until("the message", is_message)
            proxy.cut()
            place = await within("the position", publishing)
        self.assertEqual((place.epoch, place.offset), (message.epoch, 1))
        again = await client.publish("room.1", "twice", idempotency_key="k")
        self.assertEqual(await client.publish("room.1", "twice", idempotency_key="k"), again)
        self.assertEqual((await inbox.next()).offset, 2)
        self.assertEqual((await client.history("room.1")).top, Position(again.epoch, 2))
        self.assertEqual(inbox.all(), [])

    async def test_a_connection_that_is_cut_is_resumed_without_loss_or_double(self) -> None:
        broker = await self.broker()
        proxy = await self.proxy(broker)
        direct, client = await self.client(broker.url), await self.client(proxy.url)
        subscriptions = [client.subscribe("room.1"), client.subscribe("room.*")]
        inboxes = [self.listen(subscription) for subscription in subscriptions]
        for subscription in subscriptions:
            await within("acceptance", subscription.ready())
        await direct.publish("room.1", 0)
        told: list[list[Any]] = [[], []]
        for before, inbox in zip(told, inboxes, strict=True):
            while not messages(before):
                before.append(await inbox.next("the first message"))
        rounds, each = 4, 20
        for begin in range(1, rounds * each, each):
            for nth in range(begin, begin + each):
                await direct.publish("room.1", nth)
                if nth == begin + each // 2:
                    proxy.cut()
            for before, inbox in zip(told, inboxes, strict=True):
                while not before or not is_message(before[-1]) or before[-1].data != begin + each - 1:
                    before.append(await inbox.next(f"the message {begin + each - 1}"))
        for events in told:
            self.assertEqual([message.data for message in messages(events)], list(range(1 + rounds * each)))
            recoveries = [event for event in events if is_recovery(event)]
            self.assertEqual(recoveries, [Recovery("room.1", True)] * rounds)
            self.assertEqual([event for event in events if isinstance(event, Gap)], [])

    async def test_a_broker_that_lost_its_history_is_told_as_not_recovered(self) -> None:
        broker = await self.broker()
        client, direct = await self.client(broker.url), await self.client(broker.url)
        subscriptions = [client.subscribe("room.1"), client.subscribe("room.*")]
        inboxes = [self.listen(subscription) for subscription in subscriptions]
        for subscription in subscriptions:
            await within("acceptance", subscription.ready())
        old = await direct.publish("room.1", "old")
        for inbox in inboxes:
            await inbox.until("the old message", is_message)
        await broker.kill()
        await broker.start()
        for inbox in inboxes:
            recovery = await inbox.until("what became of it", is_recovery)
            self.assertEqual(recovery, Recovery("room.1", False, "epochChanged"))
        new = await direct.publish("room.1", "new")
        self.assertNotEqual(new.epoch, old.epoch)
        for inbox in inboxes:
            message = await inbox.next("the new message")
            self.assertEqual((message.data, message.epoch, message.offset), ("new", new.epoch, 1))

    async def test_a_resume_from_before_the_history_is_told_as_not_recovered(self) -> None:
        broker = await self.broker('[[topics.rules]]\nfilter = ">"\nhistory = { messages = 5 }\n')
        proxy = await self.proxy(broker)
        direct, client = await self.client(broker.url), await self.client(proxy.url)
        subscription = client.subscribe("room.1")
        inbox = self.listen(subscription)
        await within("acceptance", subscription.ready())
        await direct.publish("room.1", 1)
        await inbox.until("the first message", is_message)
        proxy.shut()
        proxy.cut()
        for nth in range(2, 22):
            await direct.publish("room.1", nth)
        proxy.open()
        recovery = await inbox.until("what became of it", is_recovery)
        self.assertEqual(recovery, Recovery("room.1", False, "trimmed"))
        await direct.publish("room.1", 22)
        self.assertEqual((await inbox.next("what is live")).offset, 22)
        self.assertEqual([place.offset for place in subscription.positions], [22])

    async def test_a_gap_is_told(self) -> None:
        script, client, peer = await self.scripted()
        inbox = self.listen(client.subscribe("a"))
        place = {"epoch": "e", "offset": 0}
        await peer.accept(position=place)
        peer.messages("a", 1)
        peer.send({"gap": {"topic": "a", "from": 2, "to": 4, "count": 3, "reason": "slow"}})
        peer.send({"position": {"topic": "a", "epoch": "e", "offset": 4}})
        peer.messages("a", 5, 8)
        events = [event for event in await inbox.many(6) if not isinstance(event, Terms)]
        self.assertEqual(
            [event.offset if isinstance(event, Message) else event for event in events],
            [1, Gap("a", 2, 4, 3, "slow"), 5, Gap("a", 6, 7, 2, "lost"), 8],
        )
        peer.drop()
        peer = await script.greet()
        self.assertEqual((await peer.expect("subscribe"))["since"], {"epoch": "e", "offset": 8})

    async def test_terms_are_changed_while_messages_flow(self) -> None:
        broker = await self.broker()
        proxy = await self.proxy(broker)
        direct, client = await self.client(broker.url), await self.client(proxy.url)
        subscription = client.subscribe("price")
        inbox = self.listen(subscription)
        await within("acceptance", subscription.ready())
        self.assertEqual(await subscription.update(max_hz=1), Terms("maxHz", 1.0))
        self.assertEqual(await subscription.update(policy="latest"), Terms("latest"))
        with self.assertRaises(fanfare.FanfareError) as refused:
            await subscription.update(max_hz=-1)
        self.assertEqual(refused.exception.name, "badOption")
        self.assertEqual(subscription.terms, Terms("latest"))
        granted = await subscription.update(policy="all", overflow="gap")
        self.assertEqual(granted, Terms("all", None, "gap"))
        for nth in range(10):
            await direct.publish("price", nth)
        events: list[Any] = []
        while len(messages(events)) < 10:
            events.append(await inbox.next("a message"))
        self.assertEqual([message.offset for message in messages(events)], list(range(1, 11)))
        changes = [event.policy for event in events if isinstance(event, Terms)]
        self.assertEqual(changes, ["all", "maxHz", "latest", "all"])
        await subscription.update(max_hz=50)
        proxy.cut()
        await inbox.until("what became of it", is_recovery)
        self.assertEqual(subscription.terms, Terms("maxHz", 50.0))
        self.assertEqual([event for event in inbox.all() if isinstance(event, Terms)], [])

    async def test_presence_tells_who_is_there(self) -> None:
        broker = await self.broker('[[topics.rules]]\nfilter = "room.*"\npresence = true\n')
        proxy = await self.proxy(broker)
        ann = await self.client(proxy.url, name="ann")
        subscription = ann.subscribe("room.1", presence=True)
        inbox = self.listen(subscription)

        def names(state: fanfare.PresenceState) -> list[str]:
            self.assertEqual((state.topic, state.count, state.more), ("room.1", len(state.members), False))
            return sorted(member.name for member in state.members)

        async def state() -> fanfare.PresenceState:
            is_state = lambda event: isinstance(event, fanfare.PresenceState)  # noqa: E731
            return await inbox.until("who is there", is_state)  # type: ignore[no-any-return]

        self.assertEqual(names(await state()), ["ann"])
        bob = await self.client(broker.url, name="bob")
        await within("acceptance", bob.subscribe("room.1").ready())
        joined = await inbox.until("who joins", lambda event: isinstance(event, fanfare.Joined))
        self.assertEqual((joined.topic, joined.member.name), ("room.1", "bob"))
        self.assertEqual(names(await ann.presence("room.1")), ["ann", "bob"])
        await bob.close()
        left = await inbox.until("who leaves", lambda event: isinstance(event, fanfare.Left))
        self.assertEqual(left.member, joined.member)
        proxy.cut()
        await inbox.until("what became of it", is_recovery)
        self.assertIn("ann", names(await state()))

    AUTH = """
[auth]
audience = "fanfare"
leeway = "0s"
[[auth.keys]]
algorithm = "HS256"
file = "secret"
"""

    async def guarded(self) -> Broker:
        """A broker that wants tokens, which `mint` makes."""
        broker = Broker(self.AUTH)
        (broker.folder / "secret").write_text(secrets.token_hex(32))
        return await self.enter(broker)

    async def mint(self, broker: Broker, ttl: str) -> str:
        grants = ["--subscribe", "room.>", "--publish", "room.>"]
        who = ["--key", "secret", "--aud", "fanfare", "--sub", "ann"]
        return await broker.run("token", "mint", *who, "--ttl", ttl, *grants)

    async def test_a_token_is_refreshed_before_it_expires(self) -> None:
        broker = await self.guarded()
        states: Inbox[fanfare.StateEvent] = Inbox()
        asked: Inbox[None] = Inbox()

        async def token() -> str:
            asked.put(None)
            return await self.mint(broker, "4s")

        client = await self.client(broker.url, token=token, on_state=states.put)
        subscription = client.subscribe("room.1")
        await within("acceptance", subscription.ready())
        # The second one comes when three quarters of the first one are over, the third behind its end.
        await asked.many(3)
        await client.publish("room.1", "beyond the first")
        self.assertEqual([event.state for event in states.all()], ["connecting", "connected"])

    async def test_a_token_that_is_refused_ends_the_client_with_an_error(self) -> None:
        broker = await self.guarded()
        proxy = await self.proxy(broker)
        states: Inbox[fanfare.StateEvent] = Inbox()
        client = await self.client(proxy.url, token="no.such.token", on_state=states.put)
        inbox = self.listen(client.subscribe("room.1"))
        expected = (4501, "badToken", "never")

        def what(error: object) -> tuple[int, str, str]:
            assert isinstance(error, fanfare.FanfareError)
            return error.code, error.name, error.retry

        with self.assertRaises(fanfare.FanfareError) as waiting:
            await within("the refusal", client.publish("room.1", 1))
        self.assertEqual(what(waiting.exception), expected)
        self.assertEqual(what(await inbox.next("the end")), expected)
        self.assertEqual(what(await self.listen(client.subscribe("room.2")).next("the end")), expected)
        with self.assertRaises(fanfare.FanfareError) as later:
            await client.ready()
        self.assertEqual(what(later.exception), expected)
        last = await states.until("the end", lambda event: event.state == "closed")
        self.assertEqual((what(last.error), client.state), (expected, "closed"))
        self.assertEqual(proxy.accepted, 1)

    async def test_a_topic_that_is_refused_is_an_error_of_its_own_subscription(self) -> None:
        broker = await self.guarded()
        client = await self.client(broker.url, token=await self.mint(broker, "1h"))
        good, bad, foreign = (client.subscribe(topic) for topic in ("room.1", "a..b", "street.1"))
        inbox = self.listen(good)
        for subscription, name in ((bad, "badTopic"), (foreign, "notAllowed")):
            with self.assertRaises(fanfare.FanfareError) as refused:
                async for _ in subscription:
                    pass
            self.assertEqual(refused.exception.name, name)
            with self.assertRaises(fanfare.FanfareError):
                await subscription.ready()
        await within("acceptance", good.ready())
        await client.publish("room.1", "goes on")
        self.assertEqual((await inbox.until("the message", is_message)).data, "goes on")

    async def test_a_server_that_says_when_to_come_back_is_obeyed(self) -> None:
        states: Inbox[fanfare.StateEvent] = Inbox()
        script, _, peer = await self.scripted(on_state=states.put)
        await states.until("the connection", lambda event: event.state == "connected")
        peer.send({"reconnect": {"afterMs": 300}})
        peer.close(1001, "goingAway: the server is stopping")
        waiting = await states.next("the end of the connection")
        self.assertEqual((waiting.state, waiting.code), ("waiting", 1001))
        self.assertGreaterEqual(waiting.delay, 0.3)
        self.assertLess(waiting.delay, 0.3 + SOON.backoff_max)
        self.assertEqual(script.unread(), [])
        await script.greet()
        await states.until("the connection", lambda event: event.state == "connected")

    async def test_a_wrong_subprotocol_ends_the_client_with_an_error(self) -> None:
        for chosen in (None, "fanfare.v9.json"):
            script = await self.script()
            client = await self.client(script.url)
            inbox = self.listen(client.subscribe("a"))
            peer = await script.accept()
            await peer.upgrade(chosen)
            error = await inbox.next("the end")
            self.assertIsInstance(error, fanfare.FanfareError)
            self.assertEqual((error.code, error.name, error.retry), (430, "badSubprotocol", "never"))
            self.assertEqual(client.state, "closed")
            await peer.gone()
            self.assertEqual(script.unread(), [])

    async def test_a_server_that_is_gone_at_any_step_of_the_handshake_is_tried_again(self) -> None:
        port = await free_port()
        tuning = replace(SOON, open_max=0.5)
        states: Inbox[fanfare.StateEvent] = Inbox()
        client = await self.client(f"ws://127.0.0.1:{port}/ws", tuning=tuning, on_state=states.put)
        inbox = self.listen(client.subscribe("a"))
        await states.until("the first failure", lambda event: event.state == "waiting")
        script = await self.enter(Script(self.spelling, port))

        # Right away, and in the middle of the upgrade.
        (await script.accept()).drop()
        peer = await script.accept()
        await peer.request()
        peer.drop()
        peer = await script.accept()
        peer.write(peer.acceptance(await peer.request())[:40])
        peer.drop()
        # Refused by a proxy that is none of ours, and by a broker that is not ready.
        for answer in (b"502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", self.not_ready()):
            peer = await script.accept()
            await peer.request()
            peer.write(b"HTTP/1.1 " + answer)
        # Behind the upgrade, in the middle of the hello, and instead of it.
        peer = await script.accept()
        await peer.upgrade()
        peer.drop()
        peer = await script.accept()
        await peer.upgrade()
        await peer.expect("connect")
        peer.write(b"\x81\x7e")
        peer.drop()
        peer = await script.accept()
        await peer.upgrade()
        peer.send({"id": (await peer.expect("connect"))["id"], "error": self.refusal(117, "overloaded")})
        # Nothing is ever answered: not to the upgrade, and not to the hello.
        await script.accept()
        peer = await script.accept()
        await peer.upgrade()

        peer = await script.greet()
        await peer.accept(position={"epoch": "e", "offset": 0})
        peer.messages("a", 1)
        self.assertEqual((await inbox.until("the message", is_message)).offset, 1)
        self.assertEqual(client.state, "connected")

    @staticmethod
    def refusal(code: int, name: str) -> dict[str, Any]:
        return {"code": code, "name": name, "retry": "later", "message": "later"}

    @staticmethod
    def not_ready() -> bytes:
        body = b'{"error":{"code":432,"name":"notReady","retry":"later","message":"it is starting"}}'
        return b"503 Service Unavailable\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def malformed(self) -> list[tuple[int, bytes]]:
        """Messages that make no sense."""
        if self.spelling == "protobuf":
            hollow = [b"\x4a\x00", b"\xff", b"\x12\x05ab", b"\x12\x04\x0a\x02\xff\xfe", b"\x10\x01"]
            return [(TEXT, b"{}"), *((BINARY, data) for data in hollow)]
        texts = ["{", "[]", '"x"', '{"message":7}', '{"message":{"topic":"a"}}', '{"gap":{"topic":"a"}}']
        texts += [
            '{"message":{"topic":"a","offset":"2"}}',
            '{"message":{"topic":"a","offset":2,"base64":"?"}}',
        ]
        texts += ['{"position":{"topic":"a","offset":1}}', '{"id":9999,"pong":{}}', "[" * 5_000, '{"id":"1"}']
        return [(BINARY, b"{}"), *((TEXT, text.encode()) for text in texts)]

    async def test_a_malformed_event_ends_the_connection_and_not_the_client(self) -> None:
        script, client, peer = await self.scripted()
        inbox = self.listen(client.subscribe("a"))
        await peer.accept(position={"epoch": "e", "offset": 0})
        offset = 0
        for opcode, payload in self.malformed():
            offset += 1
            peer.messages("a", offset)
            self.assertEqual((await inbox.until("the message", is_message)).offset, offset)
            with self.assertLogs("fanfare", "WARNING"):
                peer.raw(opcode, payload)
                await peer.gone()
                peer = await script.greet()
            command = await peer.expect("subscribe")
            self.assertEqual(command["since"], {"epoch": "e", "offset": offset}, payload[:40])
            answer = {"topic": "a", "position": {"epoch": "e", "offset": offset}, "recovered": True}
            peer.send({"id": command["id"], "subscribed": answer})
            self.assertEqual(await inbox.next("what became of it"), Recovery("a", True))
        # What is not known is passed over.
        if self.spelling == "json":
            peer.raw(TEXT, b'{"weather":{"rain":true}}')
            peer.raw(TEXT, b'{"message":{"topic":"a","offset":%d,"colour":[1]}}' % (offset + 1))
        else:
            unknown = varint(99 << 3 | 2) + b"\x02hi"
            peer.raw(BINARY, unknown)
            message = b"\x0a\x01a\x10" + varint(offset + 1) + unknown
            peer.raw(BINARY, b"\x12" + varint(len(message)) + message)
        self.assertEqual((await inbox.next("the message")).offset, offset + 1)

    async def test_subscriptions_beyond_the_limit_are_errors_of_their_own(self) -> None:
        broker = await self.broker("[limits]\nsubscriptions_max = 4\nfilters_max = 4\n")
        client = await self.client(broker.url)
        subscriptions = [client.subscribe(f"room.{nth}") for nth in range(6)]
        for subscription in subscriptions[:4]:
            await within("acceptance", subscription.ready())
        for subscription in subscriptions[4:]:
            with self.assertRaises(fanfare.FanfareError) as refused:
                await within("the refusal", subscription.ready())
            self.assertEqual((refused.exception.code, refused.exception.name), (109, "tooManySubscriptions"))
        inbox = self.listen(subscriptions[0])
        await client.publish("room.0", "goes on")
        self.assertEqual((await inbox.until("the message", is_message)).data, "goes on")

    async def test_what_is_published_offline_waits_up_to_a_bound_and_is_refused_beyond_it(self) -> None:
        broker = Broker()
        broker.address = f"127.0.0.1:{await free_port()}"
        client = await self.client(broker.url, tuning=replace(SOON, queue_max=3))
        publishing = [await self.enter(task(client.publish("room.1", nth))) for nth in range(3)]
        await asyncio.sleep(0)
        with self.assertRaises(fanfare.FanfareError) as refused:
            await client.publish("room.1", 3)
        self.assertEqual((refused.exception.name, refused.exception.retry), ("queueFull", "later"))
        await self.enter(broker)
        places: list[Published] = [await within("the position", each) for each in publishing]
        self.assertEqual([place.offset for place in places], [1, 2, 3])
        page = await client.history("room.1")
        self.assertEqual([message.data for message in page.messages], [0, 1, 2])
        self.assertEqual((await client.publish("room.1", 3)).offset, 4)

    async def test_a_server_that_falls_silent_is_given_up(self) -> None:
        script = await self.script()
        states: Inbox[fanfare.StateEvent] = Inbox()
        tuning = replace(SOON, silence=0.1, open_max=600)
        client = await self.client(script.url, tuning=tuning, on_state=states.put)
        inbox = self.listen(client.subscribe("a"))
        peer = await script.greet(pingMs=100)
        await peer.accept(position={"epoch": "e", "offset": 0})
        peer.messages("a", 1)
        await inbox.until("the message", is_message)
        waiting = await states.until("the end", lambda event: event.state == "waiting")
        self.assertIn("silent", waiting.reason)
        await peer.gone()
        peer = await script.greet()
        self.assertEqual((await peer.expect("subscribe"))["since"], {"epoch": "e", "offset": 1})

    async def test_a_delete_is_delivered(self) -> None:
        broker = await self.broker('[[topics.rules]]\nfilter = "row"\nsnapshot = "keys"\n')
        client = await self.client(broker.url)
        subscription = client.subscribe("row")
        inbox = self.listen(subscription)
        await within("acceptance", subscription.ready())
        for key in ("x", "y"):
            await client.publish("row", 1, key=key)
        await client.publish("row", key="x", delete=True)
        events: list[Any] = []
        while len(messages(events)) < 3:
            events.append(await inbox.next("a message"))
        last = messages(events)[-1]
        self.assertEqual((last.key, last.deleted, last.offset), ("x", True, 3))
        self.assertEqual((last.data, last.text, last.binary), (None, None, None))
        subscription.unsubscribe()
        later = self.listen(client.subscribe("row", snapshot=True))
        self.assertEqual([getattr(event, "key", None) for event in await later.many(3)], [None, "y", None])

    async def test_text_and_bytes_come_back_as_they_were(self) -> None:
        broker = await self.broker()
        client = await self.client(broker.url)
        subscription = client.subscribe("room.1")
        inbox = self.listen(subscription)
        await within("acceptance", subscription.ready())
        every = "".join(map(chr, [*range(1, 0x500), 0x2028, 0xFFFD, 0x1F600, 0x10FFFF]))
        values: list[Any] = [None, False, 0, "", [], {}, {"x": [1.5, "é\n\u2028", None]}]
        payloads: list[dict[str, Any]] = [
            *({"data": data} for data in [*values, 2**53 - 1, -1e-7, every]),
            *({"text": text} for text in ("", "é", "\x00\r\n", every)),
            *({"binary": data} for data in (b"", b"\x00", bytes(range(256)) * 3)),
        ]
        for payload in payloads:
            await client.publish("room.1", **payload)
            message = await inbox.until("the message", is_message)
            got = {"data": message.data, "text": message.text, "binary": message.binary}
            self.assertEqual(got, {"data": None, "text": None, "binary": None, **payload})

    async def test_what_waits_for_a_slow_reader_is_bounded(self) -> None:
        broker = await self.broker()
        direct, client = await self.client(broker.url), await self.client(broker.url)
        dropping = client.subscribe("fast", buffer=10)
        await within("acceptance", dropping.ready())
        count = 200
        for nth in range(1, count + 1):
            await direct.publish("fast", nth)
        await client.publish("fast", "the last one")
        events: list[Any] = []
        inbox = self.listen(dropping)
        while not events or getattr(events[-1], "data", None) != "the last one":
            events.append(await inbox.next("an event"))
        self.assertLessEqual(len(events), 11)
        offset = 0
        for event in events:
            if isinstance(event, Gap):
                self.assertEqual(
                    (event.first, event.reason, event.count), (offset + 1, "buffer", event.last - offset)
                )
                offset = event.last
            elif is_message(event):
                self.assertEqual(event.offset, offset + 1)
                offset = event.offset
        self.assertEqual(offset, count + 1)

        # And one for whom nothing is dropped: the connection is not read from while there is no room.
        patient = await self.client(broker.url)
        waiting = patient.subscribe("slow", buffer=10, when_full="wait")
        await within("acceptance", waiting.ready())
        for nth in range(1, count + 1):
            await direct.publish("slow", nth)
        await self.settled(patient)
        got = []
        async for message in waiting:
            got.append(message.data)
            self.assertLessEqual(len(waiting._items), 10)
            if len(got) == count:
                break
        self.assertEqual(got, list(range(1, count + 1)))

    @staticmethod
    async def settled(client: fanfare.Client) -> None:
        """Waits until the client reads no more."""

        async def poll() -> None:
            while not client._paused:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0)

        await within("a pause", poll())


class InProtobuf(InJson):
    spelling: Spelling = "protobuf"
