"""The audit stream read back: records joined, filtered, and read on from where the reader was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop, Update

from sealbus.bus.audit.trail import AuditEntry, AuditFilter, AuditTrail
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    """Return a bus with one task allowed, for alice, and one denied, for bob."""
    engine = ScriptedEngine(lambda one: allow() if one["context"]["user"]["id"] == "alice" else deny("not_owner"))
    async with TestBus(Shop().inventory, engine=engine) as running:
        client = await running.client("shop-web")
        for user in ("alice", "bob"):
            await client.submit("inventory.update", Update(item_id="42"), user=running.user(user, "shop-web"))
            await running.idle()
        await running.audit()
        yield running


@pytest.fixture
def trail(bus: TestBus) -> AuditTrail:
    return trail_of(bus)


def trail_of(bus: TestBus) -> AuditTrail:
    return AuditTrail(
        transport=bus.broker.connect(),
        profile=ArchiveProfile(names=bus.names, minters=bus.deployment.minters),
        bundles=bus.edge.bundles,
    )


async def read(trail: AuditTrail, wanted: AuditFilter | None = None) -> list[AuditEntry]:
    return [one async for one in trail.entries(wanted) if isinstance(one, AuditEntry)]


async def test_an_outcome_is_joined_with_its_decision(trail: AuditTrail) -> None:
    entries = await read(trail)
    decisions = [one for one in entries if isinstance(one.record, DecisionRecord)]
    (outcome,) = [one for one in entries if isinstance(one.record, OutcomeRecord)]
    assert len(decisions) == 2
    assert outcome.decision == decisions[0].record
    assert outcome.decided is not None
    assert outcome.decided.to == "task.inventory.update"
    assert outcome.recorder.value == "spiffe://example.org/agent/inventory"
    assert outcome.input == decisions[0].input != {}


async def test_a_second_reading_goes_on(trail: AuditTrail) -> None:
    assert await read(trail)
    assert await read(trail) == []


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (AuditFilter(), 3),
        (AuditFilter(decision="allow"), 2),
        (AuditFilter(decision="deny"), 1),
        (AuditFilter(user="bob"), 1),
        (AuditFilter(user="mallory"), 0),
        (AuditFilter(agent="inventory"), 3),
        (AuditFilter(agent="pricing"), 0),
        (AuditFilter(subject="task.inventory.update"), 3),
        (AuditFilter(subject="task.inventory.order"), 0),
        (AuditFilter(until=1), 0),
        (AuditFilter(since=2**62), 0),
    ],
)
async def test_a_filter_shows_what_it_says(trail: AuditTrail, wanted: AuditFilter, count: int) -> None:
    assert len(await read(trail, wanted)) == count


async def test_one_message_is_found_by_its_id_and_its_hash(bus: TestBus) -> None:
    first = next(one for one in await read(trail_of(bus)) if one.record.kind == "decision")
    assert first.decided is not None
    for name in (first.decided.id, first.decided.digest):
        found = await read(trail_of(bus), AuditFilter(message=name))
        assert [one.record.kind for one in found] == ["decision", "outcome"]
        assert {one.decided for one in found} == {first.decided}
    assert await read(trail_of(bus), AuditFilter(message=bytes(16))) == []


async def test_everything_that_one_request_of_a_user_caused_is_found(bus: TestBus) -> None:
    everything = await read(trail_of(bus))
    transactions = {one.txn for one in everything}
    assert len(transactions) == 2
    for txn in transactions:
        found = await read(trail_of(bus), AuditFilter(txn=txn))
        assert [one.leaf for one in found] == [one.leaf for one in everything if one.txn == txn]
    assert await read(trail_of(bus), AuditFilter(txn=bytes(16))) == []


async def test_a_chain_is_the_message_and_what_followed_from_it_and_nothing_else() -> None:
    """A task that makes a call, whose answer is decided on, and emits an event, beside another task that does the same."""
    shop = Shop()
    async with TestBus(shop.inventory, shop.pricing, engine=ScriptedEngine()) as running:
        client = await running.client("shop-web")
        handles = [await client.submit("inventory.order", Update(item_id=name)) for name in ("1", "2")]
        await running.idle()
        everything = [one for one in await running.audit() if one.decided is not None]
        first = await read(trail_of(running), AuditFilter(chain=handles[0].digest))
        second = await read(trail_of(running), AuditFilter(chain=handles[1].digest))
        decided = [one for one in first if isinstance(one.record, DecisionRecord)]
        subjects = [one.decided.to.split(".")[0] for one in decided if one.decided is not None]
        assert subjects == ["task", "call", "_INBOX", "event"]
        call = decided[1].decided
        assert call is not None
        below = await read(trail_of(running), AuditFilter(chain=call.digest))
        assert {one.decided.to.split(".")[0] for one in below if one.decided is not None} == {"call", "_INBOX"}
        assert {one.leaf for one in below} < {one.leaf for one in first}
        assert {one.leaf for one in first}.isdisjoint(one.leaf for one in second)
        assert {one.leaf for one in (*first, *second)} == {one.leaf for one in everything}
        await running.assert_allowed("inventory.order")


async def test_a_chain_that_is_too_long_to_follow_is_not_cut_off(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = await read(trail_of(bus))
    assert first.decided is not None
    monkeypatch.setattr("sealbus.bus.audit.trail.FOLLOWING", 0)
    with pytest.raises(ConfigurationError, match="later message"):
        await read(trail_of(bus), AuditFilter(chain=first.decided.digest))


@pytest.mark.parametrize(
    "document",
    [b"[" * 65_000, b'{"a":' * 10_000 + b"}", b'{"context":[{}]}', b"7", b"\xff", b'{"context":{"user":null}}'],
)
async def test_an_input_that_nobody_can_read_ends_no_reading(trail: AuditTrail, document: bytes) -> None:
    entry = (await read(trail))[0]
    assert isinstance(entry.record, DecisionRecord)
    hostile = replace(entry, record=entry.record._replace(input=document))
    assert hostile.input in ({}, {"context": [{}]}, {"context": {"user": None}})
    assert not AuditFilter(user="alice").matcher()(hostile)
    assert AuditFilter().matcher()(hostile)


async def test_a_decision_comes_with_the_message_that_it_proves(trail: AuditTrail) -> None:
    decisions = [one for one in await read(trail) if isinstance(one.record, DecisionRecord)]
    assert [one.message.context.sub for one in decisions if one.message and one.message.context] == ["alice", "bob"]
    assert all(one.message is not None and one.message.header == one.decided for one in decisions)
