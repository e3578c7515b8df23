"""Server-sent events and looks over HTTP, by themselves and through the proxies of deploy/."""

import http.client
import json
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request

from broker import DEADLINE, Broker
from proxies import Caddy, HAProxy, Nginx


class Stream:
    """A reader of events that knows nothing of the broker: what the HTML standard says of lines."""

    def __init__(self, address, query, last_id=None):
        headers = {"Accept": "text/event-stream"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        self.connection = http.client.HTTPConnection(address, timeout=DEADLINE)
        self.connection.request("GET", f"/sse?{query}", headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.headers["content-type"] == "text/event-stream"
        self.last_id = last_id

    def hear(self):
        data, name = [], self.last_id
        while line := self.answer.readline():
            line = line.decode().rstrip("\n")
            if not line:
                self.last_id = name
                if data:
                    return json.loads("\n".join(data))
                continue
            field, _, value = line.partition(": ")
            if field == "data":
                data.append(value)
            elif field == "id":
                name = value
        return None

    def until(self, kind):
        while kind not in (event := self.hear()):
            pass
        return event[kind]

    def close(self):
        self.connection.close()


def publish(broker, topic, data):
    body = json.dumps({"topic": topic, "data": data}).encode()
    request = urllib.request.Request(
        f"http://{broker.public}/v1/publish", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
        return json.load(answer)


class Reads:
    """What holds with and without a proxy. Subclasses say which."""

    kind = None

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker("serve")
        cls.proxy = cls.kind(cls.broker.public) if cls.kind else None
        cls.address = cls.proxy.address if cls.proxy else cls.broker.public

    @classmethod
    def tearDownClass(cls):
        if cls.proxy:
            cls.proxy.stop()
        cls.broker.stop()

    def stream(self, query, last_id=None):
        stream = Stream(self.address, query, last_id)
        self.addCleanup(stream.close)
        return stream

    def test_an_event_comes_at_once_and_a_reader_comes_back_to_where_it_was(self):
        topic = f"{type(self).__name__}.one"
        for query in (f"topic={topic}", f"topic={topic}&topic=other.%3E"):
            stream = self.stream(query)
            stream.until("subscribed")
            for number in range(3):
                # Each before the next is published: whoever collects events does not pass.
                publish(self.broker, topic, number)
                self.assertEqual(stream.until("message")["data"], number)
            stream.close()
            publish(self.broker, topic, "missed")
            again = self.stream(query, stream.last_id)
            self.assertTrue(again.until("subscribed")["recovered"])
            self.assertEqual(again.until("message")["data"], "missed")

    def test_topics_are_looked_at(self):
        topic = f"{type(self).__name__}.look"
        publish(self.broker, topic, 1)
        query = urllib.parse.urlencode({"topic": topic})
        for path, field in (("history", "top"), ("snapshot", "positions")):
            with urllib.request.urlopen(f"http://{self.address}/v1/{path}?{query}", timeout=DEADLINE) as answer:
                page = json.load(answer)
            self.assertEqual([message["data"] for message in page["messages"]], [1])
            self.assertIn(field, page)

    def test_a_refusal_is_the_brokers(self):
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{self.address}/sse?topc=a", timeout=DEADLINE)
        self.assertEqual(refused.exception.code, 400)
        self.assertEqual(json.load(refused.exception)["error"]["name"], "badRequest")

    def test_pings_keep_a_stream(self):
        config = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.enterContext(config)
        config.write('websocket = { ping_interval = "1s", pong_timeout = "1s" }\n')
        config.flush()
        broker = Broker("serve", "--config", config.name)
        self.addCleanup(broker.stop)
        proxy = self.kind(broker.public, changes=self.quick) if self.kind else None
        if proxy:
            self.addCleanup(proxy.stop)
        stream = Stream(proxy.address if proxy else broker.public, "topic=a")
        self.addCleanup(stream.close)
        stream.until("subscribed")
        for _ in range(4):
            self.assertEqual(stream.hear(), {"ping": {}})


class Direct(Reads, unittest.TestCase):
    def test_curl_reads_a_stream(self):
        command = ["curl", "--silent", "--no-buffer", f"http://{self.address}/sse?topic=curl"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
            self.addCleanup(curl.kill)
            lines = iter(curl.stdout.readline, "")
            while "subscribed" not in next(lines):
                pass
            publish(self.broker, "curl", "ä")
            line = next(line for line in lines if line.startswith("data: "))
            self.assertEqual(json.loads(line.removeprefix("data: "))["message"]["data"], "ä")
            curl.kill()


class BehindNginx(Reads, unittest.TestCase):
    kind = Nginx
    quick = [("_timeout 60s;", "_timeout 2s;")]


class BehindHAProxy(Reads, unittest.TestCase):
    kind = HAProxy
    quick = [("timeout server 60s", "timeout server 2s"), ("timeout client 30s", "timeout client 2s")]


class BehindCaddy(Reads, unittest.TestCase):
    kind = Caddy
    quick = []


if __name__ == "__main__":
    unittest.main()
