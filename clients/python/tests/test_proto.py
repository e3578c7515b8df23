"""The protobuf codec: its table is that of the schema, and it reads and writes as the official one."""

from __future__ import annotations

import contextlib
import importlib
import json
import pathlib
import random
import sys
import tempfile
import unittest
from typing import Any, ClassVar

from fanfare import proto
from fanfare.errors import Malformed
from fanfare.wire import Json, Protobuf

ROOT = pathlib.Path(__file__).resolve().parents[3]
SCHEMA = "fanfare/v1/fanfare.proto"
#: Kinds of our table by the types of the official one.
KINDS = {1: "double", 4: "int", 8: "bool", 9: "string", 12: "bytes", 13: "int"}
ENUM, MESSAGE = 14, 11


class Schema(unittest.TestCase):
    official: ClassVar[Any]

    @classmethod
    def setUpClass(cls) -> None:
        from grpc_tools import protoc  # noqa: PLC0415 - slow, and only here

        with tempfile.TemporaryDirectory() as folder:
            status = protoc.main(["", f"-I{ROOT / 'proto'}", f"--python_out={folder}", SCHEMA])
            assert status == 0
            sys.path.insert(0, str(pathlib.Path(folder, "fanfare", "v1")))
            try:
                cls.official = importlib.import_module("fanfare_pb2")
            finally:
                sys.path.pop(0)

    def test_the_table_is_that_of_the_schema(self) -> None:
        described = self.official.DESCRIPTOR.message_types_by_name
        self.assertEqual(sorted(described), sorted(proto.MESSAGES))
        for name, message in described.items():
            ours = [self.row(field) for field in proto.FIELDS[name]]
            self.assertEqual(sorted(ours), sorted(self.theirs(field) for field in message.fields), name)
        for name, enum in self.official.DESCRIPTOR.enum_types_by_name.items():
            words = ["" if value.number == 0 else self.word(value.name) for value in enum.values]
            self.assertEqual(list(proto.ENUMS[name]), words)

    @staticmethod
    def row(field: proto.Field) -> tuple[int, str, str, bool, bool]:
        kind = "bytes" if field.kind == "json" else field.kind
        return field.number, field.name, kind, field.optional, field.repeated

    @staticmethod
    def theirs(field: Any) -> tuple[int, str, str, bool, bool]:
        kind = KINDS.get(field.type) or (field.message_type or field.enum_type).name
        is_message = field.type == MESSAGE
        return field.number, field.json_name, kind, field.has_presence and not is_message, field.is_repeated

    @staticmethod
    def word(name: str) -> str:
        first, *rest = name.removeprefix("GAP_REASON_").lower().split("_")
        return first + "".join(word.capitalize() for word in rest)

    def test_what_one_codec_writes_the_other_reads(self) -> None:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        for kind in ("Command", "Event"):
            for _ in range(400):
                body = self.anything(kind, chance)
                with self.subTest(seed=seed, body=body):
                    ours = proto.encode(kind, body)
                    message = getattr(self.official, kind).FromString(ours)
                    theirs = message.SerializeToString(deterministic=True)
                    self.assertEqual(proto.decode(kind, theirs), proto.decode(kind, ours))
                    self.assertEqual(getattr(self.official, kind).FromString(theirs), message)
                    self.assertTrue(self.holds(proto.decode(kind, ours), body))

    def anything(self, kind: str, chance: random.Random, depth: int = 0) -> dict[str, Any]:
        """A message with one body, and with any of its other fields."""
        fields = list(proto.FIELDS[kind])
        if kind in ("Command", "Event"):
            fields = [fields[0], chance.choice(fields[1:])]
        if kind in ("Publish", "Message"):
            payload = [field for field in fields if field.kind == "json" or field.name in ("text", "binary")]
            spared = chance.sample(payload, 2)
            fields = [field for field in fields if field not in spared]
        always = depth == 0
        chosen = [field for field in fields if always or chance.random() < 0.7]
        return {field.name: self.value(field, chance, depth) for field in chosen}

    def value(self, field: proto.Field, chance: random.Random, depth: int) -> Any:
        if field.repeated:
            return [self.anything(field.kind, chance, depth + 1) for _ in range(chance.randrange(3))]
        if field.kind in proto.FIELDS:
            return self.anything(field.kind, chance, depth + 1)
        if field.kind in proto.ENUMS:
            return chance.choice(proto.ENUMS[field.kind][1:])
        values: dict[str, list[Any]] = {
            "int": [0, 1, 127, 128, 1 << 31, (1 << 32) - 1],
            "bool": [False, True],
            "double": [0.0, 0.01, -1.5, 1e300],
            "string": ["", "é", "a" * 200, "\U0001f600"],
            "bytes": [b"", b"\x00\xff", bytes(300)],
            "json": [None, 0, "", {"x": [1.5, None]}],
        }
        return chance.choice(values[field.kind])

    def holds(self, read: Any, body: Any) -> bool:
        """Whether all that was written was read."""
        if isinstance(body, dict):
            return all(self.holds(read[name], value) for name, value in body.items())
        if isinstance(body, list):
            pairs = zip(read, body, strict=True)
            return all(self.holds(one, other) for one, other in pairs)
        return bool(read == body)


class Nonsense(unittest.TestCase):
    def test_bytes_that_are_none_of_it_are_malformed(self) -> None:
        table = {
            "cut number": b"\x08\x80",
            "long number": b"\x08" + b"\xff" * 10,
            "cut text": b"\x12\x05\x0a\x04ab",
            "wrong type": b"\x10\x01",
            "group": b"\x0b\x0c",
            "cut double": b"\x99\x06\x00",
            "no UTF-8": b"\x12\x04\x0a\x02\xff\xfe",
            "no JSON": b"\x12\x03\x2a\x01{",
        }
        for what, data in table.items():
            with self.assertRaises(Malformed, msg=what):
                proto.decode("Event", data)

    def test_no_bytes_bring_anything_but_malformed(self) -> None:
        seed = random.randrange(1 << 32)
        chance = random.Random(seed)
        whole = proto.encode(
            "Event", {"historyPage": {"topic": "a", "messages": [{"topic": "a", "data": 1}]}}
        )
        for _ in range(3_000):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            with self.subTest(seed=seed, data=bytes(data)), contextlib.suppress(Malformed):
                proto.decode("Event", bytes(data))

    def test_an_enumeration_that_is_not_known_is_told_as_such(self) -> None:
        self.assertEqual(proto.decode("Gap", b"\x28\x63")["reason"], "unknown99")

    def test_numbers_that_do_not_fit_are_no_number(self) -> None:
        for value in (-1, 1 << 64):
            self.assertRaises(ValueError, proto.varint, value)


class Batches(unittest.TestCase):
    def test_both_spellings_split_what_was_joined(self) -> None:
        events: list[dict[str, Any]] = [{"id": 1, "pong": {}}, {"message": {"topic": "a", "offset": 1}}]
        lines = "".join(json.dumps(event) + "\n" for event in events)
        self.assertEqual([Json().decode(line) for line in Json().split(lines)], events)
        spelled = [proto.encode("Event", event) for event in events]
        batch = b"".join(proto.varint(len(data)) + data for data in spelled)
        self.assertEqual(list(Protobuf().split(batch)), spelled)
        self.assertRaises(Malformed, list, Protobuf().split(batch[:-1]))

    def test_the_other_kind_of_message_is_malformed(self) -> None:
        self.assertRaises(Malformed, Json().decode, b"{}")
        self.assertRaises(Malformed, Json().split, b"{}")
        self.assertRaises(Malformed, Protobuf().decode, "{}")
        for text in ("NaN", "[Infinity]", "[]", "7", '{"a":' * 100_000):
            self.assertRaises(Malformed, Json().decode, text)
