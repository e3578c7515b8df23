"""Live WebSockets, and requests that mean harm, through the proxies of deploy/."""

import asyncio
import json
import pathlib
import re
import socket
import ssl
import tempfile
import threading
import unittest
import urllib.request

import websockets
from broker import DEADLINE, Broker
from proxies import Caddy, HAProxy, Nginx, free_port, seconds

PROXIED = pathlib.Path(__file__).resolve().parents[2] / "deploy/proxied.toml"
PING_SECONDS = 25
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY]
STOLEN = json.dumps({"topic": "stolen", "text": "x"})
PUBLISH = (
    "POST /v1/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(STOLEN)}\r\n\r\n{STOLEN}"
)


def run(awaitable):
    return asyncio.run(asyncio.wait_for(awaitable, DEADLINE))


def head(*headers, line="GET /ws HTTP/1.1", host="127.0.0.1"):
    return "\r\n".join([line, f"Host: {host}", *headers, "", ""])


def exchange(address, text):
    """Everything that is answered until the other side ends, or says nothing more for a second."""
    host, port = address.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as stream:
        stream.sendall(text.encode())
        try:
            while chunk := stream.recv(65536):
                answer += chunk
                stream.settimeout(1)
        except TimeoutError:
            pass
        except ConnectionResetError:
            pass
    return answer.decode(errors="replace")


def statuses(answer):
    return [int(status) for status in re.findall(r"HTTP/1\.[01] (\d{3})", answer)]


class Stub:
    """A server that notes what arrives, answers each connection once, and is no WebSocket."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.answer = answer.encode()
        self.heard = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._note, args=[stream], daemon=True).start()

    def _note(self, stream):
        place = len(self.heard)
        self.heard.append(b"")
        stream.settimeout(1)
        answered = False
        with stream:
            try:
                while chunk := stream.recv(65536):
                    self.heard[place] += chunk
                    if not answered and b"\r\n\r\n" in self.heard[place]:
                        stream.sendall(self.answer)
                        answered = True
            except OSError:
                pass

    def requests(self):
        return [heard.decode() for heard in self.heard if heard]

    def stop(self):
        self.listener.close()


class Recipe:
    """What holds behind every proxy. Subclasses say which."""

    # A handshake with a body in chunks may reach the broker, as what it is.
    lets_chunks_pass = False

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker("serve", "--config", str(PROXIED))
        cls.proxy = cls.kind(cls.broker.public)

    @classmethod
    def tearDownClass(cls):
        cls.proxy.stop()
        cls.broker.stop()

    def published(self):
        with urllib.request.urlopen(f"http://{self.broker.admin}/metrics", timeout=DEADLINE) as page:
            text = page.read().decode()
        return int(re.search(r"^fanfare_published_total (\d+)", text, re.M)[1])

    def stub(self, answer):
        stub = Stub(answer)
        self.addCleanup(stub.stop)
        proxy = self.kind(stub.address)
        self.addCleanup(proxy.stop)
        return stub, proxy

    def test_messages_pass_in_both_directions(self):
        async def session():
            url = f"ws://{self.proxy.address}/ws"
            origin = f"http://{self.proxy.address}"
            async with websockets.connect(url, origin=origin) as reader, websockets.connect(url) as writer:
                await reader.send('{"id":1,"subscribe":{"topic":"proxy.news"}}')
                await reader.recv()
                # The largest that the broker takes, nearly, and one that is small.
                for data in ("x" * 60_000, "ä"):
                    await writer.send(json.dumps({"id": 2, "publish": {"topic": "proxy.news", "data": data}}))
                    self.assertIn("published", json.loads(await writer.recv()))
                    self.assertEqual(json.loads(await reader.recv())["message"]["data"], data)

        run(session())

    def test_a_foreign_origin_is_still_foreign(self):
        answer = exchange(self.proxy.address, head(*UPGRADE, "Origin: https://evil.example"))
        self.assertEqual(statuses(answer), [403])
        self.assertIn("badOrigin", answer)

    def test_only_ws_passes(self):
        before = self.published()
        for path in ("/", "/ws/", "/WS", "/wss", "/metrics", "/v1/publish", "/ws/../v1/publish", "//v1/publish"):
            answer = exchange(self.proxy.address, head(*UPGRADE, line=f"GET {path} HTTP/1.1"))
            self.assertIn(statuses(answer)[0], (400, 404), path)
            self.assertNotIn('"error"', answer, f"{path} reached the broker")
        answer = exchange(self.proxy.address, PUBLISH)
        self.assertEqual(statuses(answer)[0], 404)
        self.assertEqual(self.published(), before)

    def test_only_a_request_for_a_websocket_passes(self):
        for line, headers in (
            ("GET /ws HTTP/1.1", []),
            ("GET /ws HTTP/1.1", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]),
            ("POST /ws HTTP/1.1", UPGRADE),
            ("PUT /ws HTTP/1.1", UPGRADE),
        ):
            answer = exchange(self.proxy.address, head(*headers, line=line))
            self.assertIn(statuses(answer)[0], (400, 404, 405, 426), answer)
            self.assertNotIn('"error"', answer, f"{line} {headers} reached the broker")

    def test_a_handshake_with_a_body_ends_at_the_proxy(self):
        before = self.published()
        stub, proxy = self.stub("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        length = f"Content-Length: {len(PUBLISH)}"
        chunked = f"{len(PUBLISH):x}\r\n{PUBLISH}\r\n0\r\n\r\n"
        for headers, body in (
            ([length], PUBLISH),
            (["Transfer-Encoding: chunked"], chunked),
            ([length, "Transfer-Encoding: chunked"], chunked),
            (["Transfer-Encoding: chunked", "Content-Length: 4"], chunked),
            (["Transfer-Encoding: xchunked"], PUBLISH),
            ([length, "Content-Length: 0"], PUBLISH),
            (["Content-Length: +5"], PUBLISH),
        ):
            exchange(proxy.address, head(*UPGRADE, *headers) + body)
            arrived = [request for request in stub.requests() if "chunked" not in request or not self.lets_chunks_pass]
            self.assertEqual(arrived, [], headers)
            answer = exchange(self.proxy.address, head(*UPGRADE, *headers) + body)
            told = statuses(answer)
            self.assertNotIn(101, told, headers)
            self.assertNotIn(200, told, headers)
            # A connection that is reset with the body unread may take the answer with it.
            self.assertTrue(set(told) <= {400, 404, 408, 422, 426, 501}, (headers, answer))
        self.assertEqual(self.published(), before)

    def test_a_request_behind_a_refused_handshake_is_judged_by_itself(self):
        before = self.published()
        old = [header.replace("Version: 13", "Version: 12") for header in UPGRADE]
        answer = exchange(self.proxy.address, head(*old) + PUBLISH)
        told = statuses(answer)
        self.assertIn(told[0], (400, 426), answer)
        self.assertTrue(set(told[1:]) <= {400, 404}, answer)
        self.assertEqual(self.published(), before)

    def test_a_request_behind_a_handshake_is_a_broken_frame(self):
        before = self.published()
        answer = exchange(self.proxy.address, head(*UPGRADE) + PUBLISH)
        self.assertEqual(statuses(answer), [101], answer)
        self.assertEqual(self.published(), before)

    def test_an_answer_that_is_no_101_makes_no_tunnel(self):
        stub, proxy = self.stub("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer = exchange(proxy.address, head(*UPGRADE) + PUBLISH)
        self.assertTrue(set(statuses(answer)[1:]) <= {400, 404}, answer)
        for request in stub.requests():
            self.assertTrue(request.startswith("GET /ws HTTP/1.1\r\n"), request)
            self.assertNotIn("POST", request)

    def test_the_broker_is_told_where_a_client_really_is(self):
        stub, proxy = self.stub("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        claims = ["X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 7.7.7.7", "Forwarded: for=6.6.6.6"]
        origin = "Origin: https://page.example"
        exchange(proxy.address, head(*UPGRADE, *claims, "X-Forwarded-Proto: https", origin))
        [request] = stub.requests()
        headers = [line.partition(":") for line in request.split("\r\n")[1:] if line]
        of = lambda name: [value.strip() for key, _, value in headers if key.lower() == name]
        self.assertEqual(of("x-forwarded-for"), ["127.0.0.1"])
        self.assertEqual(of("x-forwarded-proto"), ["http"])
        self.assertEqual(of("forwarded"), [])
        self.assertEqual(of("origin"), ["https://page.example"])
        self.assertEqual(of("host"), ["127.0.0.1"])
        self.assertEqual([value.lower() for value in of("upgrade")], ["websocket"])
        self.assertEqual(of("sec-websocket-key"), [KEY.split(": ")[1]])

    def test_the_broker_knows_each_client_by_its_own_address(self):
        async def session():
            url = f"ws://{self.proxy.address}/ws"
            headers = {"X-Forwarded-For": "6.6.6.6"}
            source = ("127.0.0.7", 0)
            async with websockets.connect(url, local_addr=source, additional_headers=headers) as client:
                await client.send('{"id":1,"connect":{}}')
                name = json.loads(await client.recv())["connected"]["connection"]
                return await asyncio.to_thread(self.connection, name)

        self.assertEqual(run(session())["client"], "127.0.0.7")

    def connection(self, name):
        """What the broker says of a connection."""
        with urllib.request.urlopen(f"http://{self.broker.admin}/v1/connections", timeout=DEADLINE) as page:
            rows = json.loads(page.read())["connections"]
        [row] = [row for row in rows if row["id"] == name]
        return row

    def test_a_head_that_is_too_large_is_refused(self):
        answer = exchange(self.proxy.address, head(*UPGRADE, "X-Large: " + "x" * 40_000))
        self.assertNotIn(101, statuses(answer))

    def test_silence_of_two_pings_is_no_reason_to_hang_up(self):
        """Real time, thirty times as fast."""
        for limit in self.idle:
            self.assertGreater(limit, 2 * PING_SECONDS)
        config = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.enterContext(config)
        config.write('websocket = { ping_interval = "1s", pong_timeout = "1s" }\n')
        config.flush()
        broker = Broker("serve", "--config", config.name)
        self.addCleanup(broker.stop)
        proxy = self.kind(broker.public, changes=self.quick)
        self.addCleanup(proxy.stop)

        async def session():
            async with websockets.connect(f"ws://{proxy.address}/ws", ping_interval=None) as socket:
                for _ in range(4):
                    self.assertEqual(await socket.recv(), '{"ping":{}}')

        run(session())


class BehindNginx(Recipe, unittest.TestCase):
    kind = Nginx
    idle = seconds("nginx/nginx-fanfare.conf", r"proxy_(?:read|send)_timeout (\d+)s;")
    quick = [("_timeout 60s;", "_timeout 2s;")]


class BehindHAProxy(Recipe, unittest.TestCase):
    kind = HAProxy
    idle = seconds("haproxy/haproxy.cfg", r"timeout tunnel (\d+)s")
    quick = [("timeout tunnel 60s", "timeout tunnel 2s")]


class BehindCaddy(Recipe, unittest.TestCase):
    kind = Caddy
    lets_chunks_pass = True
    # After a 101 it has no limit of its own.
    idle = []
    quick = []


class Restart(unittest.TestCase):
    def test_a_handshake_waits_while_the_broker_restarts(self):
        for kind in (HAProxy, Caddy):
            with self.subTest(kind.name):
                address = f"127.0.0.1:{free_port()}"
                proxy = kind(address)
                self.addCleanup(proxy.stop)
                host, port = proxy.address.split(":")
                with socket.create_connection((host, int(port)), timeout=DEADLINE) as stream:
                    # Nobody listens there yet.
                    stream.sendall(head(*UPGRADE).encode())
                    broker = Broker("serve", public=address)
                    self.addCleanup(broker.stop)
                    self.assertTrue(stream.recv(64).startswith(b"HTTP/1.1 101 "))


class Tls(unittest.TestCase):
    def test_a_websocket_comes_through_tls_and_plain_requests_are_sent_there(self):
        broker = Broker("serve")
        self.addCleanup(broker.stop)
        for kind in (Nginx, HAProxy):
            with self.subTest(kind.name):
                proxy = kind(broker.public, tls=True)
                self.addCleanup(proxy.stop)
                trust = ssl.create_default_context(cafile=proxy.certificate)

                async def session():
                    url, origin = f"wss://{proxy.secure}/ws", f"https://{proxy.secure}"
                    async with websockets.connect(url, ssl=trust, origin=origin) as socket:
                        await socket.send('{"id":7,"ping":{}}')
                        self.assertEqual(await socket.recv(), '{"id":7,"pong":{}}')

                run(session())
                trust.maximum_version = ssl.TLSVersion.TLSv1_1
                trust.minimum_version = ssl.TLSVersion.TLSv1
                with self.assertRaises((ssl.SSLError, ConnectionError)):
                    run(session())
                answer = exchange(proxy.address, head(*UPGRADE))
                self.assertEqual(statuses(answer), [308])
                self.assertIn("https://127.0.0.1/ws", answer)


if __name__ == "__main__":
    unittest.main()
