"""Checkpoints of another log: each extends the one before, and a rewritten log does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealbus.agents.control.notary.keys import CheckpointHolder
from sealbus.envelopes.errors import Code, LogError, StateUnavailable
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import creation_entry
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.tiles import TiledTree, TileName, tile_reader
from sealbus.envelopes.log.tree_builder import TreeBuilder

ORIGIN = "log.example.org/audit"
KEY, OTHER = NoteSigner(ORIGIN, bytes(32)), NoteSigner(ORIGIN, bytes([1]) * 32)


class Log:
    """A log that somebody else keeps; `salt` makes it another one."""

    def __init__(self, salt: str = "") -> None:
        self.salt = salt
        self.tiling = TreeBuilder()
        self.files: dict[str, bytes] = {}

    def grow(self, size: int, key: NoteSigner = KEY) -> bytes:
        for number in range(self.tiling.size, size):
            for name, data in self.tiling.append(creation_entry(f"{self.salt}{number}", created=number).leaf):
                self.files[name.path] = data
        self.files.update({name.path: data for name, data in self.tiling.partial()})
        return sign_checkpoint(Checkpoint(ORIGIN, size, self.tiling.root()), [key])

    def read(self, name: TileName) -> bytes:
        return tile_reader(self.files.get)(name)


@pytest.fixture
def holder(tmp_path: Path) -> CheckpointHolder:
    return CheckpointHolder(tmp_path / "held", origin=ORIGIN, verifiers=[KEY.verifier])


def refused(holder: CheckpointHolder, note: bytes, log: Log) -> Code:
    before = holder.latest()
    with pytest.raises(LogError) as caught:
        holder.hold_from(note, log.read)
    assert holder.latest() == before
    return caught.value.code


def test_each_extends_the_one_before(holder: CheckpointHolder, tmp_path: Path) -> None:
    log = Log()
    assert holder.latest() is None
    for size in (1, 5, 5, 256, 300, 1_000):
        note = log.grow(size)
        assert holder.hold_from(note, log.read).checkpoint.size == size
        latest = holder.latest()
        assert latest is not None
        assert latest.note == note
    [folder] = (tmp_path / "held").iterdir()
    assert sorted(int(one.name) for one in folder.iterdir() if one.is_file()) == [1, 5, 256, 300, 1_000]


def test_a_rewritten_log_a_smaller_one_and_one_of_another_key(holder: CheckpointHolder) -> None:
    log, forged = Log(), Log("forged")
    holder.hold_from(log.grow(300), log.read)
    assert refused(holder, forged.grow(300), forged) is Code.INCONSISTENT_LOG
    assert refused(holder, forged.grow(400), forged) is Code.BAD_PROOF
    assert refused(holder, Log().grow(299), log) is Code.INCONSISTENT_LOG
    assert refused(holder, log.grow(400, OTHER), log) is Code.UNTRUSTED_NOTE
    other = sign_checkpoint(Checkpoint("another", 400, log.tiling.root()), [KEY])
    assert refused(holder, other, log) is Code.WRONG_LOG


def test_tiles_that_are_missing_or_wrong(holder: CheckpointHolder) -> None:
    log = Log()
    holder.hold_from(log.grow(300), log.read)
    note = log.grow(400)
    empty = Log()
    assert refused(holder, note, empty) is Code.BAD_TILE
    log.files["tile/0/001.p/144"] = bytes(144 * 32)
    assert refused(holder, note, log) is Code.BAD_PROOF


def test_with_a_proof_in_hand(holder: CheckpointHolder) -> None:
    log = Log()
    holder.hold(log.grow(10))
    note = log.grow(20)
    path = TiledTree(20, log.read).consistency(10)
    with pytest.raises(LogError, match="bad_proof"):
        holder.hold(note, path[1:])
    assert holder.hold(note, path).checkpoint.size == 20


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    holder = CheckpointHolder(tmp_path / "file", origin=ORIGIN, verifiers=[KEY.verifier])
    with pytest.raises(StateUnavailable, match="cannot be"):
        holder.hold(Log().grow(1))
