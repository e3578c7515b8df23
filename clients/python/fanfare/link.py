"""One WebSocket: how it is opened, what is sent on it in order, and why it ended.

Not here: what the messages mean, and what comes after the end.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidStatus,
    NegotiationError,
    WebSocketException,
)
from websockets.typing import Subprotocol

from . import reading
from .errors import FanfareError, Malformed
from .wire import Frame

#: What a connection that ended without a close frame is said to have ended with.
ABNORMAL = 1006
#: How long the other side has to answer a close, in seconds.
CLOSE_MAX = 1.0
#: The longest time that a refusal may ask for, in seconds.
RETRY_AFTER_MAX = 3_600.0


@dataclass(eq=False, slots=True)
class Lost(Exception):  # noqa: N818 - an outcome, not a fault
    """A connection is no more, or never was. `error`: coming back is of no use."""

    code: int
    reason: str
    error: FanfareError | None = None
    after: float = 0


@dataclass(frozen=True, slots=True)
class Door:
    """Where to connect, and how."""

    url: str
    subprotocol: str
    ssl: ssl.SSLContext | None
    headers: Mapping[str, str]
    open_max: float
    message_max: int


class Link:
    """A connection. What is sent waits in order; the bound is that on calls."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._out: deque[Frame] = deque()
        self._news = asyncio.Event()
        self._reason = ""

    def send(self, frame: Frame) -> None:
        self._out.append(frame)
        self._news.set()

    async def write(self) -> None:
        """Sends what waits, until the connection ends."""
        try:
            while True:
                while self._out:
                    await self._socket.send(self._out.popleft())
                self._news.clear()
                await self._news.wait()
        except ConnectionClosed:
            # Whoever reads is told why.
            return

    async def read(self) -> Frame:
        """The next message; raises `Lost` at the end."""
        try:
            return await self._socket.recv()
        except ConnectionClosed:
            raise self.lost() from None

    def lost(self) -> Lost:
        if self._reason:
            return Lost(ABNORMAL, self._reason)
        code, reason = self._socket.close_code or ABNORMAL, self._socket.close_reason or ""
        return Lost(code, reason, _close_error(code, reason))

    def drop(self, reason: str) -> None:
        """Leaves a connection that is good for nothing, without waiting for it to close."""
        self._reason = reason
        self._socket.transport.abort()

    async def close(self) -> None:
        await self._socket.close()


async def open_link(door: Door) -> Link:
    """Opens a connection; raises `Lost` where there is none."""
    options: dict[str, Any] = {"ssl": door.ssl} if door.ssl else {}
    try:
        socket = await connect(
            door.url,
            subprotocols=[Subprotocol(door.subprotocol)],
            additional_headers=dict(door.headers),
            open_timeout=door.open_max,
            close_timeout=CLOSE_MAX,
            max_size=door.message_max,
            # The server speaks by itself, and is given up when it does not.
            ping_interval=None,
            **options,
        )
    except InvalidStatus as error:
        raise _refused(error) from None
    except NegotiationError as error:
        raise _wrong_subprotocol(str(error)) from None
    except (OSError, WebSocketException, EOFError, TimeoutError, asyncio.TimeoutError) as error:
        raise Lost(ABNORMAL, f"cannot connect: {error or type(error).__name__}") from None
    if socket.subprotocol != door.subprotocol:
        socket.transport.abort()
        raise _wrong_subprotocol(f"the server does not speak {door.subprotocol}")
    return Link(socket)


def _wrong_subprotocol(sentence: str) -> Lost:
    return Lost(ABNORMAL, sentence, FanfareError(430, "badSubprotocol", "never", sentence))


def _refused(refusal: InvalidStatus) -> Lost:
    """What an HTTP answer says; one that is not the broker's own may be a proxy's, and pass."""
    response = refusal.response
    reason = f"the server answered {response.status_code}"
    after = response.headers.get("retry-after", "")
    wait = min(float(after), RETRY_AFTER_MAX) if after.isdecimal() else 0.0
    try:
        error = reading.refusal(json.loads(response.body or b"")["error"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Malformed):
        return Lost(ABNORMAL, reason, after=wait)
    terminal = error if error.retry in ("never", "refresh") else None
    return Lost(ABNORMAL, f"{reason}: {error.message}", terminal, wait)


def _close_error(code: int, reason: str) -> FanfareError | None:
    """What a close code that says "do not come back" means; its reason is `name: sentence`."""
    if code not in (1000, 1002, 1003, 1007, 1009) and not 4500 <= code < 5000:
        return None
    name, colon, sentence = reason.partition(": ")
    if not colon or not name.isalnum():
        name, sentence = "closed", f"the server closed the connection with code {code}"
    return FanfareError(code, name, "never", sentence)
