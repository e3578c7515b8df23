"""What the tests stand on: a real broker, a proxy that cuts, a server whose every word a test writes.

Owns the deadline: whatever a test waits for comes within it, or the test says what did not come.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import tempfile
import unittest
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

import fanfare
from fanfare import proto
from fanfare.wire import WIRES, Spelling

T = TypeVar("T")
DEADLINE = 20.0
#: Clients in tests come back soon.
SOON = fanfare.Tuning(backoff=0.005, backoff_max=0.02)


async def within(what: str, awaited: Awaitable[T], deadline: float = DEADLINE) -> T:
    try:
        return await asyncio.wait_for(awaited, deadline)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what} did not come within {deadline} s") from None


class Inbox(Generic[T]):
    """Gives what is put in, in order, to whoever waits for it."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[T] = asyncio.Queue()

    def put(self, item: T) -> None:
        self._queue.put_nowait(item)

    async def next(self, what: str = "anything") -> T:
        return await within(what, self._queue.get())

    async def many(self, count: int) -> list[T]:
        return [await self.next(f"the event {nth + 1} of {count}") for nth in range(count)]

    async def until(self, what: str, fits: Callable[[T], bool]) -> T:
        """The next one that fits; those before it are dropped."""
        while True:
            item = await self.next(what)
            if fits(item):
                return item

    def all(self) -> list[T]:
        items = []
        while not self._queue.empty():
            items.append(self._queue.get_nowait())
        return items


class Test(unittest.IsolatedAsyncioTestCase):
    """A test whose helpers end with it."""

    async def asyncSetUp(self) -> None:
        self._exits = await self.enterStack()

    async def enterStack(self) -> contextlib.AsyncExitStack:  # noqa: N802 - as unittest names it
        stack = contextlib.AsyncExitStack()
        await stack.__aenter__()
        self.addAsyncCleanup(stack.aclose)
        return stack

    async def enter(self, context: contextlib.AbstractAsyncContextManager[T]) -> T:
        return await self._exits.enter_async_context(context)

    async def connect(self, url: str, **options: Any) -> fanfare.Client:
        return await self.enter(fanfare.connect(url, **{"tuning": SOON, **options}))

    def listen(self, subscription: fanfare.Subscription) -> Inbox[Any]:
        """Everything that a subscription is told; in the end the error, or None."""
        inbox: Inbox[Any] = Inbox()

        async def loop() -> None:
            try:
                async for event in subscription.events():
                    inbox.put(event)
                inbox.put(None)
            except fanfare.FanfareError as error:
                inbox.put(error)

        task = asyncio.get_running_loop().create_task(loop())
        self._exits.push_async_callback(_cancelled, task)
        return inbox


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def messages(events: Iterable[Any]) -> list[fanfare.Message]:
    return [event for event in events if isinstance(event, fanfare.Message)]


def is_message(event: object) -> bool:
    return isinstance(event, fanfare.Message)


def is_recovery(event: object) -> bool:
    return isinstance(event, fanfare.Recovery)


# --- A real broker


class Broker:
    """The program that FANFARE_BIN names, with a configuration; starts again at the same address."""

    mode = "serve"

    def __init__(self, config: str = "") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fanfare-python-")
        self.folder = pathlib.Path(self._folder.name)
        self.address = "127.0.0.1:0"
        (self.folder / "fanfare.toml").write_text(config)
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def program(self) -> str:
        return os.environ["FANFARE_BIN"]

    @property
    def url(self) -> str:
        return f"ws://{self.address}/ws"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    async def run(self, *words: str) -> str:
        """What a command of the program prints."""
        process = await asyncio.create_subprocess_exec(
            self.program, *words, stdout=asyncio.subprocess.PIPE, cwd=self.folder
        )
        out, _ = await within("the command's end", process.communicate())
        assert process.returncode == 0, f"{words} ended with {process.returncode}"
        return out.decode().strip()

    async def start(self) -> None:
        ports = ["--listen", self.address, "--ingress", "off", "--admin", "off", "--log-format", "json"]
        self._process = await asyncio.create_subprocess_exec(
            self.program,
            self.mode,
            *ports,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.folder,
        )
        await within("the broker", self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        stderr, told = self._process.stderr, []
        while line := await stderr.readline():
            told.append(line.decode())
            entry = json.loads(line) if line.startswith(b"{") else {}
            if entry.get("message") == "listening for WebSocket and HTTP":
                self.address = entry["address"]
                self._log = asyncio.get_running_loop().create_task(_drained(stderr))
                return
        raise AssertionError("the broker did not start:\n" + "".join(told))

    async def kill(self) -> None:
        """Ends it as a power cut would."""
        await self._stop(signal.SIGKILL)

    async def _stop(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(how)
        await within("the end of the broker", self._process.wait())
        if self._log:
            await self._log
        self._process = None

    async def __aenter__(self) -> Broker:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop(signal.SIGTERM)
        self._folder.cleanup()


async def _drained(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


# --- A proxy that cuts


class Proxy:
    """Forwards bytes to a port, until it is told to hold them, to cut, or to let nobody in."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.accepted = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws"

    def hold(self) -> None:
        """Keeps what the server says, from now on."""
        self._answers.clear()

    def cut(self) -> None:
        """Ends every connection by a reset."""
        for writer in self._writers:
            writer.transport.abort()
        self._answers.set()

    def shut(self) -> None:
        """Lets nobody in until `open`: who comes waits."""
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            await self._open.wait()
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(ours)
            await asyncio.gather(self._pump(reader, ours), self._pump(theirs, writer, self._answers))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event | None = None
    ) -> None:
        try:
            while data := await reader.read(65_536):
                if gate:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
            self._writers.discard(writer)

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.open()
        self.cut()


# --- A server whose every word a test writes

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE = 1, 2, 8


class Peer:
    """One connection as the server sees it. Its WebSocket is written by hand, so that it can be broken."""

    def __init__(
        self, spelling: Spelling, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._spelling: Spelling = spelling
        self._reader = reader
        self._writer = writer

    async def request(self) -> str:
        head = await within("a request", self._reader.readuntil(b"\r\n\r\n"))
        return head.decode()

    async def upgrade(self, subprotocol: str | None = "") -> None:
        self._writer.write(self.acceptance(await self.request(), subprotocol))

    def acceptance(self, request: str, subprotocol: str | None = "") -> bytes:
        headers = dict(line.split(": ", 1) for line in request.split("\r\n")[1:] if line)
        key = next(value for name, value in headers.items() if name.lower() == "sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
        lines.append(f"Sec-WebSocket-Accept: {accept}")
        chosen = WIRES[self._spelling].subprotocol if subprotocol == "" else subprotocol
        lines += [f"Sec-WebSocket-Protocol: {chosen}"] if chosen else []
        return "\r\n".join([*lines, "", ""]).encode()

    async def expect(self, action: str) -> dict[str, Any]:
        """The next command, which must be this one; its id is among its fields."""
        while True:
            opcode, payload = await within(f"the command {action}", self._frame())
            if opcode in (TEXT, BINARY):
                break
        is_json = self._spelling == "json"
        command = json.loads(payload) if is_json else proto.decode("Command", payload)
        name = command.pop("id")
        assert list(command) == [action], f"{action} should come, and {command} came"
        return {"id": name, **command[action]}

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        mask = await self._reader.readexactly(4)
        payload = await self._reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))

    async def hello(self, **more: Any) -> None:
        await self.upgrade()
        answer = {"connection": "0-1", "server": "fanfare/0.0.0", "pingMs": 25_000, **more}
        self.send({"id": (await self.expect("connect"))["id"], "connected": answer})

    async def accept(self, **answer: Any) -> dict[str, Any]:
        """Answers a subscription."""
        command = await self.expect("subscribe")
        self.send({"id": command["id"], "subscribed": {"topic": command["topic"], **answer}})
        return command

    def send(self, *events: dict[str, Any]) -> None:
        for event in events:
            if self._spelling == "json":
                self.raw(TEXT, json.dumps(event).encode())
            else:
                self.raw(BINARY, proto.encode("Event", event))

    def messages(self, topic: str, *offsets: int) -> None:
        for offset in offsets:
            self.send({"message": {"topic": topic, "offset": offset, "time": 1, "data": offset}})

    def raw(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
        self.write(bytes([0x80 | opcode]) + head + payload)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self, code: int, reason: str) -> None:
        self.raw(CLOSE, code.to_bytes(2, "big") + reason.encode())
        self._writer.close()

    def drop(self) -> None:
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Waits until the client has left."""

        async def read() -> None:
            with contextlib.suppress(OSError):
                while await self._reader.read(65_536):
                    pass

        await within("the end of the connection", read())


class Script:
    """A server that says what a test writes."""

    def __init__(self, spelling: Spelling, port: int = 0) -> None:
        self._spelling: Spelling = spelling
        self._port = port
        self._peers: Inbox[Peer] = Inbox()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    async def accept(self) -> Peer:
        return await self._peers.next("a connection")

    async def greet(self, **hello: Any) -> Peer:
        """The next connection, greeted."""
        peer = await self.accept()
        await peer.hello(**hello)
        return peer

    def unread(self) -> list[Peer]:
        """Connections that nobody has looked at."""
        return self._peers.all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._peers.put(Peer(self._spelling, reader, writer))

    async def __aenter__(self) -> Script:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


async def free_port() -> int:
    """A port at which nobody listens just now."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


@contextlib.asynccontextmanager
async def task(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Something that goes on beside the test."""
    running = asyncio.get_running_loop().create_task(coroutine)
    try:
        yield running
    finally:
        await _cancelled(running)
