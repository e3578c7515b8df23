"""docs/openapi.yaml against a running broker: the document is valid, every route of the sources is in it,
and every status that it documents is answered, with a body as it says."""

import http.client
import json
import pathlib
import re
import tempfile
import unittest

import yaml
from broker import DEADLINE, Broker
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from test_streams import Stream

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
METHODS = ("get", "post", "options")

# Every broker of this test begins with these.
OPEN = """
limits.resume_messages_max = 2
topics.history.messages = 2
limits.topics_max = 20
topics.rules = [{ filter = "room", presence = true }]
"""
# Who shows no token may do little, and seldom.
GUARDED = """
limits.publish_rate = 1
limits.publish_burst = 1
topics.rules = [{ filter = "room", presence = true }]
[auth]
anonymous = { subscribe = ["room", "free.*"], publish = ["free.*"] }
[[auth.tokens]]
name = "nobody"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
# Nobody may do anything without one.
LOCKED = """
[[auth.tokens]]
name = "nobody"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
KEY = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", **KEY}
EVIL = {"Origin": "https://evil.example"}
JSON = {"Content-Type": "application/json"}
OTHER_EPOCH = "A" * 22


def resolve(part):
    """A part of the document, its reference followed."""
    while "$ref" in part:
        found = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def check(schema, value):
    """The value must be as the schema says."""
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def documented():
    """Each path, method and status."""
    return {
        (path, method, int(status)) for path, method, operation in operations() for status in operation["responses"]
    }


def template(path):
    """The path of the document that this one is."""
    path = path.split("?")[0]
    if path in DOCUMENT["paths"]:
        return path
    return re.sub(r"^/v1/connections/.*", "/v1/connections/{id}", path)


class Document(unittest.TestCase):
    def test_it_is_valid_and_its_examples_are_what_they_are_examples_of(self):
        validate(DOCUMENT)
        examples = 0
        for path, _, operation in operations():
            for kind in operation.get("requestBody", {}).get("content", {}).values():
                for example in [kind.get("example"), *(e["value"] for e in kind.get("examples", {}).values())]:
                    if example is not None:
                        with self.subTest(path):
                            check(kind["schema"], example)
                        examples += 1
        self.assertGreaterEqual(examples, 7)

    def test_every_route_of_the_sources_is_in_it_and_no_other(self):
        public = (ROOT / "src/http/mod.rs").read_text()
        public = set(re.findall(r'\((?:_|&Method::\w+), "(/[^"]+)"\)', public))
        ops = set(re.findall(r'^ +"(/\w+)"(?: if|,| =>| \|)', (ROOT / "src/http/ops.rs").read_text(), re.M))
        pages = re.search(r"fn find\(path: &str\).*?\n    }\n", (ROOT / "src/http/admin.rs").read_text(), re.S)[0]
        admin = {f"/v1/{word}" for word in re.findall(r'^ +"([\w/]+)" =>', pages, re.M)}
        self.assertIn('strip_prefix("connections/")', pages)
        routes = public | ops | admin | {"/v1/connections/{id}"}
        self.assertGreater(len(routes), 15)
        self.assertEqual(set(DOCUMENT["paths"]), routes)


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.seen = set()
        cls.files = []
        cls.open, cls.guarded, cls.locked = (cls.broker(settings) for settings in (OPEN, GUARDED, LOCKED))

    @classmethod
    def tearDownClass(cls):
        for broker in (cls.open, cls.guarded, cls.locked):
            if broker.process.poll() is None:
                broker.stop()
        for file in cls.files:
            file.close()

    @classmethod
    def broker(cls, settings):
        file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        file.write(settings)
        file.flush()
        cls.files.append(file)
        return Broker("serve", "--config", file.name)

    def ask(self, broker, method, path, status, headers=None, body=None):
        """The answer must have this status, and be as the document says. Returns what it says."""
        operation = DOCUMENT["paths"][template(path)][method]
        is_admin = "admin" in operation["tags"]
        connection = http.client.HTTPConnection(broker.admin if is_admin else broker.public, timeout=DEADLINE)
        self.addCleanup(connection.close)
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
        connection.request(method.upper(), path, body=body, headers=headers or {})
        answer = connection.getresponse()
        label = f"{method} {path}"
        self.assertEqual(answer.status, status, (label, answer.headers.as_string()))
        said = resolve(operation["responses"][str(status)])
        self.seen.add((template(path), method, status))
        for name, header in said.get("headers", {}).items():
            self.assertIn(name, answer.headers, label)
            check(header["schema"], answer.headers[name])
        content = said.get("content")
        if not content:
            return None
        kind = answer.headers["content-type"].split(";")[0]
        self.assertIn(kind, content, label)
        if kind == "text/event-stream":
            return None
        text = answer.read().decode()
        value = json.loads(text) if kind == "application/json" else text
        check(content[kind]["schema"], value)
        return value

    def publish(self, topic, data, status=200, broker=None, **more):
        draft = {"topic": topic, "data": data, **more}
        return self.ask(broker or self.open, "post", "/v1/publish", status, JSON, draft)

    def test_what_is_documented_is_answered(self):
        self.publishing()
        self.looking()
        self.streaming()
        self.upgrading()
        self.foreign_pages()
        self.strangers()
        self.operating()
        self.assertEqual(self.open.process.wait(DEADLINE), 0, "it was drained")
        self.assertEqual(self.seen, documented())

    def publishing(self):
        content = DOCUMENT["paths"]["/v1/publish"]["post"]["requestBody"]["content"]["application/json"]
        for example in content["examples"].values():
            self.ask(self.open, "post", "/v1/publish", 200, JSON, example["value"])
        refused = [{"topic": ""}, {"topic": "openapi.one", "data": 1}]
        answers = self.ask(self.open, "post", "/v1/publish", 200, JSON, refused)
        self.assertEqual([list(answer) for answer in answers], [["error"], ["epoch", "offset", "durability"]])
        self.ask(self.open, "post", "/v1/publish", 400, JSON, "{")
        self.ask(self.open, "post", "/v1/publish", 413, JSON, {"topic": "a", "text": "x" * 70_000})
        self.ask(self.open, "post", "/v1/publish", 415, {"Content-Type": "text/plain"}, "{}")
        self.publish("openapi.one", 1, idempotencyKey="once")
        self.publish("openapi.one", 2, 409, idempotencyKey="once")
        for number in range(30):
            draft = {"topic": f"many.{number}", "data": 1}
            [answer] = self.ask(self.open, "post", "/v1/publish", 200, JSON, [draft])
            if "error" in answer:
                break
        self.publish("many.x", 1, 503)

    def looking(self):
        for number in range(4):
            self.publish("openapi.one", number)
        page = self.ask(self.open, "get", "/v1/history?topic=openapi.one&limit=1", 200)
        self.assertEqual([message["data"] for message in page["messages"]], [3])
        epoch = page["top"]["epoch"]
        self.ask(self.open, "get", "/v1/history?topic=none", 200)
        self.ask(self.open, "get", "/v1/history?topic=a..b", 400)
        self.ask(self.open, "get", f"/v1/history?topic=openapi.one&since={OTHER_EPOCH}:1", 409)
        self.ask(self.open, "get", f"/v1/history?topic=openapi.one&since={epoch}:0", 410)
        snapshot = self.ask(self.open, "get", "/v1/snapshot?topic=openapi.*", 200)
        self.assertEqual(len(snapshot["positions"]), 2)
        self.ask(self.open, "get", "/v1/snapshot?topc=a", 400)
        self.ask(self.open, "get", "/v1/snapshot?topic=many.*", 413)
        # It joins what it is to be listed in.
        there = Stream(self.guarded.public, "topic=room")
        self.addCleanup(there.close)
        there.until("subscribed")
        listed = self.ask(self.guarded, "get", "/v1/presence?topic=room", 200)
        self.assertEqual(listed["count"], 1)
        self.ask(self.open, "get", "/v1/presence?topic=a..b", 400)
        self.ask(self.open, "get", "/v1/presence?topic=openapi.one", 403)
        for path in ("/v1/history", "/v1/snapshot", "/v1/presence"):
            self.ask(self.open, "get", f"{path}?topic=room", 403, EVIL)
            self.too_often("GET", path, "room")
            self.post_instead(path)

    def too_often(self, method, path, topic):
        """One connection may do it once at once, and a second is long."""
        connection = http.client.HTTPConnection(self.guarded.public, timeout=DEADLINE)
        self.addCleanup(connection.close)
        body = json.dumps({"topic": topic, "data": 1}) if method == "POST" else None
        query = "" if body else f"?topic={topic}"
        for _ in range(10):
            connection.request(method, path + query, body, JSON if body else {})
            answer = connection.getresponse()
            said = json.load(answer)
            if answer.status == 429:
                break
        self.assertEqual(said["error"]["name"], "tooOften")
        check({"$ref": "#/components/schemas/Refusal"}, said)
        self.seen.add((path, method.lower(), 429))

    def post_instead(self, path):
        """Another method than that of the document."""
        methods = DOCUMENT["paths"][path]
        wrong, right = ("GET", "post") if "post" in methods else ("POST", "get")
        is_admin = "admin" in methods[right]["tags"]
        connection = http.client.HTTPConnection(
            self.open.admin if is_admin else self.open.public, timeout=DEADLINE
        )
        self.addCleanup(connection.close)
        connection.request(wrong, path.replace("{id}", "0-0.1") + "?topic=a", headers=JSON)
        answer = connection.getresponse()
        self.assertEqual(answer.status, 405, path)
        check({"$ref": "#/components/schemas/Refusal"}, json.load(answer))
        self.assertIn("allow", answer.headers, path)
        self.seen.add((path, right, 405))

    def streaming(self):
        self.ask(self.open, "get", "/sse?topic=a", 200)
        self.ask(self.open, "get", "/sse", 400)
        self.post_instead("/sse")
        for query in ("topic=openapi.one&snapshot=true", "last=1&topic=openapi.*&topic=a..b"):
            stream = Stream(self.open.public, query)
            self.addCleanup(stream.close)
            self.publish("openapi.one", query)
            while (event := stream.hear()).get("message", {}).get("data") != query:
                check({"$ref": "#/components/schemas/Event"}, event)
            check({"$ref": "#/components/schemas/Event"}, event)
            again = Stream(self.open.public, query, stream.last_id)
            self.addCleanup(again.close)
            for _ in range(2):
                check({"$ref": "#/components/schemas/Event"}, again.hear())

    def upgrading(self):
        self.ask(self.open, "get", "/ws", 101, UPGRADE)
        self.ask(self.open, "get", "/ws", 400, {**UPGRADE, "Sec-WebSocket-Key": "x"})
        self.ask(self.open, "get", "/ws", 403, {**UPGRADE, **EVIL})
        self.ask(self.open, "get", "/ws", 426)

    def foreign_pages(self):
        own = {"Origin": f"http://{self.open.public}"}
        for path, method, _ in operations():
            if method == "options":
                self.ask(self.open, "options", path, 204, own)
                self.ask(self.open, "options", path, 403, EVIL)
        self.ask(self.open, "get", "/sse?topic=a", 403, EVIL)
        self.ask(self.open, "post", "/v1/publish", 403, {**JSON, **EVIL}, "{}")

    def strangers(self):
        self.ask(self.locked, "get", "/sse?topic=a", 401)
        self.ask(self.locked, "post", "/v1/publish", 401, JSON, {"topic": "a", "data": 1})
        for path in ("history", "snapshot", "presence"):
            self.ask(self.locked, "get", f"/v1/{path}?topic=a", 401)
        self.too_often("POST", "/v1/publish", "free.a")
        self.post_instead("/v1/publish")

    def operating(self):
        [connection, *_] = self.ask(self.guarded, "get", "/v1/connections", 200)["connections"]
        self.ask(self.guarded, "get", f"/v1/connections/{connection['id']}", 200)
        self.ask(self.open, "get", "/v1/connections/0-999.1", 404)
        for path, method, operation in operations():
            if "admin" not in operation["tags"]:
                continue
            if "405" in operation["responses"]:
                self.post_instead(path)
            asked = path.replace("{id}", "0-0.1")
            if method == "get":
                if "{id}" not in path:
                    slow = "?overMs=1" if path.endswith("hottest") else ""
                    self.ask(self.open, "get", asked + slow, 200)
                if "400" in operation["responses"]:
                    self.ask(self.open, "get", asked + "?colour=red", 400)
                if "403" in operation["responses"]:
                    self.ask(self.open, "get", asked, 403, EVIL)
                continue
            self.ask(self.open, "post", path, 400, JSON, {"colour": "red"})
            self.ask(self.open, "post", path, 415, {"Content-Type": "text/plain"}, "{}")
            # Draining comes last, which ends it.
            example = operation["requestBody"]["content"]["application/json"]["example"]
            # Where nobody is asked who they are, there is nobody to revoke.
            broker = self.guarded if path.endswith("revoke") else self.open
            self.ask(broker, "post", path, 200, JSON, example)


if __name__ == "__main__":
    unittest.main()
