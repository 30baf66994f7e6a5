"""The audit stream read back: records joined, filtered, and read on from where the reader was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop, Update

from sealbus.bus.audit.trail import AuditEntry, AuditFilter, AuditTrail
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


@pytest.mark.parametrize(
    "document",
    [b"[" * 65_000, b'{"a":' * 10_000 + b"}", b'{"context":[{}]}', b"7", b"\xff", b'{"context":{"user":null}}'],
)
async def test_an_input_that_nobody_can_read_ends_no_reading(trail: AuditTrail, document: bytes) -> None:
    entry = (await read(trail))[0]
    assert isinstance(entry.record, DecisionRecord)
    hostile = replace(entry, record=entry.record._replace(input=document))
    assert hostile.input in ({}, {"context": [{}]}, {"context": {"user": None}})
    assert not AuditFilter(user="alice").wants(hostile)
    assert AuditFilter().wants(hostile)


async def test_a_decision_comes_with_the_message_that_it_proves(trail: AuditTrail) -> None:
    decisions = [one for one in await read(trail) if isinstance(one.record, DecisionRecord)]
    assert [one.message.context.sub for one in decisions if one.message and one.message.context] == ["alice", "bob"]
    assert all(one.message is not None and one.message.header == one.decided for one in decisions)
