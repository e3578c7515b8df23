"""What docs/quickstart.md and docs/cookbook.md tell a reader to run, run: only addresses are others."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

from broker import DEADLINE, Broker

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON_CLIENT = ROOT / "clients/python"


def blocks(language):
    """The blocks of the quickstart in a language, in their order."""
    text = (ROOT / "docs/quickstart.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


class Docs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.broker = Broker("demo", "--config", str(ROOT / "examples/fanfare.toml"))
        self.addCleanup(self.broker.stop)

    def here(self, text):
        """What a reader types, with the addresses of this test's broker."""
        self.assertIn("127.0.0.1", text)
        host, port = self.broker.ingress.rsplit(":", 1)
        text = text.replace('("127.0.0.1", 7601)', f'("{host}", {port})')
        return text.replace("127.0.0.1:7600", self.broker.public)

    def start(self, command, **options):
        """A program that is ended with the test at the latest; says nothing on standard error."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
        watchdog = threading.Timer(DEADLINE, process.kill)
        watchdog.start()
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(watchdog.cancel)
        return process

    def output(self, command, **options):
        process = self.start(command, **options)
        text = process.stdout.read()
        self.assertEqual(process.wait(), 0, text)
        return text

    def environment(self, **more):
        return {**os.environ, "PYTHONPATH": str(PYTHON_CLIENT), **more}

    def history(self, topic):
        address = f"http://{self.broker.public}/v1/history?topic={topic}"
        with urllib.request.urlopen(address, timeout=DEADLINE) as answer:
            return json.load(answer)["messages"]


class Quickstart(Docs):
    def test_node(self):
        (source,) = blocks("js")
        script = self.here(source).replace("'./clients", f"'{ROOT}/clients")
        if not self.node_has_websocket():
            # As the text says for Node 20.
            imports = f"import {{ createRequire }} from 'node:module'\n"
            imports += f"const WebSocket = createRequire('{ROOT}/clients/js/')('ws')\n"
            script = imports + script.replace("/ws')", "/ws', { WebSocket })")
        path = self.folder / "tour.mjs"
        path.write_text(script)
        out = self.output(["node", str(path)])
        self.assertEqual(out, "published as 1\nroom.1 hello from Node\n")

    def node_has_websocket(self):
        return self.output(["node", "-p", "typeof WebSocket"]).strip() == "function"

    def test_python(self):
        source, _ = blocks("python")
        out = self.output([sys.executable, "-c", self.here(source)], env=self.environment())
        self.assertEqual(out, "room.1 hello from Python\n")

    def test_curl(self):
        (curl,) = [block for block in blocks("sh") if "curl" in block]
        publish, history, follow = re.findall(r"^curl.*?[^\\]$", self.here(curl), re.MULTILINE | re.DOTALL)
        answer = json.loads(self.output(["sh", "-c", publish]))
        self.assertEqual(answer["offset"], 1)
        (message,) = json.loads(self.output(["sh", "-c", history]))["messages"]
        self.assertEqual(message["data"], {"text": "hello from curl"})
        stream = self.start(["sh", "-c", f"exec {follow}"])
        self.assertTrue(any("hello from curl" in line for line in stream.stdout))

    def test_a_terminal(self):
        (lines,) = [block for block in blocks("sh") if block.startswith("fanfare publish")]
        publish, subscribe = lines.splitlines()
        path = f"{pathlib.Path(os.environ['FANFARE']).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path}
        url = f"--url ws://{self.broker.public}/ws"
        self.output(["sh", "-c", f"{publish} {url}"], env=environment)
        out = self.output(["sh", "-c", f"{subscribe} {url}"], env=environment)
        self.assertEqual(json.loads(out)["data"], {"text": "hello from a terminal"})

    def test_anything_else_over_tcp(self):
        from grpc_tools import protoc

        (command,) = [block for block in blocks("sh") if "grpc_tools" in block]
        arguments = command.replace("--python_out=.", f"--python_out={self.folder}").split()[2:]
        home = pathlib.Path.cwd()
        os.chdir(ROOT)
        self.addCleanup(os.chdir, home)
        self.assertEqual(protoc.main(arguments), 0)
        _, source = blocks("python")
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        self.assertEqual(self.output([sys.executable, "-c", self.here(source)], env=environment), "1\n")
        self.assertEqual(self.history("room.1")[0]["text"], "hello over TCP")


class Cookbook(Docs):
    def test_the_recorder_goes_on_where_its_file_ends(self):
        path = self.folder / "prices.jsonl"
        for wanted in (20, 60):
            self.record(path, wanted)
        offsets = {}
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            place = entry["topic"], entry["epoch"]
            self.assertEqual(entry["offset"], offsets.get(place, entry["offset"] - 1) + 1, place)
            offsets[place] = entry["offset"]
        self.assertEqual(len({topic for topic, _ in offsets}), len(offsets), "one epoch for each topic")

    def record(self, path, wanted):
        """Lets it run until the file has so many lines."""
        environment = self.environment(FANFARE=f"ws://{self.broker.public}/ws")
        script = str(ROOT / "examples/record.py")
        recorder = self.start([sys.executable, script, "ticker.*", str(path)], env=environment)
        lines = 0
        while recorder.poll() is None and lines < wanted:
            time.sleep(0.05)
            lines = len(path.read_text().splitlines()) if path.exists() else 0
        self.assertIsNone(recorder.poll(), "it ended by itself")
        recorder.terminate()
        recorder.wait()

    def test_a_cron_job_tells_how_it_ended(self):
        environment = {**os.environ, "FANFARE": f"http://{self.broker.public}"}
        script = str(ROOT / "examples/cron.sh")
        answer = self.output([script, "backup", "true"], env=environment)
        self.assertEqual(json.loads(answer)["offset"], 1)
        failed = subprocess.run(
            [script, "mirror", "sh", "-c", "exit 3"], env=environment, stdout=subprocess.DEVNULL, timeout=DEADLINE
        )
        self.assertEqual(failed.returncode, 3)
        told = [(message["key"], message["data"]["status"]) for message in self.history("jobs")]
        self.assertEqual(told, [("backup", 0), ("mirror", 3)])


if __name__ == "__main__":
    unittest.main()
