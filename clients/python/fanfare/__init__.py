"""Subscribe and publish to a Fanfare broker, over one WebSocket that mends itself.

async with fanfare.connect("ws://127.0.0.1:7600/ws") as client:
    async for message in client.subscribe("ticker.>", snapshot=True):
        print(message.topic, message.offset, message.data)
"""

from .client import Client, Since, connect
from .errors import FanfareError
from .subscription import Subscription, WhenFull
from .tokens import Token
from .values import (
    Event,
    Fresh,
    Gap,
    HistoryPage,
    Joined,
    Left,
    Member,
    Message,
    Overflow,
    Policy,
    Position,
    PresenceState,
    Published,
    Recovery,
    SnapshotEnd,
    Stale,
    State,
    StateEvent,
    Terms,
    TopicPosition,
    Tuning,
)
from .wire import Spelling

__all__ = [
    "Client",
    "Event",
    "FanfareError",
    "Fresh",
    "Gap",
    "HistoryPage",
    "Joined",
    "Left",
    "Member",
    "Message",
    "Overflow",
    "Policy",
    "Position",
    "PresenceState",
    "Published",
    "Recovery",
    "Since",
    "SnapshotEnd",
    "Spelling",
    "Stale",
    "State",
    "StateEvent",
    "Subscription",
    "Terms",
    "Token",
    "TopicPosition",
    "Tuning",
    "WhenFull",
    "connect",
]
