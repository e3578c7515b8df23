"""A network that is none: forwards bytes, and stalls, dribbles, cuts, half-closes and refuses.

What becomes of the n-th connection follows from the seed, the proxy's name and n alone; when it happens
depends on the machine.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
import socket
import struct
from dataclasses import dataclass
from typing import Any

#: How the proxy treats one direction of a connection.
GOOD, STALLED, DRIBBLING, ENDED = "good", "stalled", "dribbling", "ended"
CHUNK = 65_536


@dataclass(eq=False)
class Way:
    """One direction of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    mood: str = GOOD

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()

    def become(self, mood: str) -> None:
        """Treats what comes differently; an end stays one."""
        if self.mood != ENDED:
            self.mood = mood
        self.changed.set()

    def end(self) -> None:
        """Tells the receiver that this was all; what still comes goes nowhere."""
        self.become(ENDED)
        with contextlib.suppress(OSError):
            self.writer.write_eof()

    async def forward(self) -> None:
        """Forwards until the end of the stream, and passes that on."""
        while data := await self.reader.read(CHUNK):
            await self._send(data)
        await self._fair()
        self.end()

    async def _send(self, data: bytes) -> None:
        while data:
            await self._fair()
            if self.mood == ENDED:
                return
            size = random.randrange(1, 8) if self.mood == DRIBBLING else len(data)
            self.writer.write(data[:size])
            await self.writer.drain()
            data = data[size:]
            if self.mood == DRIBBLING:
                await asyncio.sleep(0.001)

    async def _fair(self) -> None:
        """Waits while this direction is stalled."""
        while self.mood == STALLED:
            self.changed.clear()
            await self.changed.wait()


class Flaky:
    """A proxy in front of `port`. It is calm until `storm`, and again from `calm` on."""

    def __init__(self, name: str, seed: int, port: int) -> None:
        self.name = name
        self.faults: collections.Counter[str] = collections.Counter()
        self.connections = 0
        self._seed = seed
        self._port = port
        self._storm = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ways: set[Way] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Flaky:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def storm(self) -> None:
        self._storm = True
        for writer in list(self._writers):
            reset(writer)

    def calm(self) -> None:
        """From now on all is well; whoever hangs in a stall is set free, or finds it out by itself."""
        self._storm = False
        for way in self._ways:
            way.become(GOOD)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._connection(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            reset(writer)
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        chance = random.Random(f"{self._seed}:{self.name}:{self.connections}")
        if self._storm and chance.random() < 0.15:
            self.faults["refused"] += 1
            return
        theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        ways = [Way(reader, ours), Way(theirs, writer)]
        self._ways.update(ways)
        forwards = [asyncio.create_task(way.forward()) for way in ways]
        fate = asyncio.create_task(self._fate(chance, ways))
        try:
            # When one direction has failed, or both have ended, or fate says so.
            both = asyncio.gather(*forwards)
            ends: list[asyncio.Future[Any]] = [both, fate]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in [*forwards, fate]:
                task.cancel()
            await asyncio.gather(*forwards, fate, return_exceptions=True)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await both
            self._ways.difference_update(ways)
            reset(ours)

    async def _fate(self, chance: random.Random, ways: list[Way]) -> None:
        """What happens to a connection, one thing after the other, until it is cut."""
        if chance.random() < 0.2:
            # From the beginning: the handshake falls into it.
            await self._trouble(chance, ways)
        while True:
            await asyncio.sleep(chance.uniform(0.05, 0.8))
            fault = chance.choices(["trouble", "cut", "half-closed", "dead"], [5, 4, 3, 1])[0]
            length = chance.uniform(0.1, 1.5)
            side = chance.randrange(2)
            if not self._storm:
                await asyncio.sleep(3_600)
            if fault == "trouble":
                await self._trouble(chance, ways)
                continue
            self.faults[fault] += 1
            if fault == "half-closed":
                # One side is told of the end, the other one goes on for a while.
                ways[side].end()
                await asyncio.sleep(length)
            elif fault == "dead":
                # Nothing arrives any more, and nobody says so.
                for way in ways:
                    way.become(STALLED)
                await asyncio.sleep(length + 3)
                if not self._storm:
                    continue
            return

    async def _trouble(self, chance: random.Random, ways: list[Way]) -> None:
        mood = chance.choice([STALLED, DRIBBLING])
        chosen = chance.choice([ways[:1], ways[1:], ways])
        length = chance.uniform(0.1, 1.5)
        if not self._storm:
            return
        self.faults[mood] += 1
        for way in chosen:
            way.become(mood)
        await asyncio.sleep(length)
        for way in chosen:
            way.become(GOOD)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection by a reset, whatever waits on it."""
    raw = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
