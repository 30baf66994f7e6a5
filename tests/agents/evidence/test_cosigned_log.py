"""A log that witnesses have cosigned: what is exported of it, and which root file its operator makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner
from independent import verify_export as independent
from support.cosigners import ML_DSA_44, Cosigner, cosigned, policy_text
from support.kept_log import StreamOfLog, kept_files, log_settings, previous_of, root_of, written
from support.log_world import NOTARY, LogKey, make_world, note

from sealbus.agents.cli.audit.group import command
from sealbus.agents.control.notary.log.folder_store import COSIGNED
from sealbus.agents.evidence.export import Written, export_log
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.trust_root import make_root, read_policy
from sealbus.agents.evidence.verify import Verification, verify_export
from sealbus.bus.ports import Transport
from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.export.trust_root import Root

WORLD = make_world(9, 262)
SIZE, EARLIER = len(WORLD.frames), 257
ONE, TWO, STRANGER = Cosigner("one"), Cosigner("two", ML_DSA_44), Cosigner("stranger")
POLICY = policy_text(WORLD.keys, [ONE, TWO], "group both all one two", "quorum both")
DOCUMENT = WORLD.root(v=2, policy=POLICY)
ROOT = Root.parse(json.dumps(DOCUMENT).encode())
KEYS = [key.vkey for key in WORLD.keys]


def kept() -> dict[str, bytes]:
    """Return the files of the notary, which keeps a partial tile of each checkpoint until it is full."""
    shorter = replace(WORLD, frames=WORLD.frames[:EARLIER])
    return {**kept_files(shorter), **kept_files(WORLD)}


def checkpoint(size: int, *cosigners: Cosigner) -> bytes:
    return cosigned(note(size, WORLD.root_at(size), WORLD.keys), *cosigners)


async def exported(folder: Path, files: dict[str, bytes], root: Root = ROOT) -> Written:
    return await export_log(
        folder,
        get=(kept() | files).get,
        transport=cast("Transport", StreamOfLog(WORLD, frozenset())),
        root=root,
        previous=previous_of(WORLD),
    )


def verified(folder: Path, root: Root = ROOT) -> Verification:
    report = verify_export(FolderFiles(folder), root, processes=1)
    theirs = independent.verify(independent.read_folder(folder), independent.read_root(root.encode()))
    assert report.passed == (theirs.findings == [])
    return report


async def test_it_is_exported_to_the_last_checkpoint_that_has_a_quorum(tmp_path: Path) -> None:
    files = {"checkpoint": checkpoint(SIZE, ONE), COSIGNED: checkpoint(EARLIER, ONE, TWO)}
    done = await exported(tmp_path, files)
    assert (done.entries, done.following, done.whole) == (EARLIER, SIZE - EARLIER, True)
    report = verified(tmp_path)
    assert (report.passed, report.following, report.cosigners) == (True, SIZE - EARLIER, ("one", "two"))
    assert report.checkpoint is not None
    assert report.checkpoint.size == EARLIER


async def test_nothing_follows_where_the_last_checkpoint_has_a_quorum(tmp_path: Path) -> None:
    files = {"checkpoint": checkpoint(SIZE, ONE, TWO), COSIGNED: checkpoint(EARLIER, ONE, TWO)}
    done = await exported(tmp_path, files)
    assert (done.entries, done.following) == (SIZE, 0)
    assert not (tmp_path / "latest").exists()
    assert verified(tmp_path).passed


async def test_the_notary_went_on_while_the_files_were_read(tmp_path: Path) -> None:
    """Of the two checkpoints, the one with a quorum is read later, and may be the newer one."""
    done = await exported(tmp_path, {"checkpoint": checkpoint(EARLIER), COSIGNED: checkpoint(SIZE, ONE, TWO)})
    assert (done.entries, done.following) == (SIZE, 0)
    assert verified(tmp_path).passed


@pytest.mark.parametrize("files", [{}, {COSIGNED: checkpoint(EARLIER, TWO)}])
async def test_no_checkpoint_has_a_quorum(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(LogError) as raised:
        await exported(tmp_path / "export", {"checkpoint": checkpoint(SIZE, ONE), **files})
    assert raised.value.code is Code.NO_QUORUM
    assert not (tmp_path / "export").exists()


async def test_cosignatures_by_others_are_left_out(tmp_path: Path) -> None:
    """A witness that came after a root file was made, or one that it knows no longer, is no reason to refuse the log."""
    await exported(tmp_path, {"checkpoint": checkpoint(SIZE, STRANGER, ONE, TWO)})
    assert STRANGER.name.encode() not in (tmp_path / "checkpoint").read_bytes()
    assert verified(tmp_path).cosigners == ("one", "two")


async def test_a_root_file_without_a_policy(tmp_path: Path) -> None:
    done = await exported(tmp_path, {"checkpoint": checkpoint(SIZE, ONE, TWO)}, root_of(WORLD))
    assert (done.entries, done.following) == (SIZE, 0)
    assert (tmp_path / "checkpoint").read_bytes() == checkpoint(SIZE)
    assert verified(tmp_path, root_of(WORLD)).passed


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    root = folder.parent / "root.json"
    root.write_text(json.dumps(DOCUMENT))
    result = CliRunner().invoke(
        command, ["verify", str(folder), "--root", str(root), "--processes", "1", *arguments], catch_exceptions=False
    )
    return result.exit_code, result.stdout, result.stderr


async def test_what_follows_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    await exported(folder, {"checkpoint": checkpoint(SIZE), COSIGNED: checkpoint(EARLIER, TWO, ONE)})
    code, out, err = run(folder)
    assert (code, out) == (0, "verified\n")
    assert "cosigned by two, one\n" in err
    assert f"{SIZE - EARLIER} entries follow that the quorum had not cosigned" in err
    code, out, _ = run(folder, "--json")
    report = json.loads(out)
    assert (report["following"], report["cosigners"]) == (SIZE - EARLIER, ["two", "one"])


async def test_without_a_quorum_it_is_not_verified(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    await exported(folder, {"checkpoint": checkpoint(SIZE, ONE, TWO)})
    (folder / "checkpoint").write_bytes(checkpoint(SIZE, TWO))
    code, out, _ = run(folder)
    assert (code, out.splitlines()[-1]) == (4, "NOT VERIFIED: 1 finding")
    assert out.startswith("checkpoint no_quorum ")


def test_what_an_export_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def export_live(*_: object) -> Written:
        return Written(entries=12, following=3)

    monkeypatch.setattr("sealbus.agents.cli.audit.source.EvidenceSource.export_live", export_live)
    (tmp_path / "root.json").write_text(json.dumps(DOCUMENT))
    arguments = ["export", str(tmp_path / "out"), "--root", str(tmp_path / "root.json")]
    assert "3 entries follow that the quorum has not cosigned\n" in CliRunner().invoke(command, arguments).stderr
    assert json.loads(CliRunner().invoke(command, [*arguments, "--json"]).stdout)["following"] == 3


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (POLICY, []),
        (POLICY, KEYS),
        (policy_text([], [ONE, TWO], "quorum one"), KEYS),
    ],
)
def test_a_root_file_with_a_policy(text: str, keys: list[str], tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    (tmp_path / "policy").write_text(text)
    policy = read_policy(tmp_path / "policy")
    root = make_root(log_settings(tmp_path), keys=keys, notaries=[NOTARY], folder=log, policy=policy)
    assert [key.text for key in root.keys] == KEYS
    assert root.policy is not None
    assert [one.verifier for one in root.policy.logs] == list(root.keys)
    assert Root.parse(root.encode()).encode() == root.encode()


def test_a_policy_of_other_logs_and_none_at_all(tmp_path: Path) -> None:
    log = written(kept_files(WORLD), tmp_path / "log")
    policy = tmp_path / "policy"
    policy.write_text(policy_text(WORLD.keys, [ONE], "quorum one"))
    with pytest.raises(ConfigurationError, match="logs of policy"):
        make_root(log_settings(tmp_path), keys=[LogKey("x").vkey], folder=log, policy=read_policy(policy))
    with pytest.raises(ConfigurationError, match="--key"):
        make_root(log_settings(tmp_path), keys=[], folder=log)
    policy.write_text("quorum nobody\n")
    with pytest.raises(ConfigurationError, match="line 1"):
        read_policy(policy)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_policy(tmp_path / "none")
