"""A notary and a restored stream: it goes on if an operator has said so, for exactly this stream, and says what is gone."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from support.notary import NAMES, NOTARY, ORIGIN, SIGNER, Bench

from sealbus.agents.control.notary import term
from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.agents.control.notary.log.ledger import entry_rows, stored_checkpoint
from sealbus.agents.control.notary.restored_stream import Restorations, RestoredBackup, record_restoration
from sealbus.bus.clocks import BusClock
from sealbus.bus.nats.api import StreamState
from sealbus.bus.streams.key_book import KeyBook
from sealbus.envelopes.errors import Code, ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.log.entries import EntryKind
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.log.places import encode_places
from sealbus.envelopes.log.restoration import FOLDER, Restoration, restoration_path, sign_restoration
from sealbus.envelopes.log.tiles import TILE_WIDTH, TiledTree, TileName, tile_reader
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

OPERATOR = SpiffeId("spiffe://example.org/agent/operator")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(term, "SECONDS", 0.05)
    return Bench(tmp_path / "log")


def last(bench: Bench) -> int:
    return bench.broker.streams["AUDIT"].last


def state(bench: Bench) -> StreamState:
    stream = bench.broker.streams["AUDIT"]
    return StreamState(name="AUDIT", config={}, created=stream.created, messages=len(stream), bytes=1, last=last(bench))


def restore(bench: Bench, upto: int) -> None:
    """Put AUDIT back as it was when it had `upto` messages, as a restored stream: created anew."""
    stream = bench.broker.streams["AUDIT"]
    stream.truncate(upto)
    stream.created = max(bench.now(), stream.created + 1)


def say(bench: Bench, upto: int, *streams: RestoredStream) -> Restoration:
    return record_restoration(
        FolderStore(bench.folder),
        state(bench),
        origin=ORIGIN,
        signers=[SIGNER],
        last=upto,
        by=OPERATOR,
        now=bench.now(),
        backup=RestoredBackup("ab" * 32, streams) if streams else None,
    )


def stream_restored(bench: Bench, name: str, before: int = 1) -> RestoredStream:
    return RestoredStream(stream=name, before=before, created=bench.now(), last=7)


async def named(bench: Bench) -> Sequence[RestoredStream] | None:
    """Return which restored streams agents know of; None while nothing is said."""
    trust = Trust(bundles=bench.agent.bundles())
    book = KeyBook(
        bench.broker.connect(),
        notaries=[NOTARY],
        trust=lambda: trust,
        names=NAMES,
        caches=Caches(),
        clock=BusClock(bench.now),
    )
    try:
        return await book.restored(state(bench).created)
    except StateUnavailable:
        return None


def say_path(bench: Bench, upto: int) -> Path:
    """Say that more was restored than was, as whoever has the log's key can; return the file."""
    one = Restoration(
        origin=ORIGIN,
        before=first_creation(bench),
        created=state(bench).created,
        last=upto,
        by=OPERATOR,
        time=bench.now(),
    )
    path = bench.folder / restoration_path(one.time)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(sign_restoration(one, [SIGNER]))
    return path


def first_creation(bench: Bench) -> int:
    found = bench.checkpoint()
    assert found is not None
    places, _ = entry_rows(FolderStore(bench.folder), 0, found.size)
    return places[0].time


def kinds(bench: Bench) -> list[EntryKind]:
    found = bench.checkpoint()
    assert found is not None
    places, _ = entry_rows(FolderStore(bench.folder), 0, found.size)
    return [place.kind for place in places]


async def logged(bench: Bench) -> int:
    bench.record(4)
    async with bench.running():
        await bench.sealed(last(bench))
    return last(bench)


async def test_without_an_operators_word_it_stops(bench: Bench) -> None:
    upto = await logged(bench)
    restore(bench, upto)
    with pytest.raises(LogError) as caught:
        async with bench.notary() as notary:
            await notary.run()
    assert caught.value.code is Code.LOG_MISMATCH


async def test_the_log_goes_on_over_a_stream_that_was_restored_whole(bench: Bench) -> None:
    upto = await logged(bench)
    restore(bench, upto)
    now = bench.now()
    one = say(bench, upto)
    assert now <= one.time <= bench.now()
    assert (one.last, one.by, one.created) == (upto, OPERATOR, state(bench).created)
    for _ in range(2):
        bench.record()
        async with bench.running():
            await bench.sealed(last(bench))
        assert kinds(bench).count(EntryKind.RESTORED) == 1
    # And once more.
    upto = last(bench)
    restore(bench, upto)
    assert say(bench, upto).before == one.created
    async with bench.running(options=bench.options(whole=True)):
        bench.record()
        await bench.sealed(last(bench))
    assert kinds(bench).count(EntryKind.RESTORED) == 2


def books_written(bench: Bench) -> int:
    return len(bench.broker.streams["HELD"].stored)


async def test_the_other_streams_are_named_to_agents_once_the_log_names_them(bench: Bench) -> None:
    upto = await logged(bench)
    restore(bench, upto)
    assert await named(bench) is None
    streams = stream_restored(bench, "EVENTS"), stream_restored(bench, "TASKS")
    one = say(bench, upto, *reversed(streams))
    assert one.streams == streams
    assert await named(bench) is None
    bench.record()
    books = books_written(bench)
    async with bench.running():
        await bench.until(lambda: books_written(bench) > books)
        found = await named(bench)
        assert EntryKind.RESTORED in kinds(bench)
    assert found == list(streams)
    # And those of the next restore besides.
    upto = last(bench)
    restore(bench, upto)
    again = stream_restored(bench, "TASKS", streams[1].created)
    say(bench, upto, again)
    bench.record()
    books = books_written(bench)
    async with bench.running():
        await bench.until(lambda: books_written(bench) > books)
        found = await named(bench)
    assert found == [*streams, again]


async def test_nothing_is_named_of_a_stream_that_the_log_does_not_go_on_over(bench: Bench) -> None:
    """Whoever restored another AUDIT than there was has restored who knows what."""
    upto = await logged(bench)
    restore(bench, upto)
    stream = bench.broker.streams["AUDIT"]
    changed = next(one for one in stream.stored if one.subject == "audit.shop")
    stream.tamper(changed._replace(payload=b"another"))
    say(bench, upto, stream_restored(bench, "TASKS"))
    with pytest.raises(LogError, match="differs"):
        async with bench.notary() as notary:
            await notary.run()
    assert await named(bench) is None


async def test_while_the_log_has_not_come_to_the_restoration_nothing_is_named(bench: Bench) -> None:
    upto = await logged(bench)
    bench.record(3)
    restore(bench, upto + 3)
    say(bench, upto + 3, one := stream_restored(bench, "TASKS"))
    books = books_written(bench)
    async with bench.running():
        await bench.until(lambda: books_written(bench) > books)
        found = await named(bench)
        assert EntryKind.RESTORED in kinds(bench)
    assert found == [one]


async def test_what_the_log_had_after_the_backup_stays_in_it(bench: Bench) -> None:
    bench.record(4)
    async with bench.running():
        await bench.sealed(last(bench))
        upto = last(bench)
        bench.record(3)
        await bench.sealed(upto + 3)
    before = bench.checkpoint()
    assert before is not None
    restore(bench, upto)
    # More than the backup had: the stream does not have what the log says.
    wrong = say_path(bench, upto + 2)
    with pytest.raises(LogError, match="ends before"):
        async with bench.notary() as notary:
            await notary.run()
    wrong.unlink()
    say(bench, upto)
    size = before.size
    for number in range(2):
        bench.record()
        async with bench.running():
            await bench.until(lambda: (found := bench.checkpoint()) is not None and found.size > size + 1)  # noqa: B023
        found = bench.checkpoint()
        assert found is not None
        size = found.size
        assert kinds(bench)[before.size] is EntryKind.RESTORED, number


async def test_a_log_that_is_older_than_the_backup_comes_to_its_end_first(bench: Bench) -> None:
    upto = await logged(bench)
    bench.record(3)
    restore(bench, upto + 3)
    say(bench, upto + 3)
    async with bench.running():
        bench.record()
        await bench.sealed(upto + 4)
    found = kinds(bench)
    assert found.count(EntryKind.RESTORED) == 1
    assert found.index(EntryKind.RESTORED) >= upto + 4


def stored_size(store: FolderStore) -> int:
    found = stored_checkpoint(store, ORIGIN, [SIGNER.verifier])
    assert found is not None
    return found.checkpoint.size


def told_too(bench: Bench) -> FolderStore:
    """Return the folder of another notary, which has a copy of the operator's words."""
    folder = bench.folder.with_name("another")
    shutil.copytree(bench.folder / FOLDER, folder / FOLDER)
    return FolderStore(folder)


@pytest.mark.parametrize("more", [0, 2], ids=["nothing after it", "more"])
@pytest.mark.parametrize("behind", [False, True], ids=["with a log", "without a log"])
async def test_another_notary_goes_on_where_the_first_has_logged_the_restoration(
    bench: Bench, behind: bool, more: int
) -> None:
    upto = await logged(bench)
    other = FolderStore(bench.folder.with_name("another"))
    if not behind:
        async with bench.running(store=other):
            bench.record()
            await bench.sealed(last(bench), other.folder)
        upto = last(bench)
    restore(bench, upto)
    say(bench, upto)
    other = told_too(bench) if behind else other
    shutil.copytree(bench.folder / FOLDER, other.folder / FOLDER, dirs_exist_ok=True)
    async with bench.running():
        bench.record(more)
        await bench.sealed(last(bench))
        await bench.until(lambda: EntryKind.RESTORED in kinds(bench))
    for _ in range(2):
        async with bench.running(store=other):
            bench.record(3)
            await bench.sealed(last(bench), other.folder)
    first, size = bench.checkpoint(), stored_size(other)
    assert first is not None
    assert first.size < size
    assert TiledTree(size, tile_reader(other.get)).root(first.size) == first.root


async def test_another_notary_signs_nothing_where_the_first_had_signed_more_than_was_restored(bench: Bench) -> None:
    upto = await logged(bench)
    async with bench.running():
        bench.record(3)
        await bench.sealed(upto + 3)
    restore(bench, upto)
    say(bench, upto)
    other = told_too(bench)
    async with bench.running():
        bench.record(4)
        await bench.sealed(last(bench))
    # As many as were lost: its log becomes as long as what the first has signed.
    bench.record(3)
    with pytest.raises(LogError) as caught:
        async with bench.notary(store=other) as notary, asyncio.timeout(30):
            await notary.run()
    assert caught.value.code in (Code.LOG_MISMATCH, Code.INCONSISTENT_LOG)
    assert not (other.folder / CHECKPOINT).exists()


async def test_a_stream_that_differs_is_not_made_right_by_a_word(bench: Bench) -> None:
    upto = await logged(bench)
    restore(bench, upto)
    stream = bench.broker.streams["AUDIT"]
    changed = next(one for one in stream.stored if one.subject == "audit.shop")
    stream.tamper(changed._replace(payload=b"another"))
    say(bench, upto)
    with pytest.raises(LogError, match="differs"):
        async with bench.notary() as notary:
            await notary.run()


@pytest.mark.parametrize(
    ("change", "signer", "code"),
    [
        ({"created": 7}, SIGNER, Code.LOG_MISMATCH),
        ({"before": 7}, SIGNER, Code.LOG_MISMATCH),
        ({"origin": "log.example.org/other"}, SIGNER, Code.WRONG_LOG),
        ({}, NoteSigner(ORIGIN, bytes(32)), Code.UNTRUSTED_NOTE),
    ],
    ids=["another stream", "another log's stream", "another log", "forged"],
)
async def test_a_word_that_is_not_about_this_is_refused(
    bench: Bench, change: dict[str, object], signer: NoteSigner, code: Code
) -> None:
    upto = await logged(bench)
    restore(bench, upto)
    one = replace(say(bench, upto), **change)  # type: ignore[arg-type]
    (bench.folder / restoration_path(one.time)).write_bytes(sign_restoration(one, [signer]))
    bench.record(1)
    with pytest.raises(LogError) as caught:
        async with bench.notary() as notary:
            await notary.run()
    assert caught.value.code is code
    assert EntryKind.RESTORED not in kinds(bench)


async def test_a_word_that_the_log_holds_stays_as_it_is(bench: Bench) -> None:
    words = []
    await logged(bench)
    for _ in range(2):
        restore(bench, last(bench))
        words.append(say(bench, last(bench)))
        async with bench.running():
            bench.record()
            await bench.sealed(last(bench))
    for one in words:
        path = bench.folder / restoration_path(one.time)
        whole = path.read_bytes()
        changed = [
            (path, sign_restoration(replace(one, last=one.last - 1), [SIGNER])),
            (path, sign_restoration(replace(one, by=NOTARY), [SIGNER])),
            (path.with_name(f"{path.name}0"), whole),
            (None, b""),
        ]
        for place, data in changed:
            path.unlink()
            if place is not None:
                place.write_bytes(data)
            with pytest.raises(LogError) as caught:
                async with bench.notary() as notary:
                    await notary.run()
            assert caught.value.code is Code.LOG_MISMATCH
            if place is not None:
                place.unlink()
            path.write_bytes(whole)
    bench.record()
    async with bench.running():
        await bench.sealed(last(bench))


async def restored_once(bench: Bench) -> Callable[[], Restorations]:
    """Restore the stream, and log that; return what reads what the folder says of it."""
    await logged(bench)
    restore(bench, last(bench))
    say(bench, last(bench))
    async with bench.running():
        bench.record()
        await bench.sealed(last(bench))

    def read() -> Restorations:
        found = bench.checkpoint()
        assert found is not None
        created, verifiers = state(bench).created, [SIGNER.verifier]
        store = FolderStore(bench.folder)
        return Restorations.read(store, size=found.size, created=created, origin=ORIGIN, verifiers=verifiers)

    assert len(read().logged) == 1
    return read


async def test_words_lead_from_the_logs_own_stream_to_this_one(bench: Bench) -> None:
    await logged(bench)
    for _ in range(3):
        restore(bench, last(bench))
        say(bench, last(bench))
    found, created, store = bench.checkpoint(), state(bench).created, FolderStore(bench.folder)
    assert found is not None
    read = partial(Restorations.read, store, size=found.size, origin=ORIGIN, verifiers=[SIGNER.verifier])
    assert len(read(created=created).pending) == 3
    assert read(created=created).created == first_creation(bench)
    for other in (created + 1, read(created=created).pending[0].restoration.created):
        with pytest.raises(LogError, match="do not lead to this stream"):
            read(created=other)


async def test_a_place_in_the_log_that_its_restoration_does_not_have(bench: Bench) -> None:
    """Places are in no hash of the log: who can write into the folder can change them."""
    read = await restored_once(bench)
    found = bench.checkpoint()
    assert found is not None
    places, _ = entry_rows(FolderStore(bench.folder), 0, found.size)
    moved = [one._replace(sequence=one.sequence - 1) if one.kind is EntryKind.RESTORED else one for one in places]
    (bench.folder / TileName("places", 0, found.size).path).write_bytes(encode_places(moved))
    with pytest.raises(LogError, match="hold different restorations"):
        read()


async def test_a_restoration_that_the_log_holds_alone(bench: Bench) -> None:
    read = await restored_once(bench)
    [path] = (bench.folder / FOLDER).iterdir()
    path.unlink()
    with pytest.raises(LogError, match="is not in the folder"):
        read()


async def test_a_restoration_is_found_in_the_log_however_long_ago_it_was(bench: Bench) -> None:
    read = await restored_once(bench)
    logged = read().logged
    bench.record(TILE_WIDTH)
    async with bench.running():
        await bench.sealed(last(bench))
    assert read().logged == logged


@pytest.mark.parametrize(
    ("number", "sequence", "gone"), [(4, 3, False), (4, 4, True), (6, 7, False), (6, 8, True), (10, 99, False)]
)
def test_what_each_restoration_lost_is_gone(number: int, sequence: int, gone: bool) -> None:
    assert Restorations(0, ((5, 3), (9, 7))).is_gone(number, 12, sequence) == gone


async def test_what_cannot_be_said(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="no log here"):
        say(bench, 0)
    upto = await logged(bench)
    found = bench.checkpoint()
    assert found is not None
    places, _ = entry_rows(FolderStore(bench.folder), 0, found.size)
    for some in (upto, places[-1].sequence):
        with pytest.raises(ConfigurationError, match="it holds all logged messages"):
            say(bench, some)
    restore(bench, upto)
    with pytest.raises(ConfigurationError, match="does not hold"):
        say(bench, upto + 1)
    running = FolderStore(bench.folder)
    running.enter()
    with pytest.raises(StateUnavailable):
        say(bench, upto)
    running.leave()
    # An empty backup is one.
    restore(bench, 0)
    assert say(bench, 0).last == 0


async def test_a_copy_of_the_servers_store_that_is_older_than_the_log(bench: Bench) -> None:
    """It is the same stream, created when it was, and shorter than it was: that needs a word, too."""
    bench.record(4)
    async with bench.running():
        await bench.sealed(4)
        upto = last(bench)
        bench.record(3)
        await bench.sealed(upto + 3)
    size = len(kinds(bench))
    created = bench.broker.streams["AUDIT"].created
    restore(bench, upto)
    bench.broker.streams["AUDIT"].created = created
    with pytest.raises(LogError) as caught:
        async with bench.notary() as notary:
            await notary.run()
    assert caught.value.code is Code.LOG_MISMATCH
    one = say(bench, upto)
    assert one.before == one.created == created
    bench.record()
    async with bench.running():
        await bench.until(lambda: len(kinds(bench)) > size + 1)
    assert kinds(bench)[size] is EntryKind.RESTORED
