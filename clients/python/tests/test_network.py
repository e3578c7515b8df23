"""TLS, HTTP refusals, and what else lies between a client and its server."""

from __future__ import annotations

import ssl
import subprocess
from typing import Any

import fanfare

from .support import Broker, Inbox, Script, Test, is_message, within

TLS = '[tls]\ncertificate = "chain.pem"\nkey = "key.pem"\n'


class Tls(Test):
    async def broker(self) -> Broker:
        broker = Broker(TLS)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        files = ["-nodes", "-out", "chain.pem", "-keyout", "key.pem"]
        subprocess.run(  # noqa: ASYNC221 - nothing else is to happen meanwhile
            [*command, *names, *files], cwd=broker.folder, check=True, capture_output=True
        )
        return await self.enter(broker)

    async def test_a_server_that_is_trusted_is_spoken_to(self) -> None:
        broker = await self.broker()
        trust = ssl.create_default_context(cafile=str(broker.folder / "chain.pem"))
        client = await self.connect(f"wss://{broker.address}/ws", ssl=trust)
        inbox = self.listen(client.subscribe("room.1", snapshot=True))
        await within("the answer", client.publish("room.1", "secret"))
        self.assertEqual((await inbox.until("the message", is_message)).data, "secret")

    async def test_a_server_that_nobody_vouches_for_is_not(self) -> None:
        broker = await self.broker()
        states: Inbox[fanfare.StateEvent] = Inbox()
        client = await self.connect(f"wss://{broker.address}/ws", on_state=states.put)
        for _ in range(2):
            event = await states.until("the refusal", lambda event: event.state == "waiting")
            self.assertIn("certificate", event.reason.lower())
        self.assertNotEqual(client.state, "connected")

    async def test_arguments_that_the_network_does_not_take_end_the_client(self) -> None:
        with self.assertLogs("fanfare", "ERROR"):
            client = await self.connect("ws://127.0.0.1:1/ws", ssl=ssl.create_default_context())
            with self.assertRaises(fanfare.FanfareError) as broken:
                await within("the end", client.publish("a", 1))
        self.assertEqual(broken.exception.name, "broken")


class Refusals(Test):
    async def refused(self, status: str, body: bytes, *more: bytes) -> tuple[Any, Inbox[fanfare.StateEvent]]:
        states: Inbox[fanfare.StateEvent] = Inbox()
        script = await self.enter(Script("json"))
        client = await self.connect(script.url, on_state=states.put)
        peer = await script.accept()
        await peer.request()
        head = [b"HTTP/1.1 " + status.encode(), b"content-length: %d" % len(body), *more]
        peer.write(b"\r\n".join([*head, b"", body]))
        await states.until("the attempt", lambda event: event.state == "connecting")
        return client, states

    async def test_a_refusal_that_will_not_change_ends_the_client(self) -> None:
        body = b'{"error":{"code":403,"name":"badOrigin","retry":"never","message":"not from there"}}'
        client, states = await self.refused("403 Forbidden", body)
        event = await states.next("the end")
        self.assertEqual((event.state, event.error and event.error.name), ("closed", "badOrigin"))
        with self.assertRaises(fanfare.FanfareError):
            await client.ready()

    async def test_a_refusal_that_may_change_is_waited_for(self) -> None:
        body = b'{"error":{"code":431,"name":"tooManyConnections","retry":"later","message":"full"}}'
        _, states = await self.refused("503 Service Unavailable", body, b"retry-after: 1")
        event = await states.next("the wait")
        self.assertEqual(event.state, "waiting")
        self.assertGreaterEqual(event.delay, 1)

    async def test_a_refusal_of_somebody_else_is_tried_again(self) -> None:
        for body in (b"<html>", b'{"error":7}', b"[" * 5_000, b'{"error":{"code":"x"}}', b"\xff"):
            _, states = await self.refused("404 Not Found", body)
            self.assertEqual((await states.next("the wait")).state, "waiting")

    async def test_a_token_function_that_fails_is_asked_again(self) -> None:
        script = await self.enter(Script("json"))
        answers: list[str | Exception] = [OSError("the backend is down"), "", "good"]

        async def token() -> str:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        with self.assertLogs("fanfare", "WARNING"):
            client = await self.connect(script.url, token=token)
            peer = await script.accept()
        await peer.upgrade()
        refusal = {"code": 4401, "name": "tokenExpired", "retry": "refresh", "message": "too late"}
        peer.send({"id": (await peer.expect("connect"))["id"], "error": refusal})
        peer = await script.accept()
        await peer.upgrade()
        command = await peer.expect("connect")
        self.assertEqual(command["token"], "good")
        peer.send({"id": command["id"], "connected": {}})
        await within("the connection", client.ready())

    async def test_a_token_function_can_give_up(self) -> None:
        async def token() -> str:
            raise fanfare.FanfareError(0, "loggedOut", "never", "nobody is logged in")

        client = await self.connect("ws://127.0.0.1:1/ws", token=token)
        with self.assertRaises(fanfare.FanfareError) as ended:
            await within("the end", client.publish("a", 1))
        self.assertEqual(ended.exception.name, "loggedOut")

    async def test_a_close_code_says_whether_to_come_back(self) -> None:
        for code, back in (
            (1001, True),
            (1011, True),
            (4408, True),
            (4500, False),
            (1009, False),
            (4503, False),
        ):
            script = await self.enter(Script("json"))
            states: Inbox[fanfare.StateEvent] = Inbox()
            client = await self.connect(script.url, on_state=states.put)
            peer = await script.greet()
            peer.close(code, "someName: a sentence: and more")
            event = await states.until("the end", lambda event: event.state in ("waiting", "closed"))
            self.assertEqual((event.state, event.code), ("waiting" if back else "closed", code))
            if not back:
                with self.assertRaises(fanfare.FanfareError) as ended:
                    await client.publish("a", 1)
                what = (ended.exception.code, ended.exception.name, str(ended.exception))
                self.assertEqual(what, (code, "someName", "a sentence: and more"))
