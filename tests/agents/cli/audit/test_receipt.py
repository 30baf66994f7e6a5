"""`sealbus audit receipt`: made from an export, verified from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.kept_log import written
from support.log_world import make_world, note

from sealbus.agents.cli.audit.group import command
from sealbus.envelopes.errors import ConfigurationError

WORLD = make_world(2, 20)
MESSAGE = next(one for one in WORLD.messages if one.context is not None)
IDENT = str(MESSAGE.entries()["id"].hex())  # type: ignore[attr-defined]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    written(WORLD.files(), tmp_path / "export")
    (tmp_path / "root.json").write_text(json.dumps(WORLD.root()))
    return tmp_path / "root.json"


def run(root: Path, *words: str) -> Result:
    return CliRunner().invoke(command, ["receipt", *words, "--root", str(root)], catch_exceptions=False)


def test_it_is_made_and_verified(root: Path) -> None:
    export, file = str(root.parent / "export"), root.parent / "receipt.txt"
    printed = run(root, IDENT, "--export", export)
    assert printed.exit_code == 0
    saved = run(root, IDENT, "--export", export, "--output", str(file))
    assert (saved.exit_code, saved.stdout) == (0, "")
    assert file.read_text() == printed.stdout
    verified = run(root, "verify", str(file))
    assert verified.exit_code == 0
    assert verified.stdout.endswith("verified\n")
    document = json.loads(run(root, "verify", str(file), "--json").stdout)
    assert document["message"] == IDENT
    assert document["user"].startswith("u-")
    assert document["chain"][0] == "spiffe://example.org/edge"
    assert document["size"] == len(WORLD.frames)


def test_of_a_record_by_its_leaf(root: Path) -> None:
    export = str(root.parent / "export")
    shown = [json.loads(line) for line in CliRunner().invoke(
        command, ["show", IDENT, "--root", str(root), "--export", export, "--json"]).stdout.splitlines()]  # fmt: skip
    leaf = shown[0]["record"]
    assert run(root, leaf, "--export", export).stdout == run(root, IDENT, "--export", export).stdout
    for outcome in shown[0]["outcomes"]:
        file = root.parent / "outcome.txt"
        run(root, outcome["record"], "--export", export, "--output", str(file))
        assert json.loads(run(root, "verify", str(file), "--json").stdout)["kind"] == "outcome"


def test_what_does_not_verify(root: Path) -> None:
    file = root.parent / "receipt.txt"
    run(root, IDENT, "--export", str(root.parent / "export"), "--output", str(file))
    file.write_bytes(file.read_bytes()[:-3])
    result = run(root, "verify", str(file))
    assert result.exit_code == 4
    assert result.stdout.startswith("NOT VERIFIED: ")


def test_the_root_files_checkpoints_are_asked(root: Path) -> None:
    file, size, export = root.parent / "receipt.txt", len(WORLD.frames), str(root.parent / "export")
    run(root, IDENT, "--export", export, "--output", str(file))
    for number, held, code in (
        (size, WORLD.root_at(size), 0),
        (size, bytes(32), 4),
        (size + 1, bytes(32), 4),
        (size - 2, WORLD.root_at(size - 2), 4),
    ):
        root.write_text(json.dumps(WORLD.root(note(number, held, WORLD.keys))))
        result = run(root, "verify", str(file))
        assert (result.exit_code, "NOT VERIFIED: inconsistent_log" in result.stdout) == (code, code == 4)
    # Made anew with this root file, it shows that the log goes on from there.
    run(root, IDENT, "--export", export, "--output", str(file))
    assert run(root, "verify", str(file)).exit_code == 0


def test_what_is_not_there(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="this log has no record about"):
        run(root, "00" * 16, "--export", str(root.parent / "export"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(root, "verify", str(root.parent / "none.txt"))
    assert run(root, "verify", "a", "b").exit_code == 2
