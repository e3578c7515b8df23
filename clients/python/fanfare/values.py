"""What an application gives and gets. Every value is frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from .errors import FanfareError

Policy: TypeAlias = Literal["all", "latest", "maxHz"]
Overflow: TypeAlias = Literal["catchUp", "gap", "disconnect"]
State: TypeAlias = Literal["connecting", "connected", "waiting", "closed"]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic: an offset means something only together with its epoch."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """A place in a topic, with the topic's name."""

    topic: str
    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a topic. Its payload is `data`, `text` or `binary`; a delete has none."""

    topic: str
    offset: int
    #: When the broker took it, in milliseconds since 1970.
    time: int = 0
    #: What the message is about, for instance a row or a symbol; empty if nothing.
    key: str = ""
    #: A JSON value.
    data: Any = None
    text: str | None = None
    binary: bytes | None = None
    #: What `key` names is no more.
    deleted: bool = False
    #: None until the server has told the epoch of the topic.
    epoch: str | None = None

    @property
    def position(self) -> Position | None:
        """Where to go on after this message, as far as its epoch is known."""
        return None if self.epoch is None else Position(self.epoch, self.offset)


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages from `first` to `last` that this subscription will not see.

    `reason` is what the server says (slow, trimmed, expired); `lost`: they did not arrive and nobody
    said why; or `buffer`: they arrived, but the loop over the subscription was too slow.
    """

    topic: str
    first: int
    last: int
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What became of a topic when the connection came back.

    `recovered`: exactly the missing messages follow. Otherwise messages may be missing for this reason,
    and state that was built from them must be loaded anew. A filter in `topic` stands for all of its
    topics that have no report of their own.
    """

    topic: str
    recovered: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """All that `snapshot` or `last` asked for has been given."""

    topic: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What the server grants, which may be less than was asked for.

    `overflow` is empty where each topic's rule decides, or where the policy has no use for it.
    """

    policy: str
    max_hz: float | None = None
    overflow: str = ""


@dataclass(frozen=True, slots=True)
class Stale:
    """A topic has been silent for longer than its rule expects; `since`: its last message, if known."""

    topic: str
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Fresh:
    """A topic that was stale is so no more."""

    topic: str


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is subscribed to a topic, and the name that it gave itself."""

    connection: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class PresenceState:
    """Who is subscribed to a topic: `count` of them, of which `members` are listed."""

    topic: str
    count: int
    members: tuple[Member, ...]
    #: There are others than those listed.
    more: bool = False


@dataclass(frozen=True, slots=True)
class Joined:
    """Somebody subscribed; it may be one that a `PresenceState` has told already."""

    topic: str
    member: Member


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody is subscribed no more."""

    topic: str
    member: Member


Event: TypeAlias = (
    Message | Gap | Recovery | SnapshotEnd | Terms | Stale | Fresh | PresenceState | Joined | Left
)


@dataclass(frozen=True, slots=True)
class Published:
    """Where a message has its place, and what has happened to it by now."""

    epoch: str
    offset: int
    durability: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Messages that a topic holds, oldest first."""

    topic: str
    #: The position of the latest message; None if there is no such topic.
    top: Position | None
    messages: tuple[Message, ...]
    #: There are further messages between the last one here and `top`.
    more: bool

    @property
    def last(self) -> Position | None:
        """The position of the last message here: the `since` of the next page."""
        return self.messages[-1].position if self.messages else None


@dataclass(frozen=True, slots=True)
class StateEvent:
    """Where the connection stands. `closed` is the end; `waiting` becomes `connecting` by itself."""

    state: State
    #: Why the connection ended.
    reason: str = ""
    #: The WebSocket close code, or 0.
    code: int = 0
    #: When waiting: for how many seconds.
    delay: float = 0
    #: When connected: the server and its version, and how it names this connection.
    server: str = ""
    connection: str = ""
    #: When closed by the server.
    error: FanfareError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Times in seconds, and bounds. The defaults are right for most."""

    #: The first wait before a reconnect is random up to this, and the bound doubles with each attempt,
    backoff: float = 0.5
    #: but does not grow beyond this.
    backoff_max: float = 30
    #: A connection that lasted so long starts the backoff anew.
    stable: float = 10
    #: How long connecting may take.
    open_max: float = 10
    #: How much longer than its ping interval the server may be silent.
    silence: float = 10
    #: Calls that may wait for an answer, offline or not.
    queue_max: int = 1_000
    #: A publish that was sent is repeated after a reconnect only for so long, because the server
    #: forgets idempotency keys.
    retry_max: float = 240
    #: Topics of one filter that a reconnect can resume.
    positions_max: int = 1_024
    #: Bytes of one WebSocket message from the server.
    message_max: int = 16 * 1024 * 1024
