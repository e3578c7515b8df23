"""Reads the bodies of events into values. What lacks what it needs is `Malformed`, never guessed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeAlias

from .errors import FanfareError, Malformed
from .values import (
    Gap,
    HistoryPage,
    Member,
    Message,
    Position,
    PresenceState,
    Published,
    Terms,
    TopicPosition,
)

Body: TypeAlias = Mapping[str, Any]
#: Offsets and times stay below this, in every spelling.
_MAX = 1 << 53


def body(event: Body, name: str) -> Body:
    value = event.get(name)
    if not isinstance(value, Mapping):
        raise Malformed(f"{name} is no object")
    return value


def number(body: Body, name: str, default: int | None = None) -> int:
    value = body.get(name, default)
    # A bool is an int to Python.
    if type(value) is not int or not 0 <= value < _MAX:
        raise Malformed(f"{name} is no number that it could be: {value!r:.60}")
    return value


def text(body: Body, name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value


def flag(body: Body, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise Malformed(f"{name} is neither true nor false")
    return value


def items(body: Body, name: str) -> list[Body]:
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise Malformed(f"{name} is no list of objects")
    return value


def position(body: Body, name: str) -> Position | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise Malformed(f"{name} is no position")
    return Position(text(value, "epoch"), number(value, "offset"))


def topic_position(body: Body) -> TopicPosition:
    return TopicPosition(text(body, "topic"), text(body, "epoch"), number(body, "offset"))


def message(body: Body, epoch: str | None = None) -> Message:
    return Message(
        text(body, "topic"),
        number(body, "offset"),
        number(body, "time", 0),
        text(body, "key", ""),
        body.get("data"),
        text(body, "text") if "text" in body else None,
        _binary(body),
        flag(body, "deleted"),
        epoch,
    )


def _binary(body: Body) -> bytes | None:
    raw = body.get("binary")
    if isinstance(raw, bytes):
        return raw
    if "base64" not in body:
        return None
    try:
        return base64.b64decode(text(body, "base64"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("base64 is none") from None


def gap(body: Body) -> Gap:
    first, last = number(body, "from"), number(body, "to")
    if not 0 < first <= last:
        raise Malformed(f"a gap from {first} to {last} is none")
    count = min(number(body, "count", last - first + 1), last - first + 1)
    return Gap(text(body, "topic"), first, last, count, text(body, "reason", ""))


def terms(body: Body) -> Terms:
    rate = body.get("maxHz")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float)):
        raise Malformed("maxHz is no number")
    max_hz = None if rate is None else float(rate)
    return Terms(text(body, "policy", "all"), max_hz, text(body, "overflow", ""))


def member(body: Body) -> Member:
    return Member(text(body, "connection"), text(body, "name", ""))


def presence(body: Body) -> PresenceState:
    members = tuple(member(item) for item in items(body, "members"))
    return PresenceState(text(body, "topic"), number(body, "count"), members, flag(body, "more"))


def published(body: Body) -> Published:
    return Published(text(body, "epoch"), number(body, "offset"), text(body, "durability", ""))


def page(body: Body) -> HistoryPage:
    top = position(body, "top")
    messages = tuple(message(item, top.epoch if top else None) for item in items(body, "messages"))
    return HistoryPage(text(body, "topic"), top, messages, flag(body, "more"))


def refusal(body: Body) -> FanfareError:
    code, name = number(body, "code"), text(body, "name")
    return FanfareError(code, name, text(body, "retry", ""), text(body, "message", ""))
