"""Clients that nobody here wrote, against a broker with live feeds."""

import asyncio
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import websockets
from broker import DEADLINE, Broker

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(sys.executable).parent
SUBSCRIBE = json.dumps({"id": 1, "subscribe": {"topic": "ticker.>", "snapshot": True}})


def setUpModule():
    global broker, schema
    broker = Broker("demo")
    schema = compile_schema()


def tearDownModule():
    broker.stop()


def compile_schema():
    """The schema as Google's own compiler and runtime understand it."""
    from grpc_tools import protoc

    folder = tempfile.mkdtemp()
    status = protoc.main(
        ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={folder}", "fanfare/v1/fanfare.proto"]
    )
    assert status == 0, "the schema does not compile"
    sys.path.insert(0, folder)
    from fanfare.v1 import fanfare_pb2

    return fanfare_pb2


def run(awaitable):
    return asyncio.run(asyncio.wait_for(awaitable, DEADLINE))


def is_quote(event):
    message = event.get("message", {})
    return message.get("topic", "").startswith("ticker.") and message["data"]["price"] > 0


def curl(*arguments):
    """The status and the body of an answer."""
    command = ["curl", "-s", "-m", str(DEADLINE), "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    body, status = done.stdout.rsplit("\n", 1)
    return int(status), body


class WebSocketClients(unittest.TestCase):
    def test_python_websockets_receives_json(self):
        async def session():
            url = f"ws://{broker.public}/ws"
            async with websockets.connect(url, subprotocols=["fanfare.v1.json"]) as socket:
                self.assertEqual(socket.subprotocol, "fanfare.v1.json")
                await socket.send(SUBSCRIBE)
                first = json.loads(await socket.recv())
                self.assertEqual(first, {"id": 1, "subscribed": {"topic": "ticker.>"}})
                while not is_quote(json.loads(await socket.recv())):
                    pass

        run(session())

    def test_python_websockets_with_compression(self):
        config = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.enterContext(config)
        config.write("websocket.compression = true\n")
        config.flush()
        compressing = Broker("serve", "--config", config.name)
        self.addCleanup(compressing.stop)
        data = [{"symbol": f"ä{row}", "price": row / 7} for row in range(1000)]

        async def session():
            async with websockets.connect(f"ws://{compressing.public}/ws", max_size=1 << 20) as socket:
                extensions = socket.response.headers["sec-websocket-extensions"]
                self.assertTrue(extensions.startswith("permessage-deflate;"))
                await socket.send('{"id":1,"subscribe":{"topic":"interop.rows"}}')
                await socket.recv()
                for round in range(3):
                    publish = {"topic": "interop.rows", "data": data}
                    await socket.send(json.dumps({"id": 2, "publish": publish}))
                    events = [json.loads(await socket.recv()) for _ in range(2)]
                    [message] = [event["message"] for event in events if "message" in event]
                    self.assertEqual((message["offset"], message["data"]), (round + 1, data))

        run(session())

    def test_without_a_subprotocol_it_is_json(self):
        async def session():
            async with websockets.connect(f"ws://{broker.public}/ws") as socket:
                self.assertIsNone(socket.subprotocol)
                await socket.send('{"id":7,"ping":{}}')
                self.assertEqual(await socket.recv(), '{"id":7,"pong":{}}')

        run(session())

    def test_googles_protobuf_over_websocket(self):
        async def session():
            url = f"ws://{broker.public}/ws"
            async with websockets.connect(url, subprotocols=["fanfare.v1.proto"]) as socket:
                command = schema.Command(id=1, subscribe=schema.Subscribe(topic="ticker.>", last=1))
                await socket.send(command.SerializeToString())
                event = schema.Event.FromString(await socket.recv())
                self.assertEqual((event.id, event.subscribed.topic), (1, "ticker.>"))
                while True:
                    event = schema.Event.FromString(await socket.recv())
                    if event.WhichOneof("body") == "message":
                        break
                self.assertGreater(json.loads(event.message.data)["price"], 0)
                self.assertGreater(event.message.offset, 0)

        run(session())

    def test_googles_protobuf_over_tcp(self):
        async def session():
            host, port = broker.ingress.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))

            async def ask(command):
                body = command.SerializeToString()
                writer.write(struct.pack(">I", len(body)) + body)
                length = struct.unpack(">I", await reader.readexactly(4))[0]
                return schema.Event.FromString(await reader.readexactly(length))

            for offset in (1, 2):
                publish = schema.Publish(topic="interop.tcp", text="hello", key="k")
                event = await ask(schema.Command(id=offset, publish=publish))
                self.assertEqual((event.id, event.published.offset), (offset, offset))
            page = (await ask(schema.Command(id=3, history=schema.History(topic="interop.tcp")))).history_page
            self.assertEqual([message.text for message in page.messages], ["hello", "hello"])
            writer.close()

        run(session())

    def test_node_ws(self):
        script = ROOT / "tests/interop/ws.mjs"
        env = {**os.environ, "URL": f"ws://{broker.public}/ws", "SUBSCRIBE": SUBSCRIBE}
        done = subprocess.run(["node", script], env=env, capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(any(is_quote(json.loads(line)) for line in done.stdout.splitlines()))

    def test_websocat(self):
        command = [TOOLS / "websocat", "--protocol", "fanfare.v1.json", f"ws://{broker.public}/ws"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as websocat:
            websocat.stdin.write(SUBSCRIBE + "\n")
            websocat.stdin.flush()
            self.assertTrue(any(is_quote(json.loads(line)) for line in websocat.stdout))
            websocat.kill()


class Refusals(unittest.TestCase):
    UPGRADE = [
        *("-H", "Connection: Upgrade", "-H", "Upgrade: websocket"),
        *("-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ]

    def refused(self, *arguments):
        status, body = curl(*arguments)
        return status, json.loads(body)["error"]

    def test_an_unknown_subprotocol_is_400_with_the_list(self):
        header = "Sec-WebSocket-Protocol: mqtt, stomp"
        status, error = self.refused(*self.UPGRADE, "-H", header, f"http://{broker.public}/ws")
        self.assertEqual((status, error["name"]), (400, "badSubprotocol"))
        for name in ("fanfare.v1.json", "fanfare.v1.proto"):
            self.assertIn(name, error["message"])

    def test_a_foreign_origin_is_403(self):
        header = "Origin: https://evil.example"
        for arguments in ([*self.UPGRADE, f"http://{broker.public}/ws"], self.publish("{}")):
            status, error = self.refused("-H", header, *arguments)
            self.assertEqual((status, error["name"]), (403, "badOrigin"))

    @staticmethod
    def publish(body):
        url = f"http://{broker.public}/v1/publish"
        return ["-H", "Content-Type: application/json", "-d", body, url]

    def test_curl_publishes_what_the_history_holds(self):
        key = {"topic": "interop.curl", "data": {"x": 1}, "idempotencyKey": "once"}
        answers = {curl(*self.publish(json.dumps(key))) for _ in range(3)}
        self.assertEqual(len(answers), 1, "the same key has one answer")
        status, body = answers.pop()
        self.assertEqual((status, json.loads(body)["offset"]), (200, 1))
        pair = json.dumps([{"topic": "interop.curl", "text": "two"}, {"topic": "no good"}])
        status, body = curl(*self.publish(pair))
        second, refused = json.loads(body)
        self.assertEqual((status, second["offset"], refused["error"]["name"]), (200, 2, "badTopic"))


if __name__ == "__main__":
    unittest.main()
