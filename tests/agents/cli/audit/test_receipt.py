"""`sealbus audit receipt`: made from an export, verified from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.kept_log import written
from support.log_world import LogKey, make_world, note

from sealbus.agents.cli.audit.group import command
from sealbus.agents.files import PRIVATE, create_file
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.receipt import check_receipt
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.cose_receipt import CoseReceipt, sign_cose_receipt
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.receipt import Receipt

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
    for words in (
        ["verify", "a", "b", "c"],
        ["verify"],
        ["a", "b"],
        ["verify", "a", "--cose", "b"],
        ["a", "--key", "b"],
    ):
        assert run(root, *words).exit_code == 2


def key_file(folder: Path, key: LogKey) -> Path:
    seed = key.private.private_bytes_raw()
    create_file(folder / key.label, f"{NoteSigner(key.name, seed).secret_text()}\n".encode(), mode=PRIVATE)
    return folder / key.label


def test_a_cose_receipt_is_made_and_verified_beside_it(root: Path) -> None:
    export, file, cose = str(root.parent / "export"), root.parent / "receipt.txt", root.parent / "receipt.cose"
    key = key_file(root.parent, WORLD.keys[0])
    words = ["--export", export, "--output", str(file), "--cose", str(cose), "--key", str(key)]
    assert run(root, IDENT, *words).exit_code == 0
    assert run(root, "verify", str(file), str(cose)).stdout.endswith("verified\n")
    parsed = CoseReceipt.parse(cose.read_bytes())
    assert (parsed.origin, parsed.size) == (WORLD.keys[0].name, len(WORLD.frames))
    # Of another entry, cut, and of the same entry at another size.
    other = next(one for one in WORLD.messages if one is not MESSAGE).entries()["id"].hex()  # type: ignore[attr-defined]
    run(root, other, "--export", export, "--cose", str(cose), "--key", str(key))
    assert run(root, "verify", str(file), str(cose)).exit_code == 4
    cose.write_bytes(parsed.encode()[:-1])
    assert run(root, "verify", str(file), str(cose)).exit_code == 4
    with pytest.raises(ConfigurationError, match="cannot be read"):
        run(root, "verify", str(file), str(root.parent / "none"))


def test_a_key_that_did_not_sign_the_checkpoint(root: Path) -> None:
    key = key_file(root.parent, LogKey("stranger"))
    with pytest.raises(ConfigurationError, match="did not sign the checkpoint"):
        run(root, IDENT, "--export", str(root.parent / "export"), "--cose", str(root.parent / "c"), "--key", str(key))
    assert not (root.parent / "c").exists()


def test_a_cose_receipt_of_another_checkpoint(root: Path) -> None:
    file, key = root.parent / "receipt.txt", WORLD.keys[0]
    run(root, IDENT, "--export", str(root.parent / "export"), "--output", str(file))
    trusted = Root.parse(root.read_bytes())
    proven = check_receipt(file.read_bytes(), trusted)
    signer = NoteSigner(key.name, key.private.private_bytes_raw())
    alone = sign_checkpoint(Checkpoint(key.name, 1, proven.leaf), [signer])
    cose = root.parent / "receipt.cose"
    cose.write_bytes(sign_cose_receipt(Receipt(0, (), alone), proven.leaf, origin=key.name, signer=signer).encode())
    result = run(root, "verify", str(file), str(cose))
    assert (result.exit_code, "another checkpoint" in result.stdout) == (4, True)
