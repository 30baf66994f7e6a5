"""Make a release from the committed tree: what pip installs, an SBOM, its notes, and a signed list of hashes.

What is built comes from `git archive` of one commit, never from the working tree, and is built twice in different folders: if
the two differ by a byte, there is no release. The list of hashes is signed with an SSH key, because everybody has what
verifies it, and the notes say how.

Usage: release.py [--key FILE] [FOLDER]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parent.parent
NAMESPACE: Final = "sealbus-release"
"""Of the SSH signature: one that was made for anything else is none of a release."""

VERIFYING: Final = """
## To verify and install

`allowed_signers` has the key that you know to be the project's, as `release@sealbus KEY`.

```sh
ssh-keygen -Y verify -f allowed_signers -I release@sealbus -n {namespace} -s SHA256SUMS.sig < SHA256SUMS
sha256sum --check SHA256SUMS
pip install --require-hashes -r requirements.txt
pip install --no-deps sealbus-{version}-py3-none-any.whl
```
"""
"""The end of the notes."""

_LOCKED: Final = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ \\]+)(?P<rest>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)", re.MULTILINE
)
_HASH: Final = re.compile("[0-9a-f]{64}")


def git(*words: str, root: Path = ROOT) -> bytes:
    """Return what git says."""
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True).stdout


def clean_commit(root: Path = ROOT) -> tuple[str, int]:
    """Return the commit and its time in seconds; exits if the tree has changes that are in none."""
    if git("status", "--porcelain", root=root):
        sys.exit("release: the tree has changes that are not committed")
    return git("rev-parse", "HEAD", root=root).decode().strip(), int(git("log", "-1", "--format=%ct", root=root))


def notes_of(version: str, changelog: str) -> str:
    """Return the section of the changelog for `version`, and how to verify the release.

    Exits without a section: a release says what is new in it.
    """
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"release: CHANGELOG.md has no section ## {version}: rename Unreleased when it is to be released")
    return f"# sealbus {version}\n\n{found[1].strip()}\n{VERIFYING.format(namespace=NAMESPACE, version=version)}"


def sbom(version: str, commit: str, time: int, locked: str) -> str:
    """Return a CycloneDX 1.6 document of what the wheel is installed with: every locked package with its hashes."""
    components = [
        {
            "type": "library",
            "name": one["name"],
            "version": one["version"],
            "purl": f"pkg:pypi/{one['name'].lower()}@{one['version']}",
            "bom-ref": f"pkg:pypi/{one['name'].lower()}@{one['version']}",
            # One package has a file for each platform: each of these hashes is one that may be installed.
            "hashes": [{"alg": "SHA-256", "content": digest} for digest in _HASH.findall(one["rest"])],
        }
        for one in _LOCKED.finditer(locked)
    ]
    own = f"pkg:pypi/sealbus@{version}"
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "library", "name": "sealbus", "version": version, "purl": own, "bom-ref": own,
                "properties": [{"name": "commit", "value": commit}],
            },
        },
        "components": components,
        "dependencies": [{"ref": own, "dependsOn": [one["bom-ref"] for one in components]}],
    }  # fmt: skip
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def built(archive: bytes, time: int) -> dict[str, bytes]:
    """Return the wheel and the sdist of an archived tree, by name."""
    with tempfile.TemporaryDirectory(prefix="sealbus-release-") as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(tree, filter="tar")
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)],
            check=True,
            capture_output=True,
            # The one time that may get into what is built.
            env={**os.environ, "SOURCE_DATE_EPOCH": str(time), "PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C"},
        )
        return {file.name: file.read_bytes() for file in out.iterdir()}


def release(folder: Path, *, root: Path = ROOT, key: Path | None = None) -> list[str]:
    """Write a release into the new `folder`, signed by `key` if there is one; return the names of its files."""
    commit, time = clean_commit(root)
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    notes = notes_of(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"))
    archive = git("archive", "--format=tar", commit, root=root)
    files, again = built(archive, time), built(archive, time)
    differ = sorted(name for name in {*files, *again} if files.get(name) != again.get(name))
    if differ:
        sys.exit(f"release: built twice, these differ: {', '.join(differ)}")
    files["NOTES.md"] = notes.encode()
    files["sbom.cdx.json"] = sbom(
        version, commit, time, (root / "requirements.txt").read_text(encoding="utf-8")
    ).encode()
    files["requirements.txt"] = (root / "requirements.txt").read_bytes()
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    if key is not None:
        subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key), str(folder / "SHA256SUMS")], check=True
        )
    return sorted(file.name for file in folder.iterdir())


def main() -> None:
    """Make a release and say what is in it."""
    parser = argparse.ArgumentParser(description="Make a release from the committed tree.")
    parser.add_argument("folder", nargs="?", default=ROOT / "dist" / "release", type=Path)
    parser.add_argument("--key", type=Path, help="the SSH key that signs the list of hashes")
    asked = parser.parse_args()
    if asked.folder.exists():
        sys.exit(f"release: {asked.folder} exists")
    for name in release(asked.folder, key=asked.key):
        print(asked.folder / name)
    if asked.key is None:
        print("not signed: give the key with KEY=FILE", file=sys.stderr)


if __name__ == "__main__":
    main()
