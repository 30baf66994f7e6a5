"""A node: one identity's parts, opened together and closed in order, with what waits sent first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.shop import Update

from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import AuditOptions, Deployment, Feeds, Host, Node
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.clocks import HostClock, wall_clock
from sealbus.bus.nats import clock_difference
from sealbus.bus.streams.held import current_only
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, StateUnavailable
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.testing import TestBus


def node_on(bus: TestBus, spiffe_id: SpiffeId, **more: object) -> Node:
    return Node(
        deployment=bus.deployment,
        identity=MemoryIdentity(bus.authority, spiffe_id),
        transport=bus.broker.connect(),
        engine=ScriptedEngine(),
        **more,  # type: ignore[arg-type]  # said by each test
    )


async def test_its_token_is_its_name_or_stands_for_its_id() -> None:
    bus = TestBus(engine=ScriptedEngine())
    assert node_on(bus, bus.names.id_of("shop")).token == "shop"
    nameless = node_on(bus, TrustDomain("example.org").id("/other/workload"))
    assert nameless.token.startswith("id-")


async def test_it_sends_while_entered_and_no_longer() -> None:
    bus = TestBus(engine=ScriptedEngine())
    node = node_on(bus, bus.names.id_of("shop"))
    async with asyncio.timeout(60):
        async with node:
            await Client.on(node).submit("inventory.update", Update(item_id="1"))
        with pytest.raises(BusUnavailable):
            await Client.on(node).submit("inventory.update", Update(item_id="2"))
    assert len(bus.stored("TASKS")) == 1


async def test_leaving_publishes_refusals_and_stops_every_part() -> None:
    bus = TestBus(engine=ScriptedEngine())
    node = node_on(bus, bus.names.id_of("shop"))
    before = asyncio.all_tasks()
    async with node:
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_leaving_with_an_error_passes_it_on() -> None:
    bus = TestBus(engine=ScriptedEngine())
    before = asyncio.all_tasks()
    with pytest.raises(ValueError, match="mine"):
        async with node_on(bus, bus.names.id_of("shop")):
            raise ValueError("mine")
    assert asyncio.all_tasks() == before


async def test_trust_is_what_the_identity_gives_now() -> None:
    bus = TestBus(engine=ScriptedEngine())
    node = node_on(bus, bus.names.id_of("shop"), audit=AuditOptions(limits=AuditLimits(within=1.0)))
    assert node.trust().bundles == node.identity.bundles()
    assert node.connected()


def test_a_deployment_has_no_minters_and_no_own_subjects_unless_said() -> None:
    deployment = Deployment(names=TestBus(engine=ScriptedEngine()).names)
    assert (deployment.minters, deployment.notaries) == (frozenset(), frozenset())
    assert deployment.lifetimes == DEFAULT_LIFETIMES
    assert dict(deployment.own_subjects) == {}


async def test_revocations_by_time_are_those_of_the_moment_and_cost_nothing_while_they_stay() -> None:
    bus = TestBus(engine=ScriptedEngine())
    planner = bus.names.id_of("planner")
    now: dict[SpiffeId, int] = {}
    node = node_on(bus, bus.names.id_of("shop"), feeds=Feeds(revoked_before=lambda: now))
    before = node.trust()
    assert (before.revoked_before, before.bundles) == ({}, node.identity.bundles())
    assert node.trust() is before
    now = {planner: 5}
    assert node.trust().revoked_before == {planner: 5}


async def test_what_it_holds_counts_by_the_key_book_of_the_deployments_notary_when_its_key_is_gone() -> None:
    bus = TestBus(engine=ScriptedEngine())
    shop, notary = bus.names.id_of("shop"), bus.names.id_of("notary")
    alone = node_on(bus, shop)
    assert alone.past is current_only
    sealer = MemoryIdentity(bus.authority, shop).sealer()
    await alone.held.write("held.shop.task.q.00", {}, "t", sealer)
    assert list(await alone.held.newest("held.shop.>", "t")) == ["held.shop.task.q.00"]
    history = TrustHistory([record_of(bus)])
    bus.authority.prepare_jwt()
    bus.authority.activate_jwt()
    bus.authority.prune_jwt()
    history.add(record_of(bus))
    assert await alone.held.newest("held.shop.>", "t") == {}
    bus.deployment = replace(bus.deployment, notaries=frozenset({notary}))
    with pytest.raises(StateUnavailable):
        await node_on(bus, shop).held.newest("held.shop.>", "t")
    writer = KeyBookWriter(
        identity=MemoryIdentity(bus.authority, notary),
        transport=bus.broker.connect(),
        names=bus.names,
        clock=wall_clock,
    )
    writing = asyncio.create_task(writer.write_books(history))
    await until(lambda: len(bus.stored("HELD")) == 2)
    writing.cancel()
    assert list(await node_on(bus, shop).held.newest("held.shop.>", "t")) == ["held.shop.task.q.00"]


def record_of(bus: TestBus) -> BundleRecord:
    [(domain, jwks)] = bus.authority.jwt_bundles().items()
    return BundleRecord(trust_domain=domain, current=wall_clock(), jwt=jwks)


async def test_the_brokers_time_is_asked_about_the_period_that_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = TestBus(engine=ScriptedEngine())
    node = node_on(bus, bus.names.id_of("shop"))
    assert await node.clocks.settle() is None
    asked: list[str] = []
    names = iter(["NEXT"])

    async def broker_time(stream: str) -> int:
        asked.append(stream)
        if stream == "AUDIT":
            raise ConfigurationError("stream AUDIT does not exist")
        return node.clock()

    async def audit_stream() -> tuple[str, int]:
        return next(names), 0

    monkeypatch.setattr(node.transport, "broker_time", broker_time)
    monkeypatch.setattr(node.transport, "audit_stream", audit_stream)
    monkeypatch.setattr(clock_difference, "EVERY", 0.0)
    monkeypatch.setattr(clock_difference, "AGAIN", 0.0)
    monkeypatch.setattr(clock_difference, "LOOK", 0.0)
    apart = asyncio.ensure_future(node.clocks.disagree())
    await until(lambda: "NEXT" in asked)
    apart.cancel()
    assert asked[0] == "AUDIT"


async def test_what_it_seals_while_its_clock_is_wrong_can_be_read() -> None:
    """The handler was running when the clock was set: its result must not be lost with that."""
    bus = TestBus(engine=ScriptedEngine())
    wrong = [0]
    node = node_on(bus, bus.names.id_of("shop"), host=Host(clock=HostClock(lambda: wall_clock() + wrong[0])))
    async with node:
        assert await node.clocks.settle() is None
        for wrong[0] in (3_600 * SECOND, -3_600 * SECOND):
            await Client.on(node).submit("inventory.update", Update(item_id="1"))
    for one in bus.stored("TASKS"):
        assert one.arrival is not None
        assert abs(parse_header(parse_envelope(one.payload).header).iat - one.arrival.stored) < SECOND
