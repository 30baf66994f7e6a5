"""A release: built twice alike from a commit, with a list of everything in it, and nothing from a tree with changes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """Load the script, which stands beside the packages and is not installed."""
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*words: str | Path, cwd: Path, given: bytes = b"") -> str:
    done = subprocess.run(list(map(str, words)), cwd=cwd, input=given, capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a clone whose changelog has a section for its version."""
    clone = tmp_path / "tree"
    run("git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone, cwd=tmp_path)
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## Unreleased", f"## {VERSION} - 2026-12-01", 1))
    commit = ["commit", "--quiet", "--all", "--allow-empty", "--message", "A release"]
    run("git", "-c", "user.name=x", "-c", "user.email=x@example.org", *commit, cwd=clone)
    return clone


@pytest.mark.slow
def test_a_release_is_built_twice_alike_and_lists_all_that_is_in_it(
    release: ModuleType, tree: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    signer = shutil.which("ssh-keygen")
    if signer is not None:
        run(signer, "-q", "-t", "ed25519", "-N", "", "-C", "release", "-f", key, cwd=tmp_path)
    out = tmp_path / "out"
    names = release.release(out, root=tree, key=key if signer is not None else None)
    assert {name.rpartition(".")[2] for name in names} >= {"whl", "gz", "json", "md", "txt", "SHA256SUMS"}
    lines = (out / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert set(sums) == set(names) - {"SHA256SUMS", "SHA256SUMS.sig"}
    for name, digest in sums.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest
    assert (out / "NOTES.md").read_text().startswith(f"# sealbus {VERSION}\n")
    document = json.loads((out / "sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    components = {one["name"]: one for one in document["components"]}
    locked = [line.partition("==")[0] for line in (tree / "requirements.txt").read_text().splitlines() if "==" in line]
    assert sorted(components) == sorted(locked)
    assert all(one["hashes"] for one in components.values())
    if signer is None:
        return
    (out / "allowed_signers").write_text(f"release@sealbus {key.with_suffix('.pub').read_text()}")
    notes = (out / "NOTES.md").read_text()
    [commands] = re.findall("```sh\n(.*?)```", notes, re.DOTALL)
    verify, check, *install = commands.splitlines()
    assert "Good" in run("bash", "-c", verify, cwd=out)
    assert f"sealbus-{VERSION}-py3-none-any.whl: OK" in run("bash", "-c", check, cwd=out)
    assert [line.split()[-1] for line in install] == ["requirements.txt", f"sealbus-{VERSION}-py3-none-any.whl"]
    for command, file in ((check, f"sealbus-{VERSION}-py3-none-any.whl"), (verify, "SHA256SUMS")):
        with (out / file).open("ab") as changed:
            changed.write(b"x")
        with pytest.raises(subprocess.CalledProcessError):
            run("bash", "-c", command, cwd=out)


def test_a_tree_with_changes_is_not_released(release: ModuleType, tree: Path, tmp_path: Path) -> None:
    (tree / "new.py").write_text("")
    with pytest.raises(SystemExit, match="not committed"):
        release.release(tmp_path / "out", root=tree)


def test_a_version_without_notes_is_not_released(release: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"no section ## 9\.9\.9"):
        release.notes_of("9.9.9", "# Changelog\n\n## Unreleased\n\nx\n")
    assert release.notes_of("1.0", "## 1.0 - day\n\n- a\n\n## 0.9\n\n- b\n").startswith(
        "# sealbus 1.0\n\n- a\n\n## To verify"
    )


def test_what_differs_is_not_released(
    release: ModuleType, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = iter([{"a.whl": b"one"}, {"a.whl": b"two"}])
    monkeypatch.setattr(release, "built", lambda *_: next(builds))
    with pytest.raises(SystemExit, match=r"these differ: a\.whl"):
        release.release(tmp_path / "out", root=tree)
    assert not (tmp_path / "out").exists()
