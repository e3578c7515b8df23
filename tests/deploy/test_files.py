"""The files of deploy/, judged by the programs that are to read them.

That the proxies' recipes do what they should is shown by tests/interop/test_proxies.py, that every
metric and every setting exists by `cargo test --test papers`.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(sys.executable).parent
EXPOSURE_MAX = 1.5


def run(*command, **options):
    """Runs a program that must succeed. Returns what it said."""
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)}\nended with {done.returncode}:\n{said}"
    return said


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def seconds(text):
    """The seconds of `20s`, `1m` or `90`."""
    number, unit = re.fullmatch(r"(\d+)(s|m|)", str(text)).groups()
    return int(number) * {"": 1, "s": 1, "m": 60}[unit]


def grace(path):
    """How long a drain may take, with ten seconds to write a snapshot."""
    shutdown = {"delay": "0s", "spread": "60s", "grace": "5s"}
    shutdown |= tomllib.loads(path.read_text())["shutdown"]
    return 10 + sum(seconds(shutdown[key]) for key in ("delay", "spread", "grace"))


class Yaml(unittest.TestCase):
    def test_every_file_is_clean(self):
        files = [path for folder in ("deploy", "tests/deploy") for path in (ROOT / folder).rglob("*.y*ml")]
        self.assertGreater(len(files), 10)
        run(TOOLS / "yamllint", "--strict", "--config-file", ROOT / "tests/deploy/yamllint.yaml", *files)


class Docker(unittest.TestCase):
    dockerfile = DEPLOY / "docker/Dockerfile"
    compose = DEPLOY / "docker/compose.yaml"

    def test_hadolint_finds_nothing(self):
        self.assertEqual(run(TOOLS / "hadolint", "--no-color", "--failure-threshold=style", self.dockerfile), "")

    def test_the_compose_file_is_of_its_schema(self):
        run(TOOLS / "check-jsonschema", "--builtin-schema=vendor.compose-spec", self.compose)

    def test_the_compose_file_mounts_what_is_there_and_publishes_to_this_machine(self):
        compose = yaml.safe_load(self.compose.read_text())
        for name, service in compose["services"].items():
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), port)
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((self.compose.parent / source).is_file(), source)
            for volume in service.get("volumes", []):
                if volume[0] not in "./":
                    self.assertIn(volume.split(":")[0], compose["volumes"])
        broker = compose["services"]["fanfare"]
        [volume] = broker["volumes"]
        snapshot = pathlib.PurePath(broker["environment"]["FANFARE__SHUTDOWN__SNAPSHOT"])
        # The image has that folder, and it is the broker's.
        self.assertEqual(volume, f"topics:{snapshot.parent}")
        self.assertIn(f"\nCOPY --from=build --chown=65532:65532 /topics {snapshot.parent}\n", self.dockerfile.read_text())
        allowed = seconds(broker["stop_grace_period"])
        self.assertGreaterEqual(allowed, grace(DEPLOY / "docker/fanfare.toml"))
        env = {**os.environ, **broker["environment"]}
        run(os.environ["FANFARE"], "check", "--config", DEPLOY / "docker/fanfare.toml", env=env)

    def test_the_image_is_nobodys_root_and_has_no_shell(self):
        text = self.dockerfile.read_text()
        final = text[text.rindex("\nFROM ") :]
        self.assertRegex(final, r"^\nFROM gcr\.io/distroless/cc-debian\d+:nonroot")
        self.assertIn("\nUSER 65532:65532\n", final)
        self.assertNotRegex(final, r"\nRUN ")
        self.assertRegex(final, r'\nHEALTHCHECK .*\\\n\s+CMD \["/usr/local/bin/fanfare", "probe"')

    def test_the_context_holds_what_the_build_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            context = pathlib.Path(folder)
            for line in (ROOT / ".dockerignore").read_text().splitlines():
                for path in ROOT.glob(line[1:]) if line.startswith("!") else []:
                    target = context / path.relative_to(ROOT)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
            # It knows every target that the manifest names, and that the lock is in step.
            platform = ["--filter-platform", "x86_64-unknown-linux-gnu"]
            run("cargo", "metadata", "--locked", "--offline", "--format-version=1", *platform, cwd=context)
            read = 0
            # What only tests read is not needed for an image.
            for source in set(context.glob("src/**/*.rs")) - set(context.glob("src/**/tests.rs")):
                for path in re.findall(r'"((?:\.\./)+[^"{}\s]+\.\w+)"', source.read_text()):
                    self.assertTrue((source.parent / path).is_file(), f"{source} reads {path}")
                    read += 1
            self.assertGreater(read, 1)
            for path in re.findall(r'(?:COPY|cp) (?!--|\. )(\S+)', self.dockerfile.read_text()):
                if not path.startswith("target/"):
                    self.assertTrue(list(context.glob(path)), f"the Dockerfile copies {path}")

    def test_the_binary_needs_what_the_base_has_and_runs_alone_as_nobody(self):
        from broker import Broker

        binary = os.environ["FANFARE"]
        libraries = re.findall(r"(/\S+) \(0x", run("ldd", binary))
        names = {pathlib.Path(library).name for library in libraries}
        # What distroless/cc has beside the C library itself is libgcc.
        known = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
        self.assertEqual({name for name in names - known if not name.startswith("ld-linux")}, set())
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            root.chmod(0o755)
            copies = {library: library for library in libraries}
            copies |= {binary: "/usr/local/bin/fanfare"}
            copies |= {DEPLOY / "docker/fanfare.toml": "/etc/fanfare/fanfare.toml"}
            for source, target in copies.items():
                target = root / target.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
            inside = ["chroot", "--userspec=65532:65532", str(root)]
            if os.geteuid() != 0:
                inside = ["unshare", "--user", "--map-root-user", "chroot", str(root)]
            program = [*inside, "/usr/local/bin/fanfare"]
            broker = Broker("serve", "--config", "/etc/fanfare/fanfare.toml", program=program)
            self.addCleanup(broker.stop)
            for path in ("healthz", "readyz"):
                run(*program, "probe", f"http://{broker.admin}/{path}")


class Systemd(unittest.TestCase):
    folder = DEPLOY / "systemd"
    service = folder / "fanfare.service"

    def test_the_units_are_sound(self):
        units = sorted(self.folder.glob("*.service")) + sorted(self.folder.glob("*.socket"))
        self.assertEqual(len(units), 4)
        said = run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units)
        self.assertEqual(said, "")

    def test_the_service_is_confined(self):
        said = run("systemd-analyze", "security", "--offline=true", "--no-pager", self.service)
        exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", said)[1])
        self.assertLessEqual(exposure, EXPOSURE_MAX, said)

    def test_the_sockets_are_those_of_the_defaults(self):
        settings = tomllib.loads((DEPLOY / "fanfare.toml").read_text())["listen"]
        listen = {name: value for name, value in settings.items() if isinstance(value, str)}
        for path in self.folder.glob("*.socket"):
            text = path.read_text()
            name = re.search(r"^FileDescriptorName=(\w+)$", text, re.M)[1]
            self.assertEqual(re.search(r"^ListenStream=(\S+)$", text, re.M)[1], listen.pop(name))
            self.assertIn("\nService=fanfare.service\n", text)
        self.assertEqual(listen, {})

    def test_it_waits_longer_than_the_broker_drains(self):
        stop = re.search(r"^TimeoutStopSec=(\d+)$", self.service.read_text(), re.M)[1]
        self.assertGreater(int(stop), grace(DEPLOY / "fanfare.toml"))

    def test_sockets_that_systemds_own_tool_bound_are_served(self):
        from proxies import free_port
        import http.client

        ports = {name: free_port() for name in ("public", "ingress", "admin")}
        listen = [word for port in ports.values() for word in ("--listen", f"127.0.0.1:{port}")]
        command = ["systemd-socket-activate", *listen, f"--fdname={':'.join(ports)}"]
        command += [os.environ["FANFARE"], "serve", "--log-format=json"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                # It says that it listens, and becomes the broker with the first who comes.
                for _ in ports:
                    self.assertIn("Listening on", process.stderr.readline())
                for port, path, expected in ((ports["public"], "/", 200), (ports["admin"], "/readyz", 200)):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                    connection.request("GET", path)
                    self.assertEqual(connection.getresponse().status, expected)
                    connection.close()
                run(os.environ["FANFARE"], "probe", f"http://127.0.0.1:{ports['admin']}")
            finally:
                process.terminate()
            self.assertEqual(process.wait(20), 0, process.stderr.read())


class Kubernetes(unittest.TestCase):
    folder = DEPLOY / "kubernetes"

    def rendered(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        path = pathlib.Path(folder) / "all.yaml"
        path.write_text(run("kubectl", "kustomize", self.folder))
        return path

    def test_the_manifests_are_of_their_schemas(self):
        path = self.rendered()
        said = run(TOOLS / "kubernetes-validate", "--strict", path)
        self.assertEqual(said.count("passed for resource"), len(documents(path)), said)
        self.assertEqual(len(documents(path)), 9)

    def test_every_manifest_is_applied_or_says_how(self):
        applied = set(documents(self.folder / "kustomization.yaml")[0]["resources"])
        files = {path.name for path in self.folder.glob("*.yaml")}
        self.assertEqual(files - applied, {"kustomization.yaml", "servicemonitor.yaml"})

    def test_the_pod_is_restricted_and_has_time_to_drain(self):
        kinds = {document["kind"]: document for document in documents(self.rendered())}
        enforce = kinds["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        self.assertEqual(enforce, "restricted")
        pod = kinds["Deployment"]["spec"]["template"]["spec"]
        [container] = pod["containers"]
        # What `restricted` asks for, and a file system to look at.
        self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        confined = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        self.assertEqual(container["securityContext"], confined)
        self.assertEqual({volume.get("configMap") is not None for volume in pod["volumes"]}, {True})
        resources = container["resources"]
        self.assertEqual(resources["requests"]["memory"], resources["limits"]["memory"])
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = pause + grace(self.folder / "fanfare.toml") + 5
        self.assertGreaterEqual(pod["terminationGracePeriodSeconds"], needed)
        self.assertEqual(kinds["Deployment"]["spec"]["replicas"], 1)

    def test_the_component_leaves_topics_to_the_next_pod(self):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "kubernetes"
        shutil.copytree(self.folder, folder)
        settings = folder / "kustomization.yaml"
        text = settings.read_text()
        self.assertIn("\n# components: [snapshot]\n", text)
        settings.write_text(text.replace("# components", "components"))
        path = folder / "all.yaml"
        path.write_text(run("kubectl", "kustomize", folder))
        said = run(TOOLS / "kubernetes-validate", "--strict", path)
        self.assertEqual(said.count("passed for resource"), 10, said)
        kinds = {document["kind"]: document for document in documents(path)}
        self.assertEqual(kinds["Deployment"]["spec"]["strategy"], {"type": "Recreate"})
        pod = kinds["Deployment"]["spec"]["template"]["spec"]
        self.assertEqual(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsUser"])
        [container] = pod["containers"]
        [variable] = container["env"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        self.assertEqual(pathlib.PurePath(variable["value"]).parent, pathlib.PurePath(mounts["snapshot"]["mountPath"]))
        claims = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if volume["name"] == "snapshot"]
        claim = kinds["PersistentVolumeClaim"]["metadata"]["name"]
        self.assertEqual(claims, [{"claimName": claim}])
        # The broker takes these settings together: it has the time to write.
        env = {**os.environ, variable["name"]: variable["value"]}
        run(os.environ["FANFARE"], "check", "--config", self.folder / "fanfare.toml", env=env)

    def test_probes_and_services_name_ports_that_are_there(self):
        all_of = documents(self.rendered())
        [deployment] = [document for document in all_of if document["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        listen = tomllib.loads((self.folder / "fanfare.toml").read_text())["listen"]
        self.assertEqual({name: f"0.0.0.0:{port}" for name, port in ports.items()}, listen)
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        self.assertEqual({probe["port"] for probe in probes.values()}, {"admin"})
        self.assertEqual(probes["readiness"]["path"], "/readyz")
        self.assertEqual(probes["liveness"]["path"], "/healthz")
        services = [document for document in all_of if document["kind"] == "Service"]
        targets = [port["targetPort"] for service in services for port in service["spec"]["ports"]]
        self.assertEqual(sorted(targets), sorted(ports))

    def test_nobody_talks_unless_a_policy_says_so(self):
        policies = [document for document in documents(self.rendered()) if document["kind"] == "NetworkPolicy"]
        deny = [policy["spec"] for policy in policies if policy["spec"]["podSelector"] == {}]
        self.assertEqual(deny, [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}])
        [opening] = [policy["spec"] for policy in policies if policy["spec"]["podSelector"] != {}]
        self.assertTrue(all(rule["from"] and rule["ports"] for rule in opening["ingress"]))
        self.assertNotIn("egress", opening)


class Prometheus(unittest.TestCase):
    folder = DEPLOY / "prometheus"
    rules = folder / "fanfare.rules.yaml"
    tests = folder / "fanfare.tests.yaml"

    def alerts(self):
        groups = documents(self.rules)[0]["groups"]
        return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}

    def test_promtool_finds_nothing_to_mend(self):
        run("promtool", "check", "config", self.folder / "prometheus.yaml")
        run("promtool", "check", "config", "--syntax-only", DEPLOY / "docker/prometheus.yaml")
        said = run("promtool", "check", "rules", self.rules)
        self.assertNotIn("duplicate", said)

    def test_every_alert_fires_when_it_should_and_only_then(self):
        run("promtool", "test", "rules", self.tests)
        for test in documents(self.tests)[0]["tests"]:
            expected = [len(case["exp_alerts"]) for case in test["alert_rule_test"]]
            self.assertEqual(expected, [0, 1], test["name"])
        tested = {case["alertname"] for test in documents(self.tests)[0]["tests"] for case in test["alert_rule_test"]}
        self.assertEqual(tested, set(self.alerts()))

    def test_every_alert_leads_to_its_page_of_the_runbook(self):
        text = (ROOT / "docs/operating.md").read_text()
        sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.M | re.S))
        self.assertEqual(list(sections), list(self.alerts()), "the runbook follows the rules")
        for name, rule in self.alerts().items():
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/operating.md#{name.lower()}")
            for word in ("means", "see", "mend"):
                self.assertIn(f"**{word}**", sections[name].lower(), name)
            self.assertIn({"page": "Page.", "ticket": "Ticket."}[rule["labels"]["severity"]], sections[name])


class Grafana(unittest.TestCase):
    path = DEPLOY / "grafana/dashboard.json"

    def setUp(self):
        self.dashboard = json.loads(self.path.read_text())
        self.panels = self.dashboard["panels"]

    def queries(self):
        targets = [target for panel in self.panels for target in panel.get("targets", [])]
        yield from (target["expr"] for target in targets)
        yield from (note["expr"] for note in self.dashboard["annotations"]["list"])

    def test_every_query_is_one_that_prometheus_understands(self):
        known = {"$__rate_interval": "5m", "$instance": ".*"}
        rules = []
        for number, query in enumerate(self.queries()):
            for name, value in known.items():
                query = query.replace(name, value)
            self.assertNotIn("$", query)
            rules.append({"record": f"panel:{number}", "expr": query})
        self.assertGreater(len(rules), 40)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
            file.flush()
            run("promtool", "check", "rules", file.name)

    def test_every_panel_says_what_it_shows_and_in_which_unit(self):
        self.assertEqual(len({panel["id"] for panel in self.panels}), len(self.panels))
        for panel in self.panels:
            if panel["type"] != "row":
                self.assertTrue(panel["title"] and panel["description"], panel["id"])
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], panel["title"])

    def test_no_panel_lies_on_another(self):
        cells = set()
        for panel in self.panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            rows, columns = range(place["h"]), range(place["w"])
            mine = {(place["x"] + column, place["y"] + row) for row in rows for column in columns}
            self.assertFalse(cells & mine, panel["title"])
            cells |= mine

    def test_its_data_source_is_the_one_that_is_provisioned(self):
        [source] = documents(DEPLOY / "docker/grafana/datasource.yaml")[0]["datasources"]
        used = set(re.findall(r'"type": "prometheus",\s+"uid": "([^"]+)"', self.path.read_text()))
        self.assertEqual(used, {source["uid"]})


class Proxies(unittest.TestCase):
    """As committed, without a certificate; with one they are run by tests/interop."""

    def test_nginx(self):
        with tempfile.TemporaryDirectory() as folder:
            main = pathlib.Path(folder) / "nginx.conf"
            site = DEPLOY / "nginx/nginx-fanfare.conf"
            main.write_text(f"pid {folder}/pid;\nevents {{}}\nhttp {{ include {site}; }}\n")
            said = run("nginx", "-t", "-e", f"{folder}/log", "-c", main)
            self.assertNotIn("[warn]", said + (pathlib.Path(folder) / "log").read_text())

    def test_haproxy(self):
        # Warnings are errors.
        run("haproxy", "-c", "-dW", "-f", DEPLOY / "haproxy/haproxy.cfg")

    def test_caddy(self):
        with tempfile.TemporaryDirectory() as folder:
            path = DEPLOY / "caddy/Caddyfile"
            env = {**os.environ, "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
            said = run("caddy", "validate", "--config", path, "--adapter", "caddyfile", env=env)
            self.assertNotIn('"level":"warn"', said)
            self.assertEqual(run("caddy", "fmt", path), path.read_text())


class Linux(unittest.TestCase):
    def test_the_kernel_knows_every_setting(self):
        keys = re.findall(r"^([\w.]+) = ", (DEPLOY / "linux/90-fanfare.conf").read_text(), re.M)
        self.assertGreater(len(keys), 5)
        for key in keys:
            self.assertTrue(pathlib.Path("/proc/sys", *key.split(".")).exists(), key)


class BillOfMaterials(unittest.TestCase):
    def test_it_is_valid_and_names_every_crate_and_its_licence(self):
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        run("python3", ROOT / "tests/tools/sbom.py", folder)
        text = (folder / "fanfare.cdx.json").read_text()
        self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_5).validate_str(text))
        bill = json.loads(text)
        listed = {(entry["name"], entry["version"]) for entry in bill["components"]}
        flags = ["--edges=normal", "--prefix=none", "--target=x86_64-unknown-linux-gnu"]
        tree = run("cargo", "tree", "--locked", "--offline", *flags, cwd=ROOT)
        built = {tuple(line.split()[:2]) for line in tree.splitlines() if re.match(r"\S+ v\d", line)}
        self.assertEqual({(name, f"v{version}") for name, version in listed}, built - {("fanfare", "v0.1.0")})
        manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
        self.assertEqual(set(manifest["dependencies"]) - {name for name, _ in listed}, set())
        licences = (folder / "fanfare.licences.txt").read_text()
        for entry in bill["components"]:
            self.assertTrue(entry["licenses"][0]["expression"], entry["name"])
            self.assertEqual(entry["hashes"][0]["alg"], "SHA-256", entry["name"])
            self.assertIn(f"\n{entry['name']} {entry['version']} (", licences)


if __name__ == "__main__":
    unittest.main()
