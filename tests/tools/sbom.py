"""The bill of materials of the broker: python3 tests/tools/sbom.py FOLDER

Writes fanfare.cdx.json, CycloneDX 1.5, and fanfare.licences.txt, the licences' texts. What is
compiled into the broker is listed, build and test tools are not. Needs cargo, the crates that a
build has fetched, and no network. The same sources give the same files.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"
LICENCE_FILES = re.compile(r"(?i)^(licen[cs]e|copying|notice|unlicense)([-._].*)?$")


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout


def compiled_in(metadata):
    """The ids of the packages that the broker is made of, each with those it needs itself."""
    # `cargo metadata` turns on what the tests want as well; `cargo tree` does not.
    tree = cargo("tree", "--locked", "--edges=normal", f"--target={TARGET}", "--prefix=none", "--format={p}")
    names = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    packages = {
        package["id"]
        for package in metadata["packages"]
        if (package["name"], f"v{package['version']}") in names
    }
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    normal = lambda dep: any(kind["kind"] is None for kind in dep["dep_kinds"])
    return {
        identity: [dep["pkg"] for dep in nodes[identity]["deps"] if dep["pkg"] in packages and normal(dep)]
        for identity in packages
    }


def expression(licence):
    # Before there was a standard, `/` meant OR.
    return re.sub(r"\s*/\s*", " OR ", licence or "")


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
        "scope": "required",
        "licenses": [{"expression": expression(package["license"])}],
    }
    if package["description"]:
        entry["description"] = " ".join(package["description"].split())
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def bill(ours, others, needs, packages):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    depends = [
        {"ref": reference(packages[identity]), "dependsOn": sorted(reference(packages[need]) for need in wanted)}
        for identity, wanted in needs.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**component(ours, checksums), "type": "application"}},
        "components": [component(package, checksums) for package in others],
        "dependencies": sorted(depends, key=lambda entry: entry["ref"]),
    }


def notice(packages):
    """Each licence text once, under the packages that carry it word for word."""
    carriers, bare = {}, []
    for package in packages:
        folder = pathlib.Path(package["manifest_path"]).parent
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and LICENCE_FILES.match(path.name)]
        name = f"{package['name']} {package['version']} ({expression(package['license'])})"
        for path in files:
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip()
            carriers.setdefault(text, []).append(f"{name}: {path.name}")
        if not files:
            authors = ", ".join(package["authors"]) or "its authors"
            bare.append(f"{name}: its package has no text; by {authors}, {package['repository'] or 'no address'}")
    rule = "\n" + "=" * 80 + "\n"
    parts = ["Fanfare contains the work of others, under these licences.\n"]
    parts += ["\n".join(names) + "\n\n" + text + "\n" for text, names in sorted(carriers.items(), key=lambda it: it[1])]
    return rule.join([*parts, "\n".join(bare) + "\n"] if bare else parts)


def main(folder):
    metadata = json.loads(
        cargo("metadata", "--locked", "--format-version=1", f"--filter-platform={TARGET}")
    )
    needs = compiled_in(metadata)
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    others = [packages[identity] for identity in needs if identity != root]
    others.sort(key=lambda package: (package["name"], package["version"]))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill(packages[root], others, needs, packages), indent=1, ensure_ascii=False)
    (folder / "fanfare.cdx.json").write_text(text + "\n")
    (folder / "fanfare.licences.txt").write_text(notice(others))
    print(f"{len(others)} crates are in {folder / 'fanfare.cdx.json'} and {folder / 'fanfare.licences.txt'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
