"""The example agents work with what the auth callout grants them, and nothing that they do is refused by the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.callout import callout_site
from support.callout_shop import CalloutShop, callout_shop
from support.lab import until
from support.policies import eventually

from sealbus import Denied
from sealbus.agents.examples import inventory, planner, pricing
from sealbus.agents.examples.planner import Line, Plan, Proposal
from sealbus.agents.examples.store import DATABASE_VARIABLE
from sealbus.bus.audit.trail import AuditEntry, AuditTrail
from sealbus.envelopes.records.archive import ArchiveProfile
from sealbus.envelopes.records.decision import DecisionRecord

pytestmark = [pytest.mark.nats]

WITHIN = 60.0


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CalloutShop]:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    async with (
        callout_site(tmp_path, responders=2) as site,
        callout_shop(site, pricing.agent, inventory.agent, planner.agent) as running,
    ):
        yield running
        assert running.violations() == []


async def decided(shop: CalloutShop, action: str) -> list[bool]:
    """Return what was decided about `action`, as the operator reads it from the audit stream."""
    operator = shop.nodes.get("operator") or await shop.node("operator")
    trail = AuditTrail(
        transport=operator.transport,
        profile=ArchiveProfile(names=operator.deployment.names, minters=operator.deployment.minters),
        bundles=operator.identity.bundles,
    )
    found = [one.record async for one in trail.entries() if isinstance(one, AuditEntry)]
    return [one.allow for one in found if isinstance(one, DecisionRecord) and one.action == action]


async def closed() -> bool:
    """Say whether the planner has no open order."""
    return await planner.store.row("SELECT count(*) AS open FROM orders") == {"open": 0}


async def test_calls_over_three_hops(shop: CalloutShop) -> None:
    client = await shop.client("shop-web")
    async with asyncio.timeout(WITHIN):
        body = Plan(item_ids=["42", "77"], quantity=12)
        found = await client.call(planner.plan, body, user=shop.user("alice", "shop-web"))
    assert found.lines == [Line(item_id="42", missing=2), Line(item_id="77", refused=True)]


async def test_a_task_its_status_its_events_and_what_is_recorded_of_it(shop: CalloutShop) -> None:
    client = await shop.client("shop-web")
    async with asyncio.timeout(WITHIN):
        body = Plan(item_ids=["42"], quantity=12)
        handle = await client.submit("planner.replan", body, user=shop.user("alice", "shop-web"))
        assert await handle.result(Proposal) == Proposal(lines=[Line(item_id="42", missing=2)])
        # The order goes to the inventory, whose event closes it at the planner.
        await eventually(closed)
        assert await decided(shop, "planner.replan") == [True]
        assert await decided(shop, "inventory.update") == [True]


async def test_the_policy_still_decides_about_each_message(shop: CalloutShop) -> None:
    client = await shop.client("shop-web")
    async with asyncio.timeout(WITHIN):
        with pytest.raises(Denied):
            await client.call(planner.plan, Plan(item_ids=["42"], quantity=12))
        assert await decided(shop, "planner.plan") == [False]


async def test_workers_go_on_while_their_certificates_are_renewed(shop: CalloutShop) -> None:
    client = await shop.client("shop-web")
    async with asyncio.timeout(WITHIN):
        for name in ("planner", "inventory", "pricing", "shop-web"):
            shop.identities[name].rotate()
        body = Plan(item_ids=["42"], quantity=12)
        for _ in range(20):
            found = await client.call(planner.plan, body, user=shop.user("alice", "shop-web"))
            assert found.lines == [Line(item_id="42", missing=2)]
        await until(
            lambda: all("sealbus_bus_rotations_total 1" in one.render() for one in shop.counters.values()), seconds=10
        )
