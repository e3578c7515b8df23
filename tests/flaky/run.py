"""Clients behind a network that is none, and a publisher beside it: run.py SECONDS.

Each driver is a process with one client, behind a proxy of its own; while the storm lasts, a publisher
straight at the broker goes on. When it is over, every subscription must stand at the top, with no
message lost, doubled or out of order. A driver is any command that takes a URL and topics and prints
events as driver.py and driver.mjs do. The broker is the program that FANFARE_BIN names.

FLAKY_SEED repeats a run, FLAKY_DRIVERS (python json …) chooses drivers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON_CLIENT = ROOT / "clients" / "python"
sys.path.insert(0, str(PYTHON_CLIENT))

import fanfare  # noqa: E402 - it is found only now
from judge import BRIEF, BRIEF_HOLDS, Judge, Topic  # noqa: E402
from proxy import Flaky  # noqa: E402
from tests.support import Broker, task, within  # noqa: E402

CONFIG = f"""
[websocket]
ping_interval = "1s"
pong_timeout = "1s"
[limits]
# A resume may send all that was missed, so that no limit explains a loss.
resume_messages_max = 100_000
resume_bytes_max = "64 MiB"
[[topics.rules]]
filter = "{BRIEF}*"
history = {{ messages = {BRIEF_HOLDS} }}
[[topics.rules]]
filter = ">"
history = {{ messages = 100_000, age = "1h", bytes = "64 MiB" }}
"""
#: By subscription: what belongs to it.
SUBSCRIPTIONS = {
    "room.1": ["room.1"],
    "room.*": ["room.1", "room.2"],
    "flow.>": ["flow.a", "flow.b", "flow.c.d"],
    "flow.a": ["flow.a"],
    "brief.1": ["brief.1"],
    "brief.*": ["brief.1", "brief.2"],
}
TOPICS = sorted({topic for topics in SUBSCRIPTIONS.values() for topic in topics})
#: How long the clients have to find everything once the storm is over, in seconds.
SETTLE_MAX = 60.0


def drivers() -> dict[str, list[str]]:
    """The command of each driver, where what it drives is there."""
    python = [sys.executable, str(HERE / "driver.py"), "URL"]
    rust = [str(pathlib.Path(os.environ["FANFARE_BIN"]).parent / "examples" / "flaky"), "URL"]
    js = ["node", str(HERE / "driver.mjs"), "URL"]
    table = {
        "js json": [*js, "json"],
        "js protobuf": [*js, "protobuf"],
        "js sse": [*js, "sse"],
        "python json": [*python, "json"],
        "python protobuf": [*python, "protobuf"],
        "rust json": [*rust, "json"],
        "rust protobuf": [*rust, "protobuf"],
    }
    if not (ROOT / "clients" / "js" / "dist" / "proto.js").exists():
        del table["js protobuf"], table["js sse"]
    if not pathlib.Path(rust[0]).exists():
        del table["rust json"], table["rust protobuf"]
    chosen = os.environ.get("FLAKY_DRIVERS", "")
    return {name: command for name, command in table.items() if name.startswith(chosen)}


@dataclass
class Driver:
    """A client in a process of its own, and what its subscriptions were told."""

    name: str
    judges: dict[str, Judge]
    process: asyncio.subprocess.Process
    ready: set[str] = field(default_factory=set)

    async def read(self) -> None:
        assert self.process.stdout is not None
        while text := await self.process.stdout.readline():
            line = json.loads(text)
            if line.get("ready"):
                self.ready.add(line["subscription"])
            self.judges[line["subscription"]].told(line)

    def stands_at(self, tops: dict[str, int]) -> bool:
        return all(
            self.judges[name].at(topic) == tops[topic]
            for name, topics in SUBSCRIPTIONS.items()
            for topic in topics
        )

    async def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await within(f"the end of {self.name}", self.process.wait())


@contextlib.asynccontextmanager
async def driving(name: str, command: list[str], url: str, topics: dict[str, Topic]) -> AsyncIterator[Driver]:
    words = [url if word == "URL" else word for word in command]
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(PYTHON_CLIENT)}
    process = await asyncio.create_subprocess_exec(
        *words, *SUBSCRIPTIONS, stdin=pipe, stdout=pipe, env=environment
    )
    judges = {topic: Judge(f"{name} {topic}", topics) for topic in SUBSCRIPTIONS}
    driver = Driver(name, judges, process)
    reading = asyncio.create_task(driver.read())
    try:
        yield driver
        status = await driver.end()
        await within("the last words", reading)
        assert status == 0, f"{name} ended with {status}"
    finally:
        reading.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


class Publisher:
    """Publishes to all topics, and knows what each offset holds."""

    def __init__(self, client: fanfare.Client) -> None:
        self._client = client
        self._count = 0
        self.topics = {topic: Topic() for topic in TOPICS}

    async def round(self) -> None:
        await asyncio.gather(*(self._publish(topic) for topic in TOPICS))

    async def _publish(self, topic: str) -> None:
        self._count += 1
        data = {"nth": self._count, "text": "é" * random.randrange(40)}
        place = await self._client.publish(topic, data)
        self.topics[topic].epoch = place.epoch
        self.topics[topic].data[place.offset] = data

    async def during(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self.round()
            await asyncio.sleep(0.03)

    @property
    def tops(self) -> dict[str, int]:
        return {name: topic.top for name, topic in self.topics.items()}


class Writer:
    """Publishes through the storm, several at once: each message must be there once, and in order."""

    TOPIC = "written"
    AT_ONCE = 5

    def __init__(self, url: str) -> None:
        tuning = fanfare.Tuning(backoff=0.05, backoff_max=0.5, open_max=2, silence=1)
        self._client = fanfare.connect(url, tuning=tuning)
        self._places: list[fanfare.Published] = []
        self._over = False

    async def write(self) -> None:
        async with self._client:
            while not self._over:
                begin = len(self._places)
                batch = (self._client.publish(self.TOPIC, begin + nth) for nth in range(self.AT_ONCE))
                self._places += await asyncio.gather(*batch)
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self._over = True

    async def findings(self, client: fanfare.Client) -> list[str]:
        """What the topic holds beside what was published."""
        since: fanfare.Since | None = fanfare.Position(self._places[0].epoch, 0)
        held: list[fanfare.Message] = []
        more = True
        while more:
            page = await client.history(self.TOPIC, since=since)
            held += page.messages
            since, more = page.last, page.more
        print(f"written through the storm: {len(self._places)} messages")
        found = []
        if [message.data for message in held] != list(range(len(self._places))):
            found.append(f"written, and not as it should be: {[message.data for message in held]}"[:400])
        if [message.offset for message in held] != [place.offset for place in self._places]:
            found.append("the answers to the writer name other places than its messages have")
        return found


async def until(holds: Callable[[], bool], deadline: float = SETTLE_MAX) -> bool:
    """Waits until something holds; whether it does."""
    end = time.monotonic() + deadline
    while not holds():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


async def storm(seconds: float, seed: int, stack: contextlib.AsyncExitStack) -> list[str]:
    """The whole run; what was found."""
    broker = await stack.enter_async_context(Broker(CONFIG))
    client = await stack.enter_async_context(fanfare.connect(broker.url))
    publisher = Publisher(client)
    proxies: dict[str, Flaky] = {}
    running: list[Driver] = []
    for name, command in drivers().items():
        proxies[name] = await stack.enter_async_context(Flaky(name, seed, broker.port))
        driven = driving(name, command, proxies[name].url, publisher.topics)
        running.append(await stack.enter_async_context(driven))
    assert running, "there is no such driver"

    def everybody_has_all() -> bool:
        return all(driver.stands_at(publisher.tops) for driver in running)

    everywhere = set(SUBSCRIPTIONS)
    begun = await until(lambda: all(each.ready == everywhere for each in running))
    # Of a topic that a filter has never seen, nobody could tell what was missed.
    await publisher.round()
    if not begun or not await until(everybody_has_all):
        return ["not every subscription was accepted and got the first message"]
    proxies["writer"] = await stack.enter_async_context(Flaky("writer", seed, broker.port))
    writer = Writer(proxies["writer"].url)
    for proxy in proxies.values():
        proxy.storm()
    async with task(writer.write()) as writing:
        await publisher.during(seconds)
        for proxy in proxies.values():
            proxy.calm()
        writer.stop()
        await within("the last answer", writing)
    # A topic that was not recovered says where it stands by its next message.
    calm = time.monotonic()
    await until(everybody_has_all, 2)
    while not everybody_has_all() and time.monotonic() - calm < SETTLE_MAX:
        await publisher.round()
        await until(everybody_has_all, 2)
    print(f"calm for {time.monotonic() - calm:.1f} s until everybody had everything")
    findings = await writer.findings(client)
    for driver in running:
        findings += report(driver, proxies[driver.name])
    return findings


def report(driver: Driver, proxy: Flaky) -> list[str]:
    judges = driver.judges
    for name, topics in SUBSCRIPTIONS.items():
        judges[name].end(topics)
    told = {
        "messages": sum(judge.messages for judge in judges.values()),
        "recovered": sum(judge.recovered for judge in judges.values()),
        "not recovered": sum(judge.broken for judge in judges.values()),
        "gaps": sum(judge.gaps for judge in judges.values()),
    }
    words = [f"{proxy.connections} connections", *(f"{count} {what}" for what, count in told.items())]
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(proxy.faults.items()))
    print(f"{driver.name}: {', '.join(words)}; {faults}")
    return [finding for judge in judges.values() for finding in judge.findings]


async def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    seed = int(os.environ.get("FLAKY_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"FLAKY_SEED={seed}, {seconds:g} s, {', '.join(drivers())}", flush=True)
    async with contextlib.AsyncExitStack() as stack:
        findings = await storm(seconds, seed, stack)
    for finding in findings[:40]:
        print(finding)
    if findings:
        print(f"{len(findings)} findings; FLAKY_SEED={seed} does the same to the connections again")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
