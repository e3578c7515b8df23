"""The two spellings of the protocol, with one meaning: dictionaries with the names of the JSON one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, TypeAlias

from . import proto
from .errors import Malformed

Frame: TypeAlias = str | bytes
Spelling: TypeAlias = Literal["json", "protobuf"]


class Wire(Protocol):
    """Spells commands, and reads events. A batch is several events in one frame."""

    @property
    def subprotocol(self) -> str: ...

    def encode(self, command: Mapping[str, Any]) -> Frame: ...

    def decode(self, frame: Frame) -> dict[str, Any]: ...

    def split(self, batch: Frame) -> Iterator[Frame]: ...


class Json:
    subprotocol = "fanfare.v1.json"

    def encode(self, command: Mapping[str, Any]) -> Frame:
        publish = command.get("publish")
        if publish and "binary" in publish:
            body = {name: value for name, value in publish.items() if name != "binary"}
            body["base64"] = base64.b64encode(publish["binary"]).decode()
            command = {**command, "publish": body}
        text = json.dumps(command, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # A lone surrogate is no text: better here than in the middle of a connection.
        text.encode()
        return text

    def decode(self, frame: Frame) -> dict[str, Any]:
        if not isinstance(frame, str):
            raise Malformed("a message is binary, where JSON was agreed on")
        event = proto.parse_json(frame)
        if not isinstance(event, dict):
            raise Malformed("an event is no object")
        return event

    def split(self, batch: Frame) -> Iterator[Frame]:
        if not isinstance(batch, str):
            raise Malformed("a message is binary, where JSON was agreed on")
        return (line for line in batch.split("\n") if line)


class Protobuf:
    subprotocol = "fanfare.v1.proto"

    def encode(self, command: Mapping[str, Any]) -> Frame:
        return proto.encode("Command", command)

    def decode(self, frame: Frame) -> dict[str, Any]:
        return proto.decode("Event", self._bytes(frame))

    def split(self, batch: Frame) -> Iterator[Frame]:
        data, at = self._bytes(batch), 0
        while at < len(data):
            event, at = proto.read_bytes(data, at)
            yield event

    @staticmethod
    def _bytes(frame: Frame) -> bytes:
        if isinstance(frame, str):
            raise Malformed("a message is text, where protobuf was agreed on")
        return frame


WIRES: dict[Spelling, Wire] = {"json": Json(), "protobuf": Protobuf()}
