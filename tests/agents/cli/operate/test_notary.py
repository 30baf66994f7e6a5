"""`sealbus notary`: a key for its owner alone, a log that is checked, a checkpoint that is held."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.settings import SMALLEST

from sealbus.agents.backup.manifest import MANIFEST, Manifest
from sealbus.agents.cli.operate.notary import command
from sealbus.agents.control.notary.keys import load_signers, make_key_file
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.ledger import Ledger
from sealbus.envelopes.errors import ConfigurationError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import creation_entry, unverified_entry
from sealbus.envelopes.log.note import NoteSigner

ORIGIN = "log.example.org/audit"


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def key(folder: Path) -> tuple[str, NoteSigner]:
    text = run("keygen", ORIGIN, folder / "a.key").stdout.strip()
    [signer] = load_signers([folder / "a.key"], ORIGIN)
    return text, signer


def write_log(folder: Path, signer: NoteSigner, size: int, salt: bytes = b"") -> None:
    store, ledger = FolderStore(folder), Ledger()
    ledger.append(creation_entry("AUDIT", created=1))
    for number in range(1, size):
        ledger.append(unverified_entry(number, time=1, payload=salt))
    store.enter()
    store.commit(0, ledger.files(), sign_checkpoint(Checkpoint(ORIGIN, size, ledger.root()), [signer]))
    store.leave()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    text, signer = key(tmp_path)
    assert text == signer.verifier.text
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="exists already"):
        run("keygen", ORIGIN, tmp_path / "a.key")


def test_a_log_is_shown_after_it_was_checked(tmp_path: Path) -> None:
    text, signer = key(tmp_path)
    write_log(tmp_path / "log", signer, 300)
    assert run("show", tmp_path / "log", "--key", text).stdout.startswith(f"{ORIGIN}\n300\n")
    assert json.loads(run("show", tmp_path / "log", "--key", text, "--json").stdout)["size"] == 300
    tile = tmp_path / "log" / "tile" / "0" / "000"
    tile.write_bytes(bytes(1) + tile.read_bytes()[1:])
    with pytest.raises(LogError, match="log_mismatch"):
        run("show", tmp_path / "log", "--key", text)
    with pytest.raises(LogError, match="untrusted_note"):
        run("show", tmp_path / "log", "--key", NoteSigner(ORIGIN, bytes(32)).verifier.text)
    (tmp_path / "empty").mkdir()
    for arguments in (["show", tmp_path / "empty"], ["hold", tmp_path / "empty", tmp_path / "held"]):
        with pytest.raises(ConfigurationError, match="holds no checkpoint"):
            run(*arguments, "--key", text)


def test_a_checkpoint_is_held_and_a_rewritten_log_is_not(tmp_path: Path) -> None:
    text, signer = key(tmp_path)
    write_log(tmp_path / "log", signer, 5)
    assert "5 entries held" in run("hold", tmp_path / "log", tmp_path / "held", "--key", text).stderr
    write_log(tmp_path / "longer", signer, 300)
    run("hold", tmp_path / "longer", tmp_path / "held", "--key", text)
    write_log(tmp_path / "forged", signer, 400, b"forged")
    with pytest.raises(LogError, match="bad_proof"):
        run("hold", tmp_path / "forged", tmp_path / "held", "--key", text)


def test_a_program_reads_what_was_made_and_held(tmp_path: Path) -> None:
    made = json.loads(run("keygen", ORIGIN, tmp_path / "a.key", "--json").stdout)
    [signer] = load_signers([tmp_path / "a.key"], ORIGIN)
    assert made == {"origin": ORIGIN, "file": str(tmp_path / "a.key"), "verifier": signer.verifier.text}
    write_log(tmp_path / "log", signer, 5)
    held = run("hold", tmp_path / "log", tmp_path / "held", "--key", made["verifier"], "--json")
    assert {key: json.loads(held.stdout)[key] for key in ("origin", "size")} == {"origin": ORIGIN, "size": 5}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either the FOLDER of the backup or --last"),
        (["DIR", "--last", "1"], "give either the FOLDER of the backup or --last"),
        (["--last", "-1"], "--last"),
        (["--last", "1", "--waiting", "perhaps"], "--waiting"),
    ],
)
def test_what_restored_wants_to_know(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "backup").mkdir()
    given = [str(tmp_path / "backup") if one == "DIR" else one for one in arguments]
    found = CliRunner().invoke(command, ["restored", *given])
    assert found.exit_code == 2
    assert said in found.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"origin": "log.example.org/other"}, "its log is log.example.org/other"),
        ({"trust_domain": "other.example"}, "it is of other.example"),
        ({"taken": 7}, "not the one that was signed"),
    ],
    ids=str,
)
def test_a_backup_that_is_not_of_this_log_restores_nothing(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    """Before anything connects."""
    key, backup = tmp_path / "log.key", tmp_path / "backup"
    signer = make_key_file(key, "log.example.org/audit")
    signed = Manifest(
        version="0", taken=1, trust_domain="example.org", origin="log.example.org/audit", streams=(), files=()
    ).signed([signer])
    backup.mkdir()
    (backup / MANIFEST).write_bytes(replace(signed, **change).encode())  # type: ignore[arg-type]
    config = tmp_path / "sealbus.toml"
    config.write_text(
        f'{SMALLEST}\n[control.notary]\norigin = "log.example.org/audit"\nkeys = ["{key}"]\nfolder = "{tmp_path / "log"}"\n'
    )
    found = CliRunner().invoke(command, ["restored", str(backup), "--config", str(config)])
    assert found.exit_code == 1
    assert said in str(found.exception)
