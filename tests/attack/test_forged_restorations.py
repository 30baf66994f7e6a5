"""Who may write to the server, to the notary's folder or to an export, and wants records gone under the name of a restore."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from independent import verify_export as independent
from support.kept_log import root_of
from support.log_world import Frame, LogKey, World, entry_of, files_of
from support.memory_files import MemoryFiles
from support.notary import ORIGIN, SIGNER, Bench

from sealbus.agents.control.notary import term
from sealbus.agents.evidence.verify import verify_export
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.restoration import Restoration, restoration_path, sign_restoration
from sealbus.envelopes.trust.spiffe_id import SpiffeId

OPERATOR = SpiffeId("spiffe://example.org/agent/operator")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(term, "SECONDS", 0.05)
    return Bench(tmp_path / "log")


async def shortened(bench: Bench) -> tuple[int, int]:
    """Let the log have records that an attacker removes, who creates AUDIT again; return both times of creation."""
    bench.record(5)
    async with bench.running():
        await bench.sealed(5)
    stream = bench.broker.streams["AUDIT"]
    before = stream.created
    stream.truncate(3)
    stream.created = before + 9
    return before, stream.created


async def refusal(bench: Bench) -> Code:
    size = bench.checkpoint()
    with pytest.raises(LogError) as caught:
        async with bench.notary() as notary:
            await notary.run()
    assert bench.checkpoint() == size
    return caught.value.code


async def test_a_stream_that_was_made_again_is_refused_whatever_it_says(bench: Bench) -> None:
    before, created = await shortened(bench)
    assert await refusal(bench) is Code.LOG_MISMATCH
    # A word in the stream is none, even one that was signed by the right key.
    one = Restoration(origin=ORIGIN, before=before, created=created, last=3, by=OPERATOR, time=bench.now())
    bench.garbage(sign_restoration(one, [SIGNER]))
    assert await refusal(bench) is Code.LOG_MISMATCH


async def test_a_word_in_the_folder_needs_the_logs_key(bench: Bench) -> None:
    before, created = await shortened(bench)
    one = Restoration(origin=ORIGIN, before=before, created=created, last=3, by=OPERATOR, time=bench.now())
    path = bench.folder / restoration_path(one.time)
    path.parent.mkdir()
    path.write_bytes(sign_restoration(one, [NoteSigner(ORIGIN, bytes(32))]))
    assert await refusal(bench) is Code.UNTRUSTED_NOTE
    path.write_bytes(sign_restoration(one, [SIGNER]).replace(b"\n3\n", b"\n2\n"))
    assert await refusal(bench) is Code.BAD_NOTE_SIGNATURE


async def test_the_word_of_one_restore_is_not_that_of_another(bench: Bench) -> None:
    before, created = await shortened(bench)
    path = bench.folder / restoration_path(7)
    path.parent.mkdir()
    genuine = Restoration(origin=ORIGIN, before=before, created=created, last=3, by=OPERATOR, time=7)
    path.write_bytes(sign_restoration(genuine, [SIGNER]))
    # The stream is made again after it was restored, shorter.
    stream = bench.broker.streams["AUDIT"]
    stream.created += 1
    stream.truncate(2)
    assert await refusal(bench) is Code.LOG_MISMATCH
    stream.created = created
    assert await refusal(bench) is Code.LOG_MISMATCH


def world() -> World:
    made = World(Random(3))  # noqa: S311  a log that can be made again
    made.creation()
    made.record_bundle("k0")
    for _ in range(3):
        made.decided()
    return made


def codes(made: World, frames: list[Frame], keys: tuple[LogKey, ...] | None = None) -> set[str]:
    """Return what both verifiers find in an export of these frames."""
    files, root = files_of(frames, keys or made.keys), root_of(made)
    ours = {finding.code for finding in verify_export(MemoryFiles(files), root, processes=1).findings}
    theirs = {code for _, code, _ in independent.verify(files, independent.read_root(root.encode())).findings}
    assert bool(ours) == bool(theirs), (ours, theirs)
    return ours & theirs if ours else ours


def test_no_message_of_an_export_is_said_to_be_lost() -> None:
    """The root stays the same: only what a restoration explains may be missing."""
    made = world()
    assert codes(made, made.frames) == set()
    for at in range(2, len(made.frames)):
        frames = list(made.frames)
        frames[at] = Frame(6, frames[at].sequence, 0, entry_of(frames[at]))
        assert "bad_entry" in codes(made, frames)


def test_what_was_there_before_a_restore_is_not_lost_by_it() -> None:
    made = world()
    made.restore()
    made.decided()
    assert codes(made, made.frames) == set()
    frames = list(made.frames)
    frames[2] = Frame(6, frames[2].sequence, 0, entry_of(frames[2]))
    assert "bad_entry" in codes(made, frames)


def test_what_is_lost_by_a_restore_is_a_finding_for_ever() -> None:
    made = world()
    gone = Frame(6, made.sequence + 1, 0, bytes([9]) * 32)
    made.frames.append(gone)
    made.frames.append(made.restoration(made.sequence))
    for _ in range(3):
        made.decided()
        made.restore()
        assert codes(made, made.frames) == {"lost_records"}


def test_nobody_else_restores_in_an_export() -> None:
    made = world()
    made.frames.append(made.restoration(keys=[LogKey("stranger")]))
    assert codes(made, made.frames) == {"untrusted_note"}
