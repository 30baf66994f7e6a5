"""The key book of a notary: written at each change and hourly, continued by the next notary, and never in the log's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import until
from support.notary import NAMES, NOTARY, Bench

from sealbus.agents.control.notary import key_book as module
from sealbus.agents.control.notary.key_book import KeyBookWriter, continued, fitting, former_book
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import PubAck
from sealbus.bus.streams.held import PAYLOAD_BYTES, PAYLOAD_ITEMS, Held, HeldValue
from sealbus.bus.streams.key_book import KEPT, KEY_BOOK_TYPE, MOST_RESTORED, KeyBook, key_book_subject, read_book
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import TrustDomain

HOUR = 3_600 * SECOND
DAY = 24 * HOUR
OWN, OTHER = TrustDomain("example.org"), TrustDomain("other.example")
SUBJECT = key_book_subject("notary")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN", Backoff(initial_interval=0.01, maximum_interval=0.01))


def held(bench: Bench) -> Held:
    trust = Trust(bundles=bench.agent.bundles())
    return Held(bench.broker.connect(), trust=lambda: trust, names=NAMES, caches=Caches(), clock=BusClock(bench.now))


async def book(bench: Bench) -> tuple[int, list[BundleRecord]]:
    """Return number and records of the book that counts."""
    value, _ = await held(bench).standing(SUBJECT, KEY_BOOK_TYPE)
    return (value.number, list(read_book(value).history.since(0))) if value is not None else (0, [])


def writer(bench: Bench) -> KeyBookWriter:
    identity = MemoryIdentity(bench.authority, NOTARY)
    return KeyBookWriter(identity=identity, transport=bench.broker.connect(), names=NAMES, clock=bench.now)


@asynccontextmanager
async def running(bench: Bench, history: TrustHistory) -> AsyncIterator[KeyBookWriter]:
    made = writer(bench)
    task = asyncio.create_task(made.write_books(history))
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


def books(bench: Bench) -> int:
    return len(bench.broker.streams["HELD"].stored)


def now_record(bench: Bench, before: int = 0) -> BundleRecord:
    return BundleRecord(trust_domain=OWN, current=bench.now() - before, jwt=bench.authority.jwt_bundle())


def record(
    current: int, jwt: bytes = b'{"keys":[]}', domain: TrustDomain = OWN, *, certificates: int = 0
) -> BundleRecord:
    return BundleRecord(trust_domain=domain, current=current, jwt=jwt, x509=(b"x",) * certificates)


async def test_it_is_written_at_once_and_at_each_change(bench: Bench) -> None:
    history = TrustHistory([first := now_record(bench, DAY)])
    async with running(bench, history) as made:
        await until(lambda: books(bench) == 1)
        assert await book(bench) == (1, [first])
        bench.authority.prepare_jwt()
        history.add(second := now_record(bench))
        made.changed()
        await until(lambda: books(bench) == 2)
        assert await book(bench) == (2, [first, second])
        assert made.problem == ""


async def test_it_is_written_again_when_nothing_changes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY", 0.01)
    async with running(bench, TrustHistory([one := now_record(bench)])):
        await until(lambda: books(bench) >= 3)
    number, records = await book(bench)
    assert (number >= 3, records) == (True, [one])


async def test_a_wrong_clock_writes_no_book_that_counts_nowhere(bench: Bench) -> None:
    ahead = 9 * SECOND
    identity = MemoryIdentity(bench.authority, NOTARY)
    made = KeyBookWriter(
        identity=identity, transport=bench.broker.connect(), names=NAMES, clock=lambda: bench.now() + ahead
    )
    task = asyncio.create_task(made.write_books(TrustHistory([one := now_record(bench)])))
    try:
        await until(lambda: "this host is 9.0 s ahead of the broker" in made.problem)
        assert books(bench) == 0
        # Within what is allowed the book is dated by the broker's time.
        ahead = 4 * SECOND
        await until(lambda: books(bench) == 1)
        assert made.problem == ""
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert await book(bench) == (1, [one])
    value, _ = await held(bench).standing(SUBJECT, KEY_BOOK_TYPE)
    assert value is not None
    assert abs(value.at - value.stored) < SECOND


async def test_the_next_notary_goes_on_with_its_number_also_when_the_key_of_the_last_book_is_gone(bench: Bench) -> None:
    history = TrustHistory([now_record(bench)])
    async with running(bench, history):
        await until(lambda: books(bench) == 1)
    bench.authority.prepare_jwt()
    bench.authority.activate_jwt()
    bench.authority.prune_jwt()
    history.add(now_record(bench))
    assert await book(bench) == (0, [])
    async with running(bench, history):
        await until(lambda: books(bench) == 2)
    assert (await book(bench))[0] == 2


async def test_what_others_stored_there_is_written_behind(bench: Bench) -> None:
    assert isinstance(bench.broker.inject(SUBJECT, b"junk"), PubAck)
    async with running(bench, TrustHistory([now_record(bench)])) as made:
        await until(lambda: books(bench) == 2)
        bench.broker.inject(SUBJECT, b"junk")
        made.changed()
        await until(lambda: books(bench) == 4)
    assert (await book(bench))[0] == 2


async def test_a_book_of_hours_ago_is_followed_by_the_next_number(bench: Bench) -> None:
    start, later = bench.clock(), 0
    bench.clock = lambda: start + later
    bench.authority.clock = bench.now
    history = TrustHistory([now_record(bench)])
    async with running(bench, history):
        await until(lambda: books(bench) == 1)
    later = 20 * HOUR
    async with running(bench, history):
        await until(lambda: books(bench) == 2)
    assert (await book(bench))[0] == 2


async def test_what_fails_is_said_and_tried_again(bench: Bench) -> None:
    bench.broker.fail("HELD", BusUnavailable("away"))
    async with running(bench, TrustHistory([now_record(bench)])) as made:
        await until(lambda: made.problem != "")
        assert made.problem == "the key book is not written: away"
        bench.broker.fail("HELD", None)
        await until(lambda: books(bench) == 1)
        await until(lambda: made.problem == "")


async def test_without_the_stream_it_waits(bench: Bench) -> None:
    del bench.broker.streams["HELD"]
    async with running(bench, TrustHistory([now_record(bench)])) as made:
        await until(lambda: "stream HELD does not exist" in made.problem)
        bench.broker.add_stream("HELD", ["held.>"])
        await until(lambda: books(bench) == 1)


async def test_an_empty_history_is_no_book(bench: Bench) -> None:
    history = TrustHistory()
    async with running(bench, history) as made:
        await until(lambda: "no bundle is known yet" in made.problem)
        history.add(now_record(bench))
        await until(lambda: books(bench) == 1)


async def test_another_writer_at_the_same_moment_is_followed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write, lost = Held.write, list[object]()

    async def late(self: Held, *arguments: object, **more: object) -> HeldValue | None:
        if not lost:
            lost.append(bench.broker.inject(SUBJECT, b"quicker"))
        return await write(self, *arguments, **more)  # type: ignore[arg-type]  # the same

    monkeypatch.setattr(Held, "write", late)
    async with running(bench, TrustHistory([now_record(bench)])) as made:
        await until(lambda: books(bench) == 2)
        await until(lambda: made.problem == "")
    assert (await book(bench))[0] == 1


async def test_a_notary_writes_its_book_beside_its_log_and_readers_take_it(bench: Bench) -> None:
    identity = _Rotating(bench.authority, NOTARY)
    async with bench.running(identity=identity) as notary:
        await until(lambda: books(bench) == 1)
        # A value of an agent under the key of today, which then leaves the bundle.
        subject, then = "held.shop.task.q.00", bench.now()
        await held(bench).write(subject, {}, "t", bench.agent.sealer())
        bench.authority.prepare_jwt()
        bench.authority.activate_jwt()
        bench.authority.prune_jwt()
        identity.rotated()
        # Its own SVID is still of the old key: a book under that would count for nobody.
        await until(lambda: "the key of the notary's SVID is not in the bundle" in notary.note)
        stored = books(bench)
        identity._sealer = None
        await until(lambda: books(bench) == stored + 1)
        await until(lambda: notary.note == "no policy is followed")
        assert notary.note == "no policy is followed"
        trust = Trust(bundles=bench.agent.bundles())
        reader = KeyBook(
            bench.broker.connect(),
            notaries=[NOTARY],
            trust=lambda: trust,
            names=NAMES,
            caches=Caches(),
            clock=BusClock(bench.now),
        )
        assert await held(bench).newest(subject, "t") == {}
        by_book = Held(
            bench.broker.connect(),
            trust=lambda: trust,
            past=reader,
            names=NAMES,
            caches=Caches(),
            clock=BusClock(bench.now),
        )
        assert list(await by_book.newest(subject, "t")) == [subject]
        assert len(await reader.at(then)) == 2


class _Rotating(MemoryIdentity):
    """One that tells of new bundles, as the Workload API does."""

    rotated: Callable[[], None]

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        self.rotated = callback
        return lambda: None


async def test_a_full_stream_is_a_note_and_the_log_goes_on(bench: Bench) -> None:
    bench.broker.fail("HELD", BusUnavailable("full"))
    async with bench.running() as notary:
        await until(lambda: "the key book is not written: full" in notary.note)
        await notary.serving.wait()
        assert notary.problem == ""


# What stands in a book


async def test_a_new_log_goes_on_with_what_the_book_before_knew(bench: Bench) -> None:
    old = [record(10), record(20, domain=OTHER), record(30), record(40, domain=OTHER)]
    new = [record(30, b'{"keys": []}'), record(50)]
    await held(bench).write(
        SUBJECT,
        {"rec": [one.encode() for one in old]},
        KEY_BOOK_TYPE,
        MemoryIdentity(bench.authority, NOTARY).sealer(),
    )
    before, _ = await held(bench).standing(SUBJECT, KEY_BOOK_TYPE)
    # Its own first bundle and what follows stand as they are: a book of somebody who had the key changes nothing of that.
    assert list(continued(TrustHistory(new), former_book(before)).since(0)) == [old[0], old[1], new[0], old[3], new[1]]
    assert list(continued(TrustHistory(new), former_book(None)).since(0)) == new


async def test_a_book_before_that_is_none_says_nothing(bench: Bench) -> None:
    await held(bench).write(
        SUBJECT,
        {"rec": "none"},
        KEY_BOOK_TYPE,
        MemoryIdentity(bench.authority, NOTARY).sealer(),
    )
    before, _ = await held(bench).standing(SUBJECT, KEY_BOOK_TYPE)
    assert isinstance(before, HeldValue)
    assert list(continued(TrustHistory([record(5)]), former_book(before)).since(0)) == [record(5)]


def stream_restored(created: int) -> RestoredStream:
    return RestoredStream(stream="TASKS", before=1, created=created, last=7)


async def restored_in(bench: Bench) -> list[int]:
    """Return when the streams were restored that the book names."""
    value, _ = await held(bench).standing(SUBJECT, KEY_BOOK_TYPE)
    return [one.created for one in read_book(value).restored] if value is not None else []


async def written(bench: Bench, history: TrustHistory, *created: int) -> list[int]:
    """Let a notary write one book; return when the streams were restored that it names."""
    count, made = books(bench), writer(bench)
    task = asyncio.create_task(made.write_books(history, [stream_restored(one) for one in created]))
    await until(lambda: books(bench) > count)
    task.cancel()
    await asyncio.wait({task})
    return await restored_in(bench)


async def test_restored_streams_are_named_for_32_days_and_by_the_next_log_as_well(bench: Bench) -> None:
    now = bench.now()
    assert await written(bench, TrustHistory([now_record(bench, DAY)]), now - 33 * DAY, now - HOUR) == [now - HOUR]
    # Of the same log, which does not say so any more.
    assert await written(bench, TrustHistory([now_record(bench, DAY)]), now - 2 * HOUR) == [now - 2 * HOUR]
    # The log of the next period begins after it.
    later = TrustHistory([now_record(bench)])
    assert await written(bench, later, now + HOUR) == [now - 2 * HOUR, now + HOUR]
    assert await written(bench, later) == [now - 2 * HOUR]


async def test_no_more_restored_streams_are_named_than_a_book_holds(bench: Bench) -> None:
    now = bench.now()
    created = [now + number for number in range(MOST_RESTORED + 1)]
    assert await written(bench, TrustHistory([now_record(bench)]), *created) == created[1:]


async def test_the_last_bundle_before_32_days_is_kept_and_no_older_one(bench: Bench) -> None:
    ages = (40 * DAY, 33 * DAY, 31 * DAY, 0)
    history = TrustHistory(now_record(bench, age) for age in ages)
    async with running(bench, history):
        await until(lambda: books(bench) == 1)
    _, records = await book(bench)
    assert len(records) == 3
    assert records[0].current < bench.now() - KEPT < records[1].current


def padded(size: int) -> bytes:
    return b'{"keys":[]}' + b" " * (size - 11)


def test_certificates_are_left_out() -> None:
    assert fitting([record(1, certificates=3)]) == [record(1)]


def test_what_is_too_much_leaves_out_the_oldest() -> None:
    records = [record(number, padded(60_000)) for number in range(20)]
    kept = fitting(records)
    assert kept == records[-len(kept) :]
    assert PAYLOAD_BYTES - 80_000 < sum(len(one.encode()) for one in kept) < PAYLOAD_BYTES


def test_no_trust_domain_displaces_what_is_older_of_another() -> None:
    own = [record(number) for number in range(100)]
    flood = [record(1_000 + number, padded(60_000), OTHER) for number in range(100)]
    kept = fitting([*own, *flood])
    assert [one for one in kept if one.trust_domain == OWN] == own
    first = [record(1_000 + number, padded(1_000), TrustDomain("a.example")) for number in range(1_000)]
    assert [one for one in fitting([*own, *first]) if one.trust_domain == OWN] == own
    many = [record(1_000 + number, domain=OTHER) for number in range(PAYLOAD_ITEMS * 2)]
    assert [one for one in fitting([*own, *many]) if one.trust_domain == OWN] == own
    assert len(fitting([*own, *many])) == PAYLOAD_ITEMS


@pytest.mark.parametrize("size", [0, 100, 1_000, 65_536])
async def test_what_fits_can_be_written_and_read(bench: Bench, size: int) -> None:
    records = [record(number, padded(max(size, 11))) for number in range(PAYLOAD_ITEMS * 2)]
    kept = fitting(records)
    identity = MemoryIdentity(bench.authority, NOTARY)
    contents = {"rec": [one.encode() for one in kept]}
    sealer = identity.sealer()
    assert await held(bench).write(SUBJECT, contents, KEY_BOOK_TYPE, sealer)  # type: ignore[arg-type]  # bytes
    assert (await book(bench))[1] == kept
