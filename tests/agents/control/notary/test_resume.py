"""A log is taken up only as it was left: anything else is refused, by its code, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.notary import NOTARY, ORIGIN, SIGNER, Bench, read_log

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.log.message_verifier import placed
from sealbus.agents.control.notary.notary import NotaryOptions
from sealbus.agents.control.notary.resume import LogPlan, own_checkpoint, remembered, trust_path
from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, sign_checkpoint
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.tiles import TileName
from sealbus.envelopes.records.notary import BundleRecord, CheckpointRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "log")


async def kept(bench: Bench, count: int = 5) -> int:
    """Have a log kept of `count` messages and return its size."""
    bench.record(count)
    async with bench.running():
        await bench.sealed(bench.stored())
        await bench.published(1)
    checkpoint = bench.checkpoint()
    assert checkpoint is not None
    return checkpoint.size


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the log's files, those that say who writes it left out."""
    found = (one for one in folder.rglob("*") if one.is_file() and not one.name.startswith("notary."))
    return {one: one.read_bytes() for one in found}


async def refusal(bench: Bench, options: NotaryOptions | None = None) -> Code:
    """Return why a notary does not take the log up; it has changed nothing."""
    before = contents(bench.folder)
    stored = bench.stored()
    async with bench.notary(options=options) as notary:
        with pytest.raises(LogError) as caught:
            await notary.run()
    assert contents(bench.folder) == before
    assert bench.stored() == stored
    return caught.value.code


def flip(path: Path, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


async def test_every_file_of_the_log_is_compared(bench: Bench) -> None:
    size = await kept(bench)
    names = [TileName(0, 0, size), TileName("entries", 0, size)]
    for name in names:
        path = bench.folder / name.path
        good = path.read_bytes()
        for at in (0, len(good) // 2, len(good) - 1):
            flip(path, at)
            assert await refusal(bench) in {Code.LOG_MISMATCH, Code.BAD_TILE}
            path.write_bytes(good)
        path.unlink()
        assert await refusal(bench) is Code.BAD_TILE
        path.write_bytes(good)
    places = bench.folder / TileName("places", 0, size).path
    good = places.read_bytes()
    flip(places, 17 * 2 + 8)
    assert await refusal(bench) is Code.LOG_MISMATCH
    places.write_bytes(good)
    [trusted] = (bench.folder / "trust").iterdir()
    flip(trusted, len(trusted.read_bytes()) - 3)
    assert await refusal(bench) is Code.LOG_MISMATCH


async def test_a_checkpoint_of_another_log_key_or_size(bench: Bench) -> None:
    size = await kept(bench)
    path = bench.folder / "checkpoint"
    good = bench.checkpoint()
    assert good is not None
    stranger = NoteSigner(ORIGIN, bytes(32))
    for checkpoint, signer, code in [
        (good, stranger, Code.UNTRUSTED_NOTE),
        (Checkpoint("other", size, good.root), SIGNER, Code.WRONG_LOG),
        (Checkpoint(ORIGIN, size, bytes(32)), SIGNER, Code.LOG_MISMATCH),
        (Checkpoint(ORIGIN, size + 1, good.root), SIGNER, Code.BAD_TILE),
        (Checkpoint(ORIGIN, 0, bytes.fromhex(EMPTY)), SIGNER, Code.LOG_MISMATCH),
    ]:
        path.write_bytes(sign_checkpoint(checkpoint, [signer]))
        assert await refusal(bench) is code
    path.write_bytes(b"nonsense")
    assert await refusal(bench) is Code.BAD_NOTE


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def another_payload(bench: Bench) -> None:
    stream = bench.broker.streams["AUDIT"]
    stream.tamper(stream.stored[3]._replace(payload=b"another"))


def another_time(bench: Bench) -> None:
    stream = bench.broker.streams["AUDIT"]
    message = stream.stored[2]
    stream.tamper(message._replace(arrival=placed(message)._replace(stored=placed(message).stored - 1)))


def another_stream(bench: Bench) -> None:
    bench.broker.streams["AUDIT"].created += 1


def cut_short(bench: Bench) -> None:
    bench.broker.streams["AUDIT"].truncate(4)


@pytest.mark.parametrize("change", [another_payload, another_time, another_stream, cut_short])
async def test_a_stream_that_is_another(bench: Bench, change: Callable[[Bench], None]) -> None:
    await kept(bench)
    change(bench)
    assert await refusal(bench) is Code.LOG_MISMATCH


async def test_only_the_last_messages_are_compared_unless_all_are_asked_for(bench: Bench) -> None:
    await kept(bench, 300)
    another_payload(bench)
    async with bench.running():
        bench.record()
        await bench.sealed(bench.stored())
    assert await refusal(bench, bench.options(whole=True)) is Code.LOG_MISMATCH


async def test_a_previous_period_comes_second(bench: Bench) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 5, bytes(32)), [SIGNER])
    options = bench.options(origin=ORIGIN, previous=note)
    bench.record()
    async with bench.running(options=options):
        await bench.sealed(1)
        await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    assert [place.kind for place in found.places[:2]] == [EntryKind.CREATION, EntryKind.PREVIOUS]
    async with bench.running(options=options):
        bench.record()
        await bench.sealed(bench.stored())
    other = sign_checkpoint(Checkpoint(ORIGIN, 6, bytes(32)), [SIGNER])
    assert await refusal(bench, bench.options(previous=other)) is Code.LOG_MISMATCH


async def test_what_was_stored_and_not_published_is_published_once(bench: Bench) -> None:
    await kept(bench)
    stream = bench.broker.streams["AUDIT"]
    # The process was gone between the two.
    assert len(stream.truncate(stream.last - 1)) == 1
    for _ in range(2):
        async with bench.running():
            await bench.published(1)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    assert len({one.size for one in found.published}) == len(found.published)


async def test_a_folder_that_was_set_back_comes_to_what_was_signed_before_it_signs(
    bench: Bench, tmp_path: Path
) -> None:
    await kept(bench)
    shutil.copytree(bench.folder, tmp_path / "backup")
    size = await kept(bench)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "backup", bench.folder)
    async with bench.running():
        bench.record()
        await bench.sealed(bench.stored())
        await bench.published(3)
    found = await read_log(bench.broker.connect(), bench.folder, NOTARY)
    assert found.size > size
    assert len({one.size for one in found.published}) == len(found.published)


async def test_a_folder_that_was_set_back_and_a_stream_that_is_another(bench: Bench, tmp_path: Path) -> None:
    """What was signed before is not what comes out now: nothing is signed again."""
    first = await kept(bench)
    shutil.copytree(bench.folder, tmp_path / "backup")
    await kept(bench)
    shutil.rmtree(bench.folder)
    shutil.copytree(tmp_path / "backup", bench.folder)
    stream = bench.broker.streams["AUDIT"]
    stream.tamper(stream.stored[first + 2]._replace(payload=b"another"))
    assert await refusal(bench) is Code.LOG_MISMATCH


@pytest.mark.slow
async def test_nothing_is_signed_before_it_has_come_to_what_was_signed_before(bench: Bench) -> None:
    """Over a thousand messages, of which one was changed: not even the first thousand are signed."""
    bench.record()
    message = bench.broker.streams["AUDIT"].stored[0]
    for _ in range(1_500):
        bench.broker.inject(message.subject, message.payload)
    async with bench.running():
        await bench.sealed(1_501)
        await bench.published(2)
    shutil.rmtree(bench.folder)
    another_payload(bench)
    assert await refusal(bench) is Code.LOG_MISMATCH
    assert bench.checkpoint() is None


def test_what_is_remembered_of_trust(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.enter()
    record = BundleRecord(trust_domain=TrustDomain("example.org"), current=5, jwt=b"{}")
    store.commit(0, {trust_path(record): record.encode()}, b"note")
    assert remembered(store) == [record]
    checkpoint = CheckpointRecord(note=b"n")
    for path, data in (("trust/x", record.encode()), ("trust/y", b""), ("trust/z", checkpoint.encode())):
        (tmp_path / path).write_bytes(data)
        with pytest.raises(LogError, match="log_mismatch"):
            remembered(store)
        (tmp_path / path).unlink()
    store.leave()


def test_whose_checkpoint_a_record_holds() -> None:
    plan = LogPlan(origin=ORIGIN, verifiers=(SIGNER.verifier,))
    checkpoint = Checkpoint(ORIGIN, 5, bytes(32))
    note = sign_checkpoint(checkpoint, [SIGNER])
    assert own_checkpoint(CheckpointRecord(note=note), plan) == checkpoint
    other = sign_checkpoint(Checkpoint("other", 5, bytes(32)), [SIGNER])
    stranger = sign_checkpoint(checkpoint, [NoteSigner(ORIGIN, bytes(32))])
    for foreign in (other, stranger, b"nonsense"):
        assert own_checkpoint(CheckpointRecord(note=foreign), plan) is None
    with pytest.raises(LogError, match="bad_note_signature"):
        own_checkpoint(CheckpointRecord(note=note.replace(b"\n5\n", b"\n6\n")), plan)
