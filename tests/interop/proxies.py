"""The recipes of deploy/ run for a test: the committed files, with ports and paths put in."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from broker import DEADLINE

RECIPES = pathlib.Path(__file__).resolve().parents[2] / "deploy"
BACKEND = "127.0.0.1:7600"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certificate(folder):
    """A certificate for 127.0.0.1 and its key, which nobody trusts by themselves."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    files = ["-out", str(chain), "-keyout", str(key)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return chain, key


class Proxy:
    """A proxy in front of `backend`, at `address`; with `tls` also at `secure`."""

    def __init__(self, backend, changes=(), tls=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fanfare-proxy-"))
        self.folder.chmod(0o755)
        self.address = f"127.0.0.1:{free_port()}"
        self.secure = f"127.0.0.1:{free_port()}" if tls else None
        self.certificate, self.key = certificate(self.folder) if tls else (None, None)
        self.backend = backend
        self.changes = changes
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(
            self.command(), env={**os.environ, **self.variables()}, stdout=self.log, stderr=self.log
        )
        for address in filter(None, (self.address, self.secure)):
            self._wait_for(address)

    def recipe(self, path, *ours):
        """The text of a recipe, with what is ours and what the test changes put in."""
        text = (RECIPES / path).read_text()
        for old, new in [*ours, *self.changes]:
            assert old in text, f"{path} does not say {old}"
            text = text.replace(old, new)
        return text

    def variables(self):
        return {}

    def _wait_for(self, address):
        host, port = address.split(":")
        end = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    raise AssertionError(f"the proxy did not start:\n{self.said}") from None
                time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        self.said = self.log.read()
        self.log.close()
        shutil.rmtree(self.folder)


class Nginx(Proxy):
    name = "nginx"

    def command(self):
        site = self.recipe(
            "nginx/nginx-fanfare.conf", (BACKEND, self.backend), ("listen 80;", f"listen {self.address};")
        )
        (self.folder / "site.conf").write_text(site)
        if self.secure:
            tls = (RECIPES / "nginx/tls/tls.conf").read_text()
            tls = tls.replace("/etc/nginx/tls/", f"{self.folder}/")
            tls = tls.replace("listen 443 ssl;", f"listen {self.secure} ssl;")
            (self.folder / "tls").mkdir()
            (self.folder / "tls/tls.conf").write_text(tls)
        paths = "".join(
            f"{kind}_temp_path {self.folder}/{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = (
            f"daemon off; worker_processes 1; pid {self.folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {paths} include site.conf; }}\n"
        )
        (self.folder / "nginx.conf").write_text(main)
        return ["nginx", "-e", "stderr", "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf"]


class HAProxy(Proxy):
    name = "haproxy"

    def command(self):
        text = self.recipe(
            "haproxy/haproxy.cfg",
            (BACKEND, self.backend),
            ("bind :80\n", f"bind {self.address}\n"),
            ("bind :443 ", f"bind {self.secure} "),
            # A machine may allow fewer files than a proxy needs that serves the world.
            ("maxconn 50000", "maxconn 500"),
        )
        (self.folder / "haproxy.cfg").write_text(text)
        return ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]

    def variables(self):
        if not self.secure:
            return {}
        both = self.folder / "both.pem"
        both.write_text(self.certificate.read_text() + self.key.read_text())
        return {"FANFARE_CERT": str(both)}


class Caddy(Proxy):
    name = "caddy"

    def command(self):
        # Its own admin side has one port for everybody on the machine.
        text = self.recipe("caddy/Caddyfile", (BACKEND, self.backend), ("\tservers {", "\tadmin off\n\tservers {"))
        (self.folder / "Caddyfile").write_text(text)
        return ["caddy", "run", "--config", str(self.folder / "Caddyfile"), "--adapter", "caddyfile"]

    def variables(self):
        home = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        return {**home, "FANFARE_SITE": f"http://{self.address}"}


def seconds(path, pattern):
    """The durations, in seconds, that a recipe gives by lines of this pattern."""
    found = re.findall(pattern, (RECIPES / path).read_text())
    assert found, f"{path} does not say {pattern}"
    return [int(number) for number in found]
