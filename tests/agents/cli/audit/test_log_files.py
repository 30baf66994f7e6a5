"""`sealbus audit fsck` and `sealbus audit mirror`: what they print, and with which code they end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.cosigners import Cosigner, cosigned
from support.grown_log import ORIGIN, GrownLog, root_of
from support.log_site import serving

from sealbus.agents.cli.audit.group import command
from sealbus.envelopes.errors import ConfigurationError, LogError

WITNESSES = Cosigner("acme"), Cosigner("bank")


@pytest.fixture
def log(tmp_path: Path) -> GrownLog:
    made = GrownLog.at(tmp_path / "log", [200, 300])
    (made.folder / "cosigned").write_bytes(cosigned(made.notes[300], *WITNESSES))
    (tmp_path / "root.json").write_bytes(root_of(*WITNESSES).encode())
    return made


def run(*arguments: str | Path, log: GrownLog) -> Result:
    words = [*map(str, arguments), "--root", str(log.folder.parent / "root.json")]
    return CliRunner().invoke(command, words, catch_exceptions=False)


def test_a_right_folder(log: GrownLog) -> None:
    result = run("fsck", log.folder, log=log)
    assert (result.exit_code, result.stdout) == (0, "verified\n")
    assert result.stderr == "300 entries, 7 tiles\ncosigned at 300 by acme, bank\n"
    document = json.loads(run("fsck", log.folder, "--json", log=log).stdout)
    assert document == {
        "kind": "report",
        "passed": True,
        "findings": 0,
        "size": 300,
        "root": log.ledger.root().hex(),
        "tiles": 7,
        "cosigned": 300,
        "cosigners": ["acme", "bank"],
    }


def test_each_finding_has_its_file(log: GrownLog) -> None:
    tile = log.folder / "tile" / "entries" / "000"
    tile.write_bytes(tile.read_bytes()[:-1])
    (log.folder / "cosigned").unlink()
    (log.folder / "tile" / "0" / "\x1b[31m").write_bytes(b"")
    result = run("fsck", log.folder, log=log)
    assert result.exit_code == 4
    assert result.stdout.splitlines() == [
        "tile/0/\\x1b[31m unknown_file not the name of a tile",
        "tile/entries/000 bad_tile 8703 bytes, where a tile of 256 has 8704",
        "cosigned missing_file",
        "NOT VERIFIED: 3 findings",
    ]
    rows = [json.loads(line) for line in run("fsck", log.folder, "--json", log=log).stdout.splitlines()]
    assert rows[1] == {
        "kind": "finding",
        "file": "tile/entries/000",
        "code": "bad_tile",
        "detail": "8703 bytes, where a tile of 256 has 8704",
    }
    assert (rows[-1]["passed"], rows[-1]["findings"]) == (False, 3)
    (log.folder / "checkpoint").unlink()
    assert json.loads(run("fsck", log.folder, "--json", log=log).stdout.splitlines()[-1])["size"] == 0


async def test_an_address_and_a_copy_of_it(log: GrownLog, tmp_path: Path) -> None:
    async with serving(log.folder, "entries = true") as (server, _):
        address = f"http://127.0.0.1:{server.port}"
        result = await asyncio.to_thread(run, "fsck", address, log=log)
        assert (result.exit_code, result.stdout) == (0, "verified\n")
        result = await asyncio.to_thread(run, "mirror", address, tmp_path / "copy", log=log)
        assert (result.exit_code, result.stderr) == (0, f"{ORIGIN}: 300 entries copied\n")
        log.grow(301)
        result = await asyncio.to_thread(run, "mirror", address, tmp_path / "copy", "--json", log=log)
        assert json.loads(result.stdout) == {"origin": ORIGIN, "size": 301, "root": log.ledger.root().hex()}
    result = run("fsck", tmp_path / "copy", log=log)
    assert (result.exit_code, result.stderr) == (0, "301 entries, 7 tiles\ncosigned at 300 by acme, bank\n")
    other = GrownLog.at(tmp_path / "fork", [400], branch="fork")
    async with serving(other.folder, "entries = true") as (server, _):
        with pytest.raises(LogError, match="inconsistent_log"):
            await asyncio.to_thread(run, "mirror", f"http://127.0.0.1:{server.port}", tmp_path / "copy", log=log)


async def test_entries_that_are_not_shown(log: GrownLog, tmp_path: Path) -> None:
    async with serving(log.folder) as (server, _):
        address = f"http://127.0.0.1:{server.port}"
        with pytest.raises(ConfigurationError, match="--hashes-only"):
            await asyncio.to_thread(run, "fsck", address, log=log)
        for words in (("fsck", address), ("mirror", address, tmp_path / "copy"), ("fsck", tmp_path / "copy")):
            assert (await asyncio.to_thread(run, *words, "--hashes-only", log=log)).exit_code == 0


def test_what_is_no_source(log: GrownLog, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        run("fsck", tmp_path / "nothing", log=log)
    assert run("mirror", tmp_path, tmp_path / "copy", log=log).exit_code == 2
    assert CliRunner().invoke(command, ["fsck", str(log.folder)]).exit_code == 2, "a log cannot vouch for itself"
