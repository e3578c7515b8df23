"""A broker of these sources, run for a test: started on free ports, stopped at the end."""

import json
import os
import signal
import subprocess
import threading

DEADLINE = 20
PURPOSES = {
    "listening for WebSocket and HTTP": "public",
    "listening for TCP ingress": "ingress",
    "listening for metrics and health": "admin",
}


class Broker:
    """`fanfare MODE` with a host:port for each of `public`, `ingress` and `admin`."""

    def __init__(self, mode="serve", *flags, public="127.0.0.1:0", program=None):
        ports = ["--listen", public, "--ingress", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        command = [*(program or [os.environ["FANFARE"]]), mode, *ports, "--log-format", "json", *flags]
        # What is counted is seen at once.
        environment = {**os.environ, "FANFARE__ADMIN__METRICS_AGE": "0s"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines = []
        self.addresses = {}
        self.ready = threading.Event()
        threading.Thread(target=self._read_log, daemon=True).start()
        if not self.ready.wait(DEADLINE):
            self.process.kill()
            raise AssertionError("the broker did not start:\n" + "".join(self.lines))

    def _read_log(self):
        for line in self.process.stderr:
            self.lines.append(line)
            entry = json.loads(line)
            purpose = PURPOSES.get(entry.get("message"))
            if purpose:
                self.addresses[purpose] = entry["address"]
            if len(self.addresses) == len(PURPOSES):
                self.ready.set()
        self.ready.set()

    def __getattr__(self, name):
        try:
            return self.__dict__["addresses"][name]
        except KeyError:
            raise AttributeError(name) from None

    def stop(self):
        """Ends it as an operator would; it must end cleanly."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DEADLINE)
        assert status == 0, f"the broker ended with {status}:\n" + "".join(self.lines)
