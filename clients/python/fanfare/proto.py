"""Protobuf by a table: the messages of `proto/fanfare/v1/fanfare.proto`, to dictionaries and back.

The dictionaries have the names of the JSON spelling, so that the rest of the client knows one spelling.
The official runtime is not used: it wants generated code of nearly its own version, which is hard on
programs that have another one already, and its dictionaries are not ours. A test holds this table to
the schema, and the codec to the official one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Malformed

#: A field is its number, its name and its type. `?`: absent is not the same as zero; `*`: repeated.
MESSAGES: dict[str, str] = {
    "Command": "1 id int, 2 connect Connect, 3 subscribe Subscribe, 4 unsubscribe Unsubscribe,"
    " 5 update Update, 6 publish Publish, 7 history History, 8 presence Presence, 9 refresh Refresh,"
    " 10 ping Ping",
    "Connect": "1 token string, 2 batch bool, 3 name string",
    "Subscribe": "1 topic string, 2 since Position, 3 last int, 4 snapshot bool, 5 overflow Overflow,"
    " 6 positions *TopicPosition, 7 policy Policy, 8 maxHz ?double, 9 presence bool",
    "Unsubscribe": "1 topic string",
    "Update": "1 topic string, 5 overflow Overflow, 7 policy Policy, 8 maxHz ?double",
    "Publish": "1 topic string, 2 data ?json, 3 text ?string, 4 binary ?bytes, 5 key string,"
    " 6 idempotencyKey string, 7 delete bool, 8 ttlMs int",
    "History": "1 topic string, 2 since Position, 3 limit int",
    "Presence": "1 topic string",
    "Refresh": "1 token string",
    "Ping": "",
    "Position": "1 epoch string, 2 offset int",
    "TopicPosition": "1 topic string, 2 epoch string, 3 offset int",
    "Event": "1 id int, 2 message Message, 3 connected Connected, 4 subscribed Subscribed,"
    " 5 unsubscribed Unsubscribed, 6 updated Updated, 7 published Published, 8 error Error, 9 gap Gap,"
    " 10 snapshotEnd SnapshotEnd, 11 pong Pong, 12 ping ServerPing, 13 reconnect Reconnect,"
    " 14 historyPage HistoryPage, 15 position TopicPosition, 16 presenceState PresenceState,"
    " 17 joined Joined, 18 left Left, 19 stale Stale, 20 fresh Fresh, 21 refreshed Refreshed",
    "Message": "1 topic string, 2 offset int, 3 time int, 4 key string, 5 data ?json, 6 text ?string,"
    " 7 binary ?bytes, 8 deleted bool",
    "Connected": "1 connection string, 2 server string, 3 pingMs int, 4 batch bool, 5 expiresMs int",
    "Subscribed": "1 topic string, 2 position Position, 3 recovered ?bool, 4 reason RecoveryFailure,"
    " 5 topics *TopicRecovery, 6 policy Policy, 7 maxHz ?double, 8 overflow Overflow, 9 stale bool",
    "TopicRecovery": "1 topic string, 2 position Position, 3 recovered bool, 4 reason RecoveryFailure",
    "Unsubscribed": "1 topic string, 2 reason string",
    "Updated": "1 topic string, 2 policy Policy, 3 maxHz ?double, 4 overflow Overflow",
    "Refreshed": "1 expiresMs int",
    "Published": "1 epoch string, 2 offset int, 3 durability Durability",
    "Error": "1 code int, 2 name string, 3 retry Retry, 4 message string",
    "Gap": "1 topic string, 2 from int, 3 to int, 4 count int, 5 reason GapReason",
    "SnapshotEnd": "1 topic string, 2 positions *TopicPosition",
    "Pong": "",
    "ServerPing": "",
    "HistoryPage": "1 topic string, 2 top Position, 3 messages *Message, 4 more bool",
    "PresenceState": "1 topic string, 2 count int, 3 members *Member, 4 more bool",
    "Member": "1 connection string, 2 name string",
    "Joined": "1 topic string, 2 member Member",
    "Left": "1 topic string, 2 member Member",
    "Stale": "1 topic string, 2 since int",
    "Fresh": "1 topic string",
    "Reconnect": "1 afterMs int",
}

#: The words of each enumeration by number; 0 is none.
ENUMS: dict[str, tuple[str, ...]] = {
    "Policy": ("", "all", "latest", "maxHz"),
    "Overflow": ("", "gap", "disconnect", "catchUp"),
    "RecoveryFailure": (
        "",
        "epochChanged",
        "trimmed",
        "expired",
        "tooMany",
        "notAllowed",
        "engineUnavailable",
    ),
    "Durability": ("", "memory"),
    "Retry": ("", "never", "later", "refresh", "resume"),
    "GapReason": ("", "slow", "trimmed", "expired"),
}

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
_SCALARS: dict[str, object] = {
    "int": 0,
    "bool": False,
    "double": 0.0,
    "string": "",
    "bytes": b"",
    "json": b"",
}
_DEPTH_MAX = 8


@dataclass(frozen=True, slots=True)
class Field:
    """A row of the table. Whatever is neither a scalar nor an enumeration is a message."""

    number: int
    name: str
    kind: str
    optional: bool
    repeated: bool

    @property
    def wire(self) -> int:
        if self.kind in ("int", "bool") or self.kind in ENUMS:
            return _VARINT
        return _DOUBLE if self.kind == "double" else _BYTES


def _fields(text: str) -> tuple[Field, ...]:
    rows = [row.split() for row in text.split(",") if row]
    return tuple(
        Field(int(number), name, kind.lstrip("?*"), kind.startswith("?"), kind.startswith("*"))
        for number, name, kind in rows
    )


FIELDS = {name: _fields(text) for name, text in MESSAGES.items()}
_BY_NUMBER = {name: {field.number: field for field in fields} for name, fields in FIELDS.items()}


def _absent(field: Field) -> object:
    """What an absent field is in a dictionary, or None where it is not in it."""
    if field.repeated:
        return []
    return None if field.optional else _SCALARS.get(field.kind)


_ABSENT = {
    name: [(field.name, _absent(field)) for field in fields if _absent(field) is not None]
    for name, fields in FIELDS.items()
}


def encode(kind: str, body: Mapping[str, Any]) -> bytes:
    """Spells a dictionary as a message of this kind; names that the table does not have are left out."""
    out = bytearray()
    for field in FIELDS[kind]:
        if field.name not in body:
            continue
        value = body[field.name]
        for item in value if field.repeated else [value]:
            raw = _raw(field, item)
            if raw in (0, 0.0, b"") and not _counts_empty(field):
                continue
            out += varint(field.number << 3 | field.wire)
            if isinstance(raw, bytes):
                out += varint(len(raw)) + raw
            else:
                out += struct.pack("<d", raw) if isinstance(raw, float) else varint(raw)
    return bytes(out)


def _counts_empty(field: Field) -> bool:
    return field.optional or field.repeated or field.kind in FIELDS


def _raw(field: Field, value: Any) -> int | float | bytes:
    if field.kind in FIELDS:
        return encode(field.kind, value)
    if field.kind in ENUMS:
        return ENUMS[field.kind].index(value)
    if field.kind == "json":
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    if field.kind == "string":
        return str(value).encode()
    if field.kind == "double":
        return float(value)
    return bytes(value) if field.kind == "bytes" else int(value)


def varint(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is not from 0 to 2^64 - 1")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    if at < len(data) and data[at] < 0x80:
        # Most are so short.
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Malformed("the bytes end within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise Malformed("a number has more than 64 bits")


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes at a place whose length stands in front of them, and the place behind them."""
    size, at = read_varint(data, at)
    if size > len(data) - at:
        raise Malformed(f"{size} bytes are announced, and {len(data) - at} are there")
    return data[at : at + size], at + size


def decode(kind: str, data: bytes, depth: int = 0) -> dict[str, Any]:
    """Reads a message of this kind; fields that the table does not have are passed over."""
    if depth > _DEPTH_MAX:
        raise Malformed("messages lie too deep in each other")
    # A list of its own for each message.
    body: dict[str, Any] = {name: [] if value == [] else value for name, value in _ABSENT[kind]}
    table = _BY_NUMBER[kind]
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        raw, at = _read(data, at, tag & 7)
        field = table.get(tag >> 3)
        if field is None:
            continue
        if field.wire != tag & 7:
            raise Malformed(f"{field.name} has the wire type {tag & 7}")
        value = _value(field, raw, depth)
        if field.repeated:
            body[field.name].append(value)
        elif value != "" or field.kind not in ENUMS:
            body[field.name] = value
    return body


def _read(data: bytes, at: int, wire: int) -> tuple[Any, int]:
    if wire == _VARINT:
        return read_varint(data, at)
    if wire == _BYTES:
        return read_bytes(data, at)
    size = {_DOUBLE: 8, _FLOAT: 4}.get(wire)
    if size is None or size > len(data) - at:
        raise Malformed(f"a field of the wire type {wire} is cut or unknown")
    return data[at : at + size], at + size


def _value(field: Field, raw: Any, depth: int) -> Any:
    kind = field.kind
    if kind in FIELDS:
        return decode(kind, raw, depth + 1)
    if kind in ENUMS:
        words = ENUMS[kind]
        # One that is not known promises nothing; that it is there may still matter.
        return words[raw] if raw < len(words) else f"unknown{raw}"
    return _READERS[kind](raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a text is not UTF-8") from None


def parse_json(text: str | bytes) -> Any:
    """A JSON value, without the words that Python takes beyond it."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"that is no JSON: {error}") from None


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "bool": bool,
    "double": lambda raw: struct.unpack("<d", raw)[0],
    "string": _text,
    "bytes": bytes,
    "json": parse_json,
}
