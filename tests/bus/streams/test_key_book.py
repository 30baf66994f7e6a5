"""Key books: which of them vouch for keys that are gone, and which vouch for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from support.envelopes import HOUR, MINUTE, NAMES, NOW, TRUST_DOMAIN, Issuer, agent, private_key

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.cells import Cells, CellTransport
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Delivery, Transport
from sealbus.bus.streams import key_book as module
from sealbus.bus.streams.held import Held, current_only
from sealbus.bus.streams.key_book import KEY_BOOK_TYPE, KeyBook, key_book_subject
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.records.notary import BundleRecord, PolicyRecord
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.placement import Placement

DAY = 24 * HOUR
TYPE = "application/vnd.sealbus.test.v1"
NOTARY, OTHER_NOTARY, INVENTORY = agent("notary"), agent("archive"), agent("inventory")
SUBJECT = key_book_subject("notary")

FORMER = Issuer(kid="key-0", key=private_key("former issuer"))
"""The issuer of a key that has left the bundle."""
ISSUER = Issuer()


def bundle(*issuers: Issuer) -> bytes:
    return b'{"keys":[' + b",".join(one.jwks()[len(b'{"keys": [') : -2] for one in issuers) + b"]}"


def record(current: int, *issuers: Issuer) -> BundleRecord:
    return BundleRecord(trust_domain=TRUST_DOMAIN, current=current, jwt=bundle(*issuers))


ROTATED = (record(NOW - 3 * DAY, FORMER), record(NOW - DAY, ISSUER))
"""What the notary knows: the key was another until yesterday."""


@dataclass
class Site:
    """A broker with HELD at a time that the test sets, and readers that know these notaries."""

    now: int = NOW
    seconds: float = 0.0
    notaries: Sequence[SpiffeId] = (NOTARY,)
    issuer: Issuer = ISSUER
    revoked: dict[SpiffeId, int] = field(default_factory=dict)
    broker: MemoryBroker = field(init=False)
    book: KeyBook = field(init=False)
    caches: Caches = field(default_factory=Caches)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("HELD", ["held.>"], max_bytes=1 << 28)
        self.book = self.reader()

    def trust(self) -> Trust:
        bundles = TrustBundles([JwtBundle.parse(TRUST_DOMAIN, self.issuer.jwks())])
        return Trust(bundles=bundles, revoked_before=self.revoked)

    def reader(self, transport: Transport | None = None) -> KeyBook:
        """Return the key book as a process reads it that has just started."""
        return KeyBook(
            transport or self.broker.connect(),
            notaries=self.notaries,
            trust=self.trust,
            names=NAMES,
            caches=self.caches,
            clock=BusClock(lambda: self.now),
            monotonic=lambda: self.seconds,
        )

    def held(self, *, current: bool = False) -> Held:
        return Held(
            self.broker.connect(),
            trust=self.trust,
            past=current_only if current else self.book,
            names=NAMES,
            caches=self.caches,
            clock=BusClock(lambda: self.now),
        )

    def sealer(self, who: SpiffeId = NOTARY, issuer: Issuer | None = None) -> Sealer:
        return (issuer or self.issuer).sealer(who, iat=self.now - MINUTE, exp=self.now + HOUR)

    async def write(
        self,
        *records: BundleRecord | PolicyRecord,
        who: SpiffeId = NOTARY,
        issuer: Issuer | None = None,
        payload_type: str = KEY_BOOK_TYPE,
        more: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        """Write a book as `who`, by whose own trust the one before counts."""
        signer = issuer or self.issuer
        trust = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, signer.jwks())]))
        held = Held(
            self.broker.connect(), trust=lambda: trust, names=NAMES, caches=Caches(), clock=BusClock(lambda: self.now)
        )
        subject = key_book_subject(NAMES.token(who))
        before, last = await held.standing(subject, payload_type)
        contents: dict[str, Value] = {"rec": [one.encode() for one in records], **more}
        written = await held.write(subject, contents, payload_type, self.sealer(who, signer), before=before, last=last)
        assert written is not None

    async def keys(self, time: int) -> list[str]:
        """Return the key ids of the trust of `time`."""
        return [",".join(sorted(one.bundles[TRUST_DOMAIN].keys)) for one in await self.book.at(time)]

    async def later(self, micros: int) -> None:
        """Let time pass, and with it what is cached."""
        self.now += micros
        self.seconds += 61.0

    def stored(self) -> Sequence[Delivery]:
        return self.broker.streams["HELD"].stored


async def test_a_value_whose_key_has_left_the_bundle_counts_by_the_key_book_alone() -> None:
    site = Site(now=NOW - 2 * DAY, issuer=FORMER)
    subject = "held.inventory.task.q.00"
    own = site.sealer(INVENTORY)
    await site.held(current=True).write(subject, {"txt": "parked"}, TYPE, own)
    site.now, site.issuer = NOW, ISSUER
    assert await site.held(current=True).newest(subject, TYPE) == {}
    with pytest.raises(StateUnavailable, match="no key book of"):
        await site.held().newest(subject, TYPE)
    await site.write(*ROTATED)
    await site.later(0)
    found = await site.held().newest(subject, TYPE)
    assert found[subject].keys.text("txt") == "parked"
    # Revocations of now hold for the past.
    site.revoked[INVENTORY] = NOW
    assert await site.held().newest(subject, TYPE) == {}


async def test_the_bundles_of_a_time_and_the_next_and_nothing_before_32_days() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW - 2 * DAY) == ["key-0", "key-1"]
    assert await site.keys(NOW) == ["key-1"]
    assert await site.keys(NOW - 32 * DAY) == ["key-0", "key-1"]
    assert await site.keys(NOW - 32 * DAY - 1) == []


async def test_a_time_that_no_book_covers_needs_none() -> None:
    assert await Site().keys(NOW - 33 * DAY) == []


@pytest.mark.parametrize("forger", [INVENTORY, OTHER_NOTARY])
async def test_nobody_but_a_notary_of_the_settings_writes_a_book(forger: SpiffeId) -> None:
    site = Site()
    await site.write(*ROTATED, who=forger)
    [forged] = site.stored()
    # Under its own subject, and, by the broker's doing, under the notary's.
    site.broker.inject(SUBJECT, forged.payload)
    with pytest.raises(StateUnavailable):
        await site.keys(NOW)


async def test_a_book_under_a_key_that_has_left_the_bundle_counts_for_nothing_not_even_by_another_book() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    # Made with an old key of the notary's, and its number is higher.
    await site.later(SECOND)
    site.broker.streams["HELD"].truncate(0)
    forger = Site(now=site.now, issuer=FORMER)
    forger.broker = site.broker
    for _ in range(3):
        await forger.write(record(NOW - 3 * DAY, FORMER), issuer=FORMER)
    assert await site.keys(NOW) == ["key-1"]
    with pytest.raises(StateUnavailable):
        await site.reader().at(NOW)


async def test_a_book_of_another_type_is_none() -> None:
    site = Site()
    await site.write(*ROTATED, payload_type=TYPE)
    with pytest.raises(StateUnavailable):
        await site.keys(NOW)


async def test_a_book_counts_for_three_hours() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    await site.later(3 * HOUR)
    assert await site.keys(NOW) == ["key-1"]
    site.now += 1
    with pytest.raises(StateUnavailable, match="the keys of the past are not known"):
        await site.keys(NOW)
    await site.later(0)
    with pytest.raises(StateUnavailable, match="is too old"):
        await site.keys(NOW)
    await site.write(*ROTATED)
    await site.later(0)
    assert await site.keys(NOW) == ["key-1"]


async def test_a_clock_behind_the_notarys_by_more_than_clocks_may_differ_takes_no_book() -> None:
    site = Site(now=NOW + MINUTE)
    await site.write(*ROTATED)
    site.now = NOW
    assert await site.keys(NOW) == ["key-1"]
    site.now -= 1
    with pytest.raises(StateUnavailable):
        await site.keys(NOW)


async def test_an_older_book_stored_again_does_not_replace_the_one_seen() -> None:
    site = Site()
    await site.write(*ROTATED)
    await site.later(30 * SECOND)
    await site.write(*ROTATED, record(NOW + 1, FORMER, ISSUER))
    assert await site.keys(site.now) == ["key-0,key-1"]
    old, _ = site.stored()
    site.broker.streams["HELD"].truncate(0)
    site.broker.inject(SUBJECT, old.payload)
    await site.later(SECOND)
    assert await site.keys(site.now) == ["key-0,key-1"]
    # It is in force for as long as a book is, and no longer.
    await site.later(3 * HOUR)
    with pytest.raises(StateUnavailable):
        await site.keys(NOW)


async def test_another_book_with_the_number_of_the_one_seen_does_not_replace_it() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    site.broker.streams["HELD"].truncate(0)
    await site.later(SECOND)
    await site.write(record(NOW - DAY, FORMER))
    assert await site.keys(NOW) == ["key-1"]


async def test_a_number_may_begin_again_when_what_was_seen_counts_no_more() -> None:
    site = Site()
    await site.write(*ROTATED)
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    site.broker.streams["HELD"].truncate(0)
    await site.later(3 * HOUR + 1)
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]


@pytest.mark.parametrize(
    ("records", "keys"),
    [
        ((), {}),
        ((), {"rec": "none"}),
        ((), {"rec": [b"junk"]}),
        (ROTATED, {"more": 1}),
        ((ROTATED[0], ROTATED[0]), {}),
        ((PolicyRecord(revision="r", digest=bytes(32), size=1, location="l"),), {}),
        ((*ROTATED, BundleRecord(trust_domain=TRUST_DOMAIN, current=NOW, jwt=b'{"keys":[]}', x509=(b"x",))), {}),
        ((*ROTATED, BundleRecord(trust_domain=TRUST_DOMAIN, current=NOW, jwt=b"no keys")), {}),
    ],
)
async def test_a_book_that_breaks_a_rule_says_nothing(
    records: tuple[BundleRecord, ...], keys: dict[str, Value]
) -> None:
    site = Site()
    await site.write(*records, more=keys)
    with pytest.raises(StateUnavailable, match="is no key book"):
        await site.keys(NOW)


async def test_one_of_several_notaries_is_enough() -> None:
    site = Site(notaries=(OTHER_NOTARY, NOTARY))
    await site.write(*ROTATED)
    assert await site.keys(NOW - 2 * DAY) == ["key-0", "key-1"]
    await site.write(record(NOW - DAY, ISSUER), who=OTHER_NOTARY)
    await site.later(0)
    assert sorted(await site.keys(NOW - 2 * DAY)) == ["key-0", "key-1", "key-1"]


class Counting(MemoryTransport):
    """Counts reads, each of which waits until it may go on."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.reads = 0
        self.since: object = 0
        self.going, self.asked = asyncio.Event(), asyncio.Event()

    async def read(
        self, stream: str, subjects: Sequence[str], **more: object
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        self.reads += 1
        self.asked.set()
        self.since = more["since"]
        await self.going.wait()
        async for batch in super().read(stream, subjects, **more):  # type: ignore[arg-type]  # the same
            yield batch


async def test_it_is_read_once_for_all_who_ask_and_again_after_a_minute() -> None:
    site = Site()
    await site.write(*ROTATED)
    transport = Counting(site.broker)
    book = site.reader(transport)
    asking = [asyncio.create_task(book.at(NOW)) for _ in range(5)]
    await transport.asked.wait()
    transport.going.set()
    assert all([len(await one) == 1 for one in asking])
    assert transport.reads == 1
    # No books that are too old: there is one for each hour of 32 days.
    assert transport.since == NOW - 3 * HOUR - MINUTE
    for seconds, reads in ((59.0, 1), (60.0, 2), (119.0, 2), (120.0, 3)):
        site.seconds = seconds
        await book.at(NOW)
        assert transport.reads == reads


async def test_made_up_values_do_not_each_cost_a_read() -> None:
    site = Site()
    transport = Counting(site.broker)
    transport.going.set()
    book = site.reader(transport)
    for _ in range(3):
        with pytest.raises(StateUnavailable):
            await book.at(NOW)
    assert transport.reads == 1


async def test_a_broker_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WITHIN", 0.0)
    site = Site()
    with pytest.raises(StateUnavailable, match="HELD was not read"):
        await site.reader(Counting(site.broker)).at(NOW)


async def test_who_stops_waiting_leaves_the_next_one_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    await site.write(*ROTATED)
    transport = Counting(site.broker)
    book = site.reader(transport)
    first, second = asyncio.create_task(book.at(NOW)), asyncio.create_task(book.at(NOW))
    await transport.asked.wait()
    first.cancel()
    await asyncio.wait({first})
    transport.going.set()
    assert len(await second) == 1


async def test_while_the_stream_cannot_be_read_what_was_read_counts_on() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    site.broker.streams.pop("HELD")
    await site.later(HOUR)
    assert await site.keys(NOW) == ["key-1"]


TASKS = RestoredStream(stream="TASKS", before=1, created=NOW - DAY, last=7)


def named(*lines: str) -> dict[str, Value]:
    """Return what a book also holds that names restored streams."""
    return {"rst": list(lines)}


async def test_a_book_names_what_was_restored() -> None:
    site = Site()
    await site.write(*ROTATED, more=named(TASKS.line, "EVENTS 1 2 0"))
    assert [one.stream for one in await site.book.restored(TASKS.created)] == ["TASKS", "EVENTS"]
    # And vouches for keys as every book does.
    assert await site.keys(NOW) == ["key-1"]


async def test_a_book_from_before_a_stream_was_created_does_not_say_that_it_was_not_restored() -> None:
    site = Site()
    await site.write(*ROTATED)
    created = site.now + SECOND
    with pytest.raises(StateUnavailable):
        await site.book.restored(created)
    await site.later(SECOND)
    await site.write(*ROTATED)
    assert await site.reader().restored(created) == []
    # A young enough one that names it says so whenever it was written.
    await site.write(*ROTATED, more=named(f"TASKS 1 {created + DAY} 7"))
    assert [one.last for one in await site.reader().restored(created + DAY)] == [7]


async def test_the_notary_of_another_cell_does_not_say_that_nothing_was_restored_here() -> None:
    site = Site(notaries=(NOTARY, OTHER_NOTARY))
    cells = Cells(of={NAMES.token(OTHER_NOTARY): Placement("east")})
    transport = site.broker.connect()
    book = site.reader(CellTransport(transport, lambda: cells, reach=lambda _: transport, owners={}))
    created = site.now
    await site.write(*ROTATED, who=OTHER_NOTARY)
    with pytest.raises(StateUnavailable):
        await book.restored(created)
    await site.write(*ROTATED, more=named(f"TASKS 1 {created} 7"))
    site.seconds += 61.0
    assert [one.last for one in await book.restored(created)] == [7]
    # And if both have written since, and neither names it, it was not restored.
    assert [one.last for one in await book.restored(created - 1)] == [7]


async def test_a_book_that_has_just_been_written_is_looked_for() -> None:
    site = Site()
    await site.write(*ROTATED)
    assert await site.keys(NOW) == ["key-1"]
    site.now += SECOND
    created = site.now
    await site.write(*ROTATED, more=named(f"TASKS 1 {created} 7"))
    # What was read for keys counts for a minute; a stream that it does not know asks again after some seconds.
    with pytest.raises(StateUnavailable):
        await site.book.restored(created)
    site.seconds += 5.0
    assert [one.created for one in await site.book.restored(created)] == [created]


@pytest.mark.parametrize(
    "lines",
    [("TASKS 1 2",), ("TASKS 2 2 7",), ("TASKS 1 2 07",), ("TASKS.> 1 2 7",), ("TASKS 1 2 7",) * 257, ()],
    ids=["cut", "as old", "a zero", "a pattern", "too many", "empty"],
)
async def test_a_book_that_names_what_cannot_be_is_none(lines: tuple[str, ...]) -> None:
    site = Site()
    await site.write(*ROTATED, more=named(*lines))
    with pytest.raises(StateUnavailable, match="whether this stream was restored"):
        await site.book.restored(NOW)
    with pytest.raises(StateUnavailable, match="is no key book"):
        await site.keys(NOW)


@pytest.mark.parametrize("forger", [INVENTORY, OTHER_NOTARY])
async def test_nobody_else_names_restored_streams(forger: SpiffeId) -> None:
    site = Site()
    await site.write(*ROTATED, who=forger, more=named(TASKS.line))
    [forged] = site.stored()
    site.broker.inject(SUBJECT, forged.payload)
    with pytest.raises(StateUnavailable):
        await site.book.restored(TASKS.created)
    await site.write(*ROTATED)
    assert await site.reader().restored(TASKS.created) == []


async def test_an_older_book_stored_again_takes_nothing_back_and_a_former_notarys_adds_nothing() -> None:
    site = Site()
    await site.write(*ROTATED)
    [older] = site.stored()
    await site.write(*ROTATED, more=named(TASKS.line))
    site.broker.inject(SUBJECT, older.payload)
    assert await site.reader().restored(TASKS.created) == [TASKS]
    # Under a key that has left the bundle.
    forger = Site(now=site.now, issuer=FORMER)
    forger.broker = site.broker
    await forger.write(record(NOW - 3 * DAY, FORMER), issuer=FORMER, more=named("EVENTS 1 2 3"))
    assert await site.reader().restored(TASKS.created) == [TASKS]


async def test_a_book_of_three_hours_ago_says_nothing_of_streams() -> None:
    site = Site()
    await site.write(*ROTATED, more=named(TASKS.line))
    await site.later(3 * HOUR + 1)
    with pytest.raises(StateUnavailable):
        await site.book.restored(TASKS.created)
