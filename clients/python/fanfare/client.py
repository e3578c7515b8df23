"""The client: a connection that mends itself, and what an application does with it."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import secrets
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from . import reading
from .agreement import Wish, wish
from .calls import Call, Calls
from .errors import FanfareError, Malformed, closed, disconnected, unsubscribed
from .feed import Asked, Feed, Past
from .link import ABNORMAL, Door, Link, Lost, open_link
from .names import is_filter
from .reading import Body
from .router import Entry, Router
from .subscription import Actions, Subscription, WhenFull
from .tokens import Token, Tokens, refresh_in
from .values import (
    HistoryPage,
    Overflow,
    Policy,
    Position,
    PresenceState,
    Published,
    State,
    StateEvent,
    Terms,
    TopicPosition,
    Tuning,
)
from .wire import WIRES, Frame, Spelling

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("fanfare")
T = TypeVar("T")

#: Where to go on: a position, or for a filter one of each topic.
Since: TypeAlias = Position | Published | TopicPosition | Sequence[TopicPosition]

#: The ping interval where the server names none, and the longest that is believed, in seconds.
PING, PING_MAX = 25.0, 3_600.0
#: A payload that is not there; None is a JSON value.
ABSENT: Any = object()


def connect(
    url: str,
    *,
    token: Token | None = None,
    name: str = "",
    spelling: Spelling = "json",
    ssl: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    on_state: Callable[[StateEvent], None] | None = None,
    tuning: Tuning | None = None,
) -> Client:
    """Connects to a Fanfare server, `ws://HOST/ws` or `wss://…`, and reconnects until it is closed.

    To be called where an event loop runs. `name` is what others see who look at a topic's presence;
    `ssl` says whom to trust and which certificate to show; `on_state` is called whenever the state of
    the connection changes.
    """
    try:
        parse_uri(url := re.sub("^http", "ws", url))
    except InvalidURI as error:
        raise ValueError(str(error)) from None
    tuning = tuning or Tuning()
    subprotocol = WIRES[spelling].subprotocol
    door = Door(url, subprotocol, ssl, headers or {}, tuning.open_max, tuning.message_max)
    return Client(door, spelling, tuning, name, Tokens(token, tuning.open_max), on_state)


class Client:
    """A connection to a server. Made by `connect`; `async with` closes it."""

    def __init__(
        self,
        door: Door,
        spelling: Spelling,
        tuning: Tuning,
        name: str,
        tokens: Tokens,
        on_state: Callable[[StateEvent], None] | None,
    ) -> None:
        self._door = door
        self._wire = WIRES[spelling]
        self._tuning = tuning
        self._name = name
        self._tokens = tokens
        self._on_state = on_state
        self._state: State = "connecting"
        self._changed = asyncio.Event()
        self._error: FanfareError | None = None
        self._calls = Calls(self._wire, tuning.queue_max)
        self._router = Router()
        self._link: Link | None = None
        self._batched = False
        self._attempt = 0
        self._connected_at = 0.0
        self._heard_at = 0.0
        self._silence = 0.0
        self._paused = False
        #: Those who have no room, and want nothing dropped.
        self._full: set[Subscription] = set()
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._helpers: set[asyncio.Task[None]] = set()
        self._retries: set[asyncio.TimerHandle] = set()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    # --- For applications

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    async def ready(self) -> None:
        """Waits until there is a connection; raises if there will be none."""
        while self._state != "connected":
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()

    def subscribe(
        self,
        topic: str,
        *,
        snapshot: bool = False,
        last: int = 0,
        since: Since | None = None,
        policy: Policy | None = None,
        max_hz: float | None = None,
        overflow: Overflow | None = None,
        presence: bool = False,
        buffer: int = 1_000,
        when_full: WhenFull = "drop",
    ) -> Subscription:
        """Subscribes to a topic, or to every topic that a filter matches.

        In a filter `*` stands for one segment, and `>` at the end for one or more. What goes wrong is
        raised by the loop over the subscription, and by its `ready()`. A client has one subscription of
        a topic at a time; another one is refused.
        """
        past = Past(_places(topic, since), snapshot, last)
        asked = Asked(past, wish(policy, max_hz, overflow), presence)
        subscription = Subscription(topic, buffer, when_full)
        feed = Feed(topic, asked, self._tuning.positions_max, subscription.tell)
        actions = Actions(
            leave=lambda: self._leave(feed),
            update=lambda change: self._change(feed, change),
            full=lambda full: self._fills(subscription, full),
        )
        subscription.bind(feed, actions, past.positions)
        if self._error is not None:
            subscription.end(self._error)
        elif topic in self._router.entries:
            text = f"there is a subscription to {topic} already"
            subscription.end(FanfareError(107, "alreadySubscribed", "never", text))
        else:
            self._router.add(Entry(feed, subscription))
            self._subscribe(feed)
        return subscription

    async def publish(
        self,
        topic: str,
        data: Any = ABSENT,
        *,
        text: str | None = None,
        binary: bytes | None = None,
        key: str = "",
        delete: bool = False,
        ttl_ms: int = 0,
        idempotency_key: str = "",
    ) -> Published:
        """Publishes one of `data` (a JSON value), `text` and `binary`, or the delete of a key.

        While there is no connection it waits; after a reconnect it is sent again with the same
        idempotency key if its answer is missing, so that it is there once.
        """
        payload = {"text": text, "binary": binary}
        given: dict[str, Any] = {name: value for name, value in payload.items() if value is not None}
        if data is not ABSENT:
            given["data"] = data
        if len(given) != (0 if delete else 1) or (delete and not key):
            raise TypeError("a message has exactly one of data, text and binary; a delete has only a key")
        more = {"key": key, "delete": delete, "ttlMs": ttl_ms}
        body = {"topic": topic, **given, **{name: value for name, value in more.items() if value}}
        body["idempotencyKey"] = idempotency_key or secrets.token_hex(16)
        return await self._request("publish", body, reading.published)

    async def history(self, topic: str, *, since: Since | None = None, limit: int = 0) -> HistoryPage:
        """Asks for messages that a topic still holds: those after a position, or else the latest."""
        body: dict[str, Any] = {"topic": topic, "limit": limit}
        for place in _places(topic, since):
            body["since"] = {"epoch": place.epoch, "offset": place.offset}
        return await self._request("history", body, reading.page)

    async def presence(self, topic: str) -> PresenceState:
        """Asks who is subscribed to exactly this topic."""
        return await self._request("presence", {"topic": topic}, reading.presence)

    async def ping(self) -> float:
        """Asks the server for a sign of life; how long it took, in seconds."""
        begun = time.monotonic()
        return await self._request("ping", {}, lambda _: time.monotonic() - begun)

    async def close(self) -> None:
        """Ends every subscription and the connection, for good."""
        link = self._link
        self._finish(closed())
        if link is not None:
            await link.close()
        if self._task is not asyncio.current_task():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- The connection

    async def _run(self) -> None:
        try:
            await self._live_on()
        except Exception as error:
            # An argument that the network does not take, or a fault of ours: never a silent stop.
            logger.exception("the client cannot go on")
            self._finish(FanfareError(0, "broken", "never", repr(error)), Lost(0, repr(error)))

    async def _live_on(self) -> None:
        while self._error is None:
            self._become(StateEvent("connecting"))
            lost = await self._live()
            self._lost()
            if lost.error is not None:
                self._finish(lost.error, lost)
            if self._error is not None:
                return
            if self._loop.time() - self._connected_at >= self._tuning.stable and self._connected_at:
                self._attempt = 0
            self._connected_at = 0.0
            delay = self._router.after + lost.after + self._backoff(self._attempt)
            self._attempt += 1
            self._router.after = 0
            self._become(StateEvent("waiting", lost.reason, lost.code, delay))
            await asyncio.sleep(delay)

    async def _live(self) -> Lost:
        """One connection from its beginning to its end, and why it ended."""
        writer: asyncio.Task[None] | None = None
        link: Link | None = None
        try:
            token = await self._tokens.fresh()
            link = self._link = await open_link(self._door)
            writer = self._loop.create_task(link.write())
            self._silence, self._heard_at = self._tuning.open_max, self._loop.time()
            self._watch(link)
            self._batched = False
            self._hello(link, token)
            while True:
                await self._receive(await link.read())
                # Those who loop over subscriptions have their turn, also in a flood.
                await asyncio.sleep(0)
        except Malformed as error:
            logger.warning("an event cannot be understood, so the connection is given up: %s", error)
            return Lost(ABNORMAL, f"an event cannot be understood: {error}")
        except Lost as lost:
            return lost
        finally:
            if writer is not None and link is not None:
                writer.cancel()
                link.drop("it is of no use any more")

    def _hello(self, link: Link, token: str) -> None:
        fields = {"token": token, "name": self._name, "batch": True}
        hello = {name: value for name, value in fields.items() if value}

        def refused(error: FanfareError) -> None:
            if self._link is not link:
                return
            again = error.retry == "refresh" and self._tokens.renews
            if error.retry in ("never", "refresh") and not again:
                self._finish(error, Lost(0, error.message, error))
            link.drop(error.message)

        self._ask(link, "connect", hello, lambda answer: self._connected(link, answer), refused)

    def _connected(self, link: Link, answer: Body) -> None:
        self._batched = reading.flag(answer, "batch")
        interval = reading.number(answer, "pingMs", 0) / 1_000 or PING
        self._silence = min(interval, PING_MAX) + self._tuning.silence
        self._watch(link)
        self._connected_at = self._loop.time()
        self._state = "connected"
        for entry in list(self._router.entries.values()):
            self._subscribe(entry.feed)
        for call in self._calls.unsent(link, time.time() - self._tuning.retry_max):
            self._send(link, call)
        self._refresh_later(link, answer)
        server, connection = reading.text(answer, "server", ""), reading.text(answer, "connection", "")
        # Only now, so that what a handler does comes after what has been waiting.
        self._become(StateEvent("connected", server=server, connection=connection))

    def _watch(self, link: Link) -> None:
        """Gives the connection up when the server has been silent for too long."""
        if self._timer:
            self._timer.cancel()
        if self._link is not link:
            return
        left = self._heard_at + self._silence - self._loop.time()
        if self._paused:
            # It may have spoken: nobody listens.
            left = self._silence
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch, link)
        else:
            link.drop(f"the server was silent for {self._silence:g} s")

    async def _pause(self) -> None:
        """Reads no more while somebody has no room, unless an answer is waited for."""
        while self._full and not self._calls.awaited:
            self._paused = True
            self._room.clear()
            await self._room.wait()
        self._paused = False
        self._heard_at = self._loop.time()

    def _fills(self, subscription: Subscription, full: bool) -> None:
        (self._full.add if full else self._full.discard)(subscription)
        self._room.set()

    def _lost(self) -> None:
        link, self._link = self._link, None
        self._paused = False
        if self._timer:
            self._timer.cancel()
        for timer in self._retries:
            timer.cancel()
        self._retries.clear()
        for helper in self._helpers:
            helper.cancel()
        self._router.lost()
        if self._error is None:
            self._state = "waiting"
            self._calls.lost(link)

    def _backoff(self, attempt: int) -> float:
        """Full jitter: all clients of a server that restarts must not come back at the same moment."""
        bound = min(self._tuning.backoff_max, self._tuning.backoff * 2.0 ** min(attempt, 32))
        return random.uniform(0, bound)

    def _finish(self, error: FanfareError, lost: Lost | None = None) -> None:
        """The end: by the application, or because coming back is of no use."""
        if self._error is not None:
            return
        self._error = error
        self._link = None
        self._calls.end(error)
        entries = list(self._router.entries.values())
        for entry in entries:
            self._router.remove(entry.feed)
            entry.feed.end(error)
            entry.subscription.end(error if lost else None)
        self._lost()
        if lost:
            self._become(StateEvent("closed", lost.reason or error.message, lost.code, error=error))
        else:
            self._become(StateEvent("closed", error.message))

    def _become(self, event: StateEvent) -> None:
        if self._error is not None and event.state != "closed":
            return
        self._state = event.state
        self._changed.set()
        logger.debug("%s: %s", self._door.url, event)
        if self._on_state is None:
            return
        try:
            self._on_state(event)
        except Exception:
            logger.exception("the handler of states failed")

    # --- Tokens

    def _refresh_later(self, link: Link, answer: Body) -> None:
        expires = reading.number(answer, "expiresMs", 0) / 1_000
        if expires and self._tokens.renews:
            helper = self._loop.create_task(self._refresh(link, expires))
            self._helpers.add(helper)
            helper.add_done_callback(self._helpers.discard)

    async def _refresh(self, link: Link, expires: float) -> None:
        """Shows another token in time, again and again, for as long as the connection is there."""
        while True:
            await asyncio.sleep(refresh_in(expires))
            try:
                token = await self._tokens.fresh()
                answer: asyncio.Future[Body] = self._loop.create_future()
                self._ask(link, "refresh", {"token": token}, *_settling(answer, lambda body: body))
                expires = reading.number(await answer, "expiresMs", 0) / 1_000
            except (FanfareError, Lost) as error:
                if self._link is not link:
                    return
                # What is there counts on until its end, and there may be a better one by then.
                logger.warning("the token was not refreshed: %s", error)
                expires /= 4
            if not expires:
                return

    # --- Commands

    async def _request(self, action: str, body: Mapping[str, Any], read: Callable[[Body], T]) -> T:
        """A command on behalf of the application."""
        if self._error is not None:
            raise self._error
        self._calls.check_room()
        answer: asyncio.Future[T] = self._loop.create_future()
        call = self._calls.make(action, body, *_settling(answer, read))
        self._calls.count(call)
        self._room.set()
        if self._link is not None and self._state == "connected":
            self._send(self._link, call)
        try:
            return await answer
        finally:
            self._calls.forget(call)

    def _ask(
        self,
        link: Link,
        action: str,
        body: Mapping[str, Any],
        resolve: Callable[[Body], None],
        reject: Callable[[FanfareError], None],
    ) -> None:
        """A command on behalf of the client itself, which this connection or nobody answers."""
        if self._link is link:
            self._send(link, self._calls.make(action, body, resolve, reject))
        else:
            reject(disconnected())

    def _send(self, link: Link, call: Call) -> None:
        call.link = link
        call.first_sent = call.first_sent or time.time()
        link.send(call.frame)

    # --- Subscriptions

    def _subscribe(self, feed: Feed) -> None:
        link = self._link
        if link is None or self._state != "connected":
            return

        # By the time of the answer the application may have left, and even come back.
        def answered(answer: Body) -> None:
            if self._router.holds(feed):
                self._subscribed(link, feed, answer)
            elif feed.fills:
                self._router.left.append(feed)

        def refused(error: FanfareError) -> None:
            if self._router.holds(feed) and self._link is link:
                self._refused(feed, error)

        self._ask(link, "subscribe", feed.command(), answered, refused)

    def _subscribed(self, link: Link, feed: Feed, answer: Body) -> None:
        feed.subscribed(answer)
        self._router.entries[feed.topic].subscription.opened()
        self._update(feed)
        if feed.presence:
            resolve, reject = _telling(self._router.presence)
            self._ask(link, "presence", {"topic": feed.topic}, resolve, reject)

    def _refused(self, feed: Feed, error: FanfareError) -> None:
        if error.retry == "later":
            logger.warning("the subscription to %s is tried again later: %s", feed.topic, error)
            timer = self._loop.call_later(self._backoff(feed.attempt), self._subscribe_if_held, feed)
            self._retries.add(timer)
            feed.attempt += 1
        elif feed.forget(error):
            self._subscribe(feed)
        else:
            subscription = self._router.remove(feed)
            feed.end(error)
            if subscription:
                subscription.end(error)

    def _subscribe_if_held(self, feed: Feed) -> None:
        self._retries = {timer for timer in self._retries if timer.when() > self._loop.time()}
        if self._router.holds(feed):
            self._subscribe(feed)

    async def _change(self, feed: Feed, change: Wish) -> Terms:
        outcome: asyncio.Future[Terms] = self._loop.create_future()
        feed.agreement.change(change, outcome)
        self._update(feed)
        return await outcome

    def _update(self, feed: Feed) -> None:
        """Tells the server of a change of terms, one after the other."""
        link = self._link
        change = feed.agreement.next() if feed.live and link else None
        if change is None or link is None:
            return

        def answered(answer: Body) -> None:
            if self._router.holds(feed):
                feed.granted(answer)
                self._update(feed)

        def refused(error: FanfareError) -> None:
            # The end of a connection is no refusal: the change is asked for on the next one.
            if self._router.holds(feed) and self._link is link:
                feed.agreement.refuse(error)
                self._update(feed)

        self._ask(link, "update", {"topic": feed.topic, **change.body()}, answered, refused)

    def _leave(self, feed: Feed) -> None:
        if self._router.remove(feed) is None:
            return
        if feed.filling:
            self._router.left.append(feed)
        feed.end(unsubscribed())
        if self._link is not None and self._state == "connected":
            self._ask(self._link, "unsubscribe", {"topic": feed.topic}, _ignore, _ignore)

    # --- Events

    async def _receive(self, frame: Frame) -> None:
        self._heard_at = self._loop.time()
        link = self._link
        for single in self._wire.split(frame) if self._batched else (frame,):
            # What an event brings about may end the connection: then those behind it come too late.
            if self._link is not link:
                return
            event = self._wire.decode(single)
            if event.get("id"):
                self._calls.answer(event)
            else:
                self._router.push(event)
            if self._full:
                await self._pause()


def _places(topic: str, since: Since | None) -> tuple[TopicPosition, ...]:
    """The positions in `since` that belong to a topic or a filter."""
    if since is None:
        return ()
    if isinstance(since, Position | Published):
        if is_filter(topic):
            raise TypeError("since must be a list of positions with topics, for a filter")
        return (TopicPosition(topic, since.epoch, since.offset),)
    places = (since,) if isinstance(since, TopicPosition) else tuple(since)
    return tuple(place for place in places if is_filter(topic) or place.topic == topic)


def _settling(
    answer: asyncio.Future[T], read: Callable[[Body], T]
) -> tuple[Callable[[Body], None], Callable[[FanfareError], None]]:
    """What settles a future, unless whoever waited for it has gone."""

    def resolve(body: Body) -> None:
        try:
            value = read(body)
        except Malformed as error:
            reject(FanfareError(0, "badAnswer", "never", str(error)))
            raise
        if not answer.done():
            answer.set_result(value)

    def reject(error: FanfareError) -> None:
        if not answer.done():
            answer.set_exception(error)

    return resolve, reject


def _telling(
    tell: Callable[[PresenceState], None],
) -> tuple[Callable[[Body], None], Callable[[FanfareError], None]]:
    return lambda answer: tell(reading.presence(answer)), _ignore


def _ignore(_: object) -> None:
    """Whatever becomes of it, there is nothing to be done."""
