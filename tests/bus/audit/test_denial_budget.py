"""Budgets of recorded denials: what is over them is counted by issuer, code and minute, and handled no more for that."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Price, Shop, Update

from sealbus import Denied
from sealbus.bus.audit import denial_budget as module
from sealbus.bus.audit.denial_budget import Denials
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.clocks import BusClock
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, DenialsRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.testing import TestBus

ALICE = SpiffeId("spiffe://example.org/agent/alice")
BOB = SpiffeId("spiffe://example.org/agent/bob")
START = 1_000_000 * MINUTE


@dataclass
class Book:
    """Denials on a clock that a test sets, and what they stored."""

    budget: int = 2
    issuers: int = 4
    now: int = START
    stored: list[DenialsRecord] = field(default_factory=list)
    counters: Counters = field(default_factory=Counters)
    denials: Denials = field(init=False)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is clear, nothing can be stored."""

    def __post_init__(self) -> None:
        self.open.set()
        self.denials = Denials(
            store=self.store,
            counters=self.counters,
            budget=self.budget,
            issuers=self.issuers,
            clock=BusClock(lambda: self.now),
        )

    async def store(self, record: DenialsRecord) -> None:
        self.reached.set()
        await self.open.wait()
        self.stored.append(record)

    def deny(self, count: int, issuer: SpiffeId = ALICE, code: Code = Code.DENIED) -> list[bool]:
        return [self.denials.only_counted(issuer, code) for _ in range(count)]


async def test_within_the_budget_each_is_recorded_and_nothing_counted() -> None:
    book = Book()
    assert book.deny(2) == [False, False]
    await book.denials.flush(closing=True)
    assert book.stored == []


async def test_beyond_it_they_are_counted_by_issuer_and_code() -> None:
    book = Book()
    assert book.deny(4) == [False, False, True, True]
    assert book.deny(1, code=Code.BAD_BODY) == [True]
    assert book.deny(3, BOB) == [False, False, True]
    await book.denials.flush(closing=True)
    assert [(one.iss, one.minute, dict(one.counts)) for one in book.stored] == [
        (ALICE, START, {Code.DENIED: 2, Code.BAD_BODY: 1}),
        (BOB, START, {Code.DENIED: 1}),
    ]


async def test_a_minute_that_goes_on_is_not_stored_yet() -> None:
    book = Book()
    book.deny(3)
    book.now += MINUTE - 1
    await book.denials.flush()
    assert book.stored == []
    book.now += 1
    await book.denials.flush()
    assert [one.minute for one in book.stored] == [START]


async def test_each_minute_has_a_budget_and_a_record_of_its_own() -> None:
    book = Book()
    book.deny(3)
    book.now += MINUTE
    assert book.deny(3) == [False, False, True]
    await book.denials.flush(closing=True)
    assert [(one.minute, one.counts[Code.DENIED]) for one in book.stored] == [(START, 1), (START + MINUTE, 1)]


async def test_what_is_read_again_is_counted_in_one_record_of_the_minute() -> None:
    book = Book(budget=1)
    assert [book.denials.counted_again(ALICE, None) for _ in range(300)] == [True] * 300
    assert book.denials.counted_again(BOB, None)
    assert book.denials.counted_again(ALICE, Code.DENIED)
    # It takes nothing of the budget of denials, and is no denial.
    assert book.deny(2) == [False, True]
    assert "sealbus_reads_counted_total 302" in book.counters.render()
    assert 'sealbus_denials_counted_total{code="denied"} 1' in book.counters.render()
    book.now += MINUTE
    await book.denials.flush()
    assert [(one.iss, dict(one.counts), one.allowed, one.denied) for one in book.stored] == [
        (ALICE, {"denied": 2}, 0, 2),
        (ALICE, {READ_AGAIN: 300}, 300, 0),
        (BOB, {READ_AGAIN: 1}, 1, 0),
    ]
    assert book.denials.counted_again(ALICE, None)
    await book.denials.flush(closing=True)
    assert (book.stored[-1].minute, dict(book.stored[-1].counts)) == (START + MINUTE, {READ_AGAIN: 1})


async def test_answers_of_issuers_beyond_memory_are_not_counted() -> None:
    book = Book()
    for number in range(4):
        assert book.denials.counted_again(SpiffeId(f"spiffe://example.org/agent/a{number}"), None)
    assert not book.denials.counted_again(BOB, None)


async def test_issuers_beyond_memory_are_all_recorded() -> None:
    book = Book(budget=1)
    for number in range(4):
        book.deny(1, SpiffeId(f"spiffe://example.org/agent/a{number}"))
    assert book.deny(5, BOB) == [False] * 5
    await book.denials.flush(closing=True)
    assert book.stored == []


async def test_what_waits_for_a_stream_that_is_away_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    book = Book(budget=1)
    for _ in range(4):
        book.deny(3)
        book.now += MINUTE
    await book.denials.flush()
    assert [one.minute for one in book.stored] == [START, START + MINUTE]
    assert "sealbus_denials_lost_total 4" in book.counters.render()


async def test_a_store_that_is_interrupted_keeps_the_record() -> None:
    book = Book()
    book.deny(3)
    book.now += MINUTE
    book.open.clear()
    storing = asyncio.ensure_future(book.denials.flush())
    await book.reached.wait()
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    book.open.set()
    await book.denials.flush(closing=True)
    assert len(book.stored) == 1


async def test_the_end_of_a_minute_is_enough_to_have_it_stored() -> None:
    """Nothing more arrives: the count must not wait for the next denial."""
    began = time.monotonic()
    stored: asyncio.Queue[DenialsRecord] = asyncio.Queue()
    denials = Denials(
        store=stored.put,
        counters=Counters(),
        budget=0,
        issuers=1,
        clock=BusClock(lambda: START + MINUTE - SECOND // 20 + int((time.monotonic() - began) * SECOND)),
    )
    assert denials.only_counted(ALICE, Code.DENIED)
    running = asyncio.ensure_future(denials.store_minutes())
    async with asyncio.timeout(60):
        record = await stored.get()
    running.cancel()
    assert (record.minute, dict(record.counts)) == (START, {Code.DENIED: 1})


# Through the gate


async def denied_tasks(bus: TestBus, count: int) -> None:
    client = await bus.client("shop-web")
    for number in range(count):
        await client.submit("inventory.update", Update(item_id=str(number)))
    await bus.idle()


async def test_a_flood_of_denied_tasks_is_never_handled_and_counted_in_one_record() -> None:
    shop, engine = Shop(), ScriptedEngine(lambda _: deny("no"))
    async with TestBus(shop.inventory, engine=engine, audit_limits=AuditLimits(denials=3)) as bus:
        await denied_tasks(bus, 10)
        assert shop.handled == []
        assert all(pull.idle for pull in bus.broker.consumers.values())
        engine.verdict = lambda _: allow()
        await denied_tasks(bus, 1)
        assert shop.handled == [("0", 1)]
    records = [one.record for one in await bus.audit()]
    decisions = [one for one in records if isinstance(one, DecisionRecord)]
    counted = [one for one in records if isinstance(one, DenialsRecord)]
    # The flood may meet the end of a minute, which gives it another budget and another record.
    recorded = sum(not one.allow for one in decisions)
    assert recorded in (3, 6)
    assert sum(one.counts[Code.DENIED] for one in counted) == 10 - recorded
    assert {one.iss.path for one in counted} == {"/agent/shop-web"}
    assert sum(one.allow for one in decisions) == 1


async def test_a_call_beyond_the_budget_is_answered_like_any_other() -> None:
    shop = Shop()
    engine = ScriptedEngine(lambda one: allow() if one["action"]["name"].endswith(".reply") else deny("no"))
    async with TestBus(shop.pricing, engine=engine, audit_limits=AuditLimits(denials=0)) as bus:
        client = await bus.client("shop-web")
        for _ in range(3):
            with pytest.raises(Denied):
                await client.call("pricing.quote", Update(item_id="1"), returns=Price)
        assert shop.handled == []
    records = [one.record for one in await bus.audit()]
    assert sum(one.counts[Code.DENIED] for one in records if isinstance(one, DenialsRecord)) == 3
    assert not [one for one in records if isinstance(one, DecisionRecord) and not one.allow]
