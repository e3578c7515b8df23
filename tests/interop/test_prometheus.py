"""Debian's Prometheus judges the metrics page: its linter, and a real scrape."""

import json
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

from broker import DEADLINE, Broker


def get(url):
    with urllib.request.urlopen(url, timeout=DEADLINE) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.broker = Broker("demo")

    @classmethod
    def tearDownClass(cls):
        cls.broker.stop()

    def test_promtool_finds_nothing_to_mend(self):
        page = get(f"http://{self.broker.admin}/metrics")
        self.assertIn("fanfare_published_total", page)
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_the_number_of_series_does_not_depend_on_clients(self):
        def series():
            lines = get(f"http://{self.broker.admin}/metrics").splitlines()
            return {line.rsplit(" ", 1)[0] for line in lines if line and not line.startswith("#")}

        before = series()
        for number in range(50):
            body = json.dumps({"topic": f"client.chosen.{number}", "text": "x"}).encode()
            kind = {"Content-Type": "application/json"}
            url = f"http://{self.broker.public}/v1/publish"
            urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=DEADLINE).close()
        self.assertEqual(series(), before)

    def test_a_real_prometheus_scrapes_it(self):
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            config = pathlib.Path(folder) / "prometheus.yml"
            target = json.dumps([self.broker.admin])
            config.write_text(
                "global: {scrape_interval: 1s}\n"
                f"scrape_configs: [{{job_name: fanfare, static_configs: [{{targets: {target}}}]}}]\n"
            )
            command = [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=error",
            ]
            with subprocess.Popen(command) as prometheus:
                try:
                    self.wait_for(port, 'up{job="fanfare"} == 1')
                    self.wait_for(port, "increase(fanfare_published_total[10s]) > 0")
                    self.wait_for(port, "fanfare_topics >= 9")
                    self.wait_for(port, "process_resident_memory_bytes > 0")
                finally:
                    prometheus.terminate()

    def wait_for(self, port, expression):
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        end = time.monotonic() + 2 * DEADLINE
        while time.monotonic() < end:
            try:
                if json.loads(get(url))["data"]["result"]:
                    return
            except urllib.error.URLError:
                pass
            time.sleep(0.2)
        self.fail(f"{expression} never held")


if __name__ == "__main__":
    unittest.main()
