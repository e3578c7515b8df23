"""A broker that is restarted again and again behind HAProxy: nobody misses a message, nobody gets one twice."""

import asyncio
import json
import pathlib
import random
import shutil
import signal
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import websockets
from broker import DEADLINE, Broker
from proxies import HAProxy, free_port

CLIENTS = 1000
RESTARTS = 2
TOPIC = "rolling"
# What one machine may do in all: it has other things to do as well.
PATIENCE = 120
# The recipe is for clients with addresses of their own, and the harness for a few of them.
CHANGES = [
    ("maxconn 500\n", "maxconn 4000\n"),
    ("sc0_conn_cur gt 200", "sc0_conn_cur gt 4000"),
    ("sc0_http_req_rate gt 200", "sc0_http_req_rate gt 40000"),
]


class Follower:
    """A subscriber that resumes after the last message it has seen, whatever happens to its connection."""

    def __init__(self, url):
        self.url = url
        self.position = None
        self.seen = []
        self.faults = []
        self.farewells = 0
        self.came = asyncio.Event()
        self.subscribed = asyncio.Event()

    async def follow(self):
        while True:
            try:
                async with websockets.connect(self.url, compression=None, open_timeout=None) as socket:
                    await self.listen(socket)
            except (OSError, websockets.WebSocketException):
                await asyncio.sleep(random.random() / 2)

    async def listen(self, socket):
        subscribe = {"topic": TOPIC} | ({"since": self.position} if self.position else {})
        await socket.send(json.dumps({"id": 1, "subscribe": subscribe}))
        async for text in socket:
            self.take(json.loads(text))

    def take(self, event):
        if message := event.get("message"):
            if message["offset"] != self.position["offset"] + 1:
                self.faults.append(f"{message['offset']} after {self.position['offset']}")
            self.position["offset"] = message["offset"]
            self.seen.append(message["data"])
            self.came.set()
        elif subscribed := event.get("subscribed"):
            if self.position is None:
                self.position = subscribed["position"]
            elif not subscribed["recovered"]:
                self.faults.append(f"not recovered: {subscribed}")
            self.subscribed.set()
        elif "reconnect" in event:
            self.farewells += 1
        elif "gap" in event or "error" in event:
            self.faults.append(str(event))

    async def until(self, number):
        while not self.seen or self.seen[-1] < number:
            self.came.clear()
            await self.came.wait()


class Publisher:
    """Publishes numbers, each of them until it has been answered, and with the same key each time."""

    def __init__(self, address):
        self.url = f"http://{address}/v1/publish"
        self.number = 0
        self.places = []

    def publish(self):
        self.number += 1
        draft = {"topic": TOPIC, "data": self.number, "idempotencyKey": str(self.number)}
        request = urllib.request.Request(
            self.url, json.dumps(draft).encode(), {"Content-Type": "application/json"}
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                    self.places.append(json.load(answer))
                    return
            except urllib.error.HTTPError as error:
                refused = json.load(error)["error"]
                assert refused["retry"] == "later" or error.code == 503, refused
            except OSError:
                pass
            time.sleep(0.05)

    async def run(self, stopped):
        while not stopped.is_set():
            await asyncio.to_thread(self.publish)
            await asyncio.sleep(0.1)


class Rolling(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fanfare-rolling-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.settings = self.folder / "fanfare.toml"
        self.settings.write_text(
            f"shutdown.snapshot = '{self.folder}/topics'\nshutdown.spread = '1s'\n"
        )
        self.address = f"127.0.0.1:{free_port()}"
        self.broker = self.start()
        self.addCleanup(lambda: self.broker.stop())

    def start(self):
        return Broker("serve", "--config", str(self.settings), public=self.address)

    async def restart(self):
        self.broker.process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self.broker.process.wait, DEADLINE)
        self.assertEqual(status, 0, "".join(self.broker.lines))
        self.broker = await asyncio.to_thread(self.start)

    def test_a_thousand_clients_miss_nothing_and_get_nothing_twice(self):
        proxy = HAProxy(self.address, changes=CHANGES)
        self.addCleanup(proxy.stop)
        asyncio.run(asyncio.wait_for(self.roll(f"ws://{proxy.address}/ws"), PATIENCE))

    async def roll(self, url):
        followers = [Follower(url) for _ in range(CLIENTS)]
        tasks = [asyncio.create_task(follower.follow()) for follower in followers]
        for follower in followers:
            await follower.subscribed.wait()
        publisher, stopped = Publisher(self.address), asyncio.Event()
        publishing = asyncio.create_task(publisher.run(stopped))
        for _ in range(RESTARTS):
            await asyncio.gather(*(follower.until(publisher.number + 3) for follower in followers))
            await self.restart()
        await asyncio.gather(*(follower.until(publisher.number + 3) for follower in followers))
        stopped.set()
        await publishing
        await asyncio.gather(*(follower.until(publisher.number) for follower in followers))
        for task in tasks:
            task.cancel()

        # Each number has one place, and all of them are of one life of the topic.
        offsets = [place["offset"] for place in publisher.places]
        self.assertEqual(offsets, list(range(1, publisher.number + 1)))
        self.assertEqual(len({place["epoch"] for place in publisher.places}), 1)
        for follower in followers:
            self.assertEqual(follower.faults, [])
            self.assertEqual(follower.seen, list(range(1, publisher.number + 1)))
        # All were told before they were closed, each time, and nobody left by himself.
        self.assertEqual({follower.farewells for follower in followers}, {RESTARTS})


if __name__ == "__main__":
    unittest.main()
