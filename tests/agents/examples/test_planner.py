"""The planner example: three hops in the policy's input, rights that a hop narrows, and orders that are placed once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.policies import eventually
from support.restarted import restarted

from sealbus import Denied
from sealbus.agents.examples import inventory, planner, pricing
from sealbus.agents.examples.planner import Line, Plan, Proposal
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus

SHOP_WEB, PLANNER, INVENTORY = (f"spiffe://example.org/agent/{name}" for name in ("shop-web", "planner", "inventory"))

COUNT = "SELECT count(*) AS open FROM orders"


async def plan(shop: TestBus, user: str, *item_ids: str, quantity: int = 12) -> Proposal:
    client = await shop.client("shop-web")
    body = Plan(item_ids=list(item_ids), quantity=quantity)
    return await client.call(planner.plan, body, user=shop.user(user, "shop-web"))


async def replan(shop: TestBus, user: str, *item_ids: str, quantity: int = 12) -> Proposal:
    client = await shop.client("shop-web")
    body = Plan(item_ids=list(item_ids), quantity=quantity)
    handle = await client.submit("planner.replan", body, user=shop.user(user, "shop-web"))
    return await handle.result(Proposal, timeout=60)


async def asked(shop: TestBus, action: str) -> list[dict[str, Any]]:
    """Return what the policy was asked about `action`, in order."""
    return [json.loads(one.input) for one in await shop.decisions(action) if one.input is not None]


async def test_three_hops_stand_in_the_policys_input(shop: TestBus) -> None:
    assert await plan(shop, "alice", "42") == Proposal(lines=[Line(item_id="42", missing=2)])
    (quote,) = await asked(shop, "pricing.quote")
    assert quote["subject"]["id"] == INVENTORY
    assert quote["context"]["chain"] == [SHOP_WEB, PLANNER, INVENTORY]
    assert quote["context"]["user"]["id"] == "alice"
    (read,) = await asked(shop, "inventory.read")
    assert read["context"]["chain"] == [SHOP_WEB, PLANNER]


async def test_what_the_planner_starts_may_end_in_a_price_and_nothing_else(shop: TestBus) -> None:
    await plan(shop, "alice", "42")
    (quote,) = await asked(shop, "pricing.quote")
    assert quote["context"]["grant"] == {"limited": True, "actions": ["pricing.quote"]}
    (read,) = await asked(shop, "inventory.read")
    assert read["context"]["grant"] == {"limited": False, "actions": []}


async def test_the_user_learns_nothing_about_anothers_item(shop: TestBus) -> None:
    found = await plan(shop, "alice", "42", "77")
    assert found.lines == [Line(item_id="42", missing=2), Line(item_id="77", refused=True)]
    await shop.assert_denied("inventory.read", reason="not_owner")


@pytest.mark.parametrize(("user", "missing"), [("alice", 2), ("bob", 2), ("carol", 0)])
async def test_owner_and_manager_are_told(shop: TestBus, user: str, missing: int) -> None:
    (line,) = (await plan(shop, user, "42")).lines
    assert (line.missing, line.refused) == (missing, missing == 0)


async def test_the_policy_limits_a_plan(shop: TestBus) -> None:
    with pytest.raises(Denied) as caught:
        await plan(shop, "alice", "42", quantity=101)
    assert caught.value.reasons == ("over_limit",)
    assert await asked(shop, "inventory.read") == []


async def test_a_plan_is_for_a_user(shop: TestBus) -> None:
    client = await shop.client("shop-web")
    with pytest.raises(Denied) as caught:
        await client.call(planner.plan, Plan(item_ids=["42"], quantity=12))
    assert caught.value.reasons == ("user_required",)


async def test_a_plan_changes_nothing(shop: TestBus) -> None:
    await plan(shop, "alice", "42")
    assert shop.stored("TASKS") == []
    assert await planner.store.row(COUNT) == {"open": 0}


async def test_what_is_missing_is_ordered_and_the_order_closed_by_the_update(shop: TestBus) -> None:
    found = await replan(shop, "alice", "42")
    assert found == Proposal(lines=[Line(item_id="42", missing=2)])
    await shop.idle()
    await shop.assert_allowed("inventory.update")
    (update,) = await asked(shop, "inventory.update")
    assert update["context"]["chain"] == [SHOP_WEB, PLANNER]
    assert update["context"]["user"]["id"] == "alice"
    assert [one["context"]["chain"] for one in await asked(shop, "pricing.quote")] == [
        [SHOP_WEB, PLANNER, INVENTORY]
    ] * 2
    row = await inventory.store.row("SELECT quantity FROM items WHERE item_id = ?", "42")
    assert row == {"quantity": 12}
    await shop.idle()
    await shop.assert_allowed("inventory.updated")
    assert await planner.store.row(COUNT) == {"open": 0}


async def test_an_order_that_the_inventory_denies_stays_open(shop: TestBus) -> None:
    await replan(shop, "alice", "43")
    await shop.idle()
    await shop.assert_denied("inventory.update", reason="outside_business_hours")
    assert await planner.store.row(COUNT) == {"open": 1}


async def test_nothing_is_ordered_where_nothing_is_missing_or_the_user_may_not(shop: TestBus) -> None:
    found = await replan(shop, "carol", "42", "77", quantity=10)
    assert found.lines == [Line(item_id="42", refused=True), Line(item_id="77")]
    await shop.idle()
    assert await asked(shop, "inventory.update") == []


async def test_a_task_that_comes_again_after_a_restart_orders_nothing_more(kept: Path) -> None:
    agents = (inventory.agent, pricing.agent, planner.agent)
    async with TestBus(*agents) as first:
        await replan(first, "alice", "43")
        await first.idle()
    async with restarted(first, *agents) as shop:
        shop.broker.consumers["TASKS", "planner"].rewind()
        await shop.idle()
        await shop.idle()  # for a task that it would have ordered
        assert len(await asked(shop, "planner.replan")) == 2
        assert len(await asked(shop, "inventory.update")) == 1


async def test_a_stocktake_that_is_canceled_stops_three_agents_and_keeps_what_was_counted(shop: TestBus) -> None:
    client, alice = await shop.client("shop-web"), shop.user("alice", "shop-web")
    body = planner.Stocktake(
        items=[inventory.Count(item_id="42", seconds=0), inventory.Count(item_id="43", seconds=25)]
    )
    handle = await client.submit(planner.stocktake, body, user=alice)

    async def at_the_second() -> bool:
        return len(await asked(shop, "pricing.appraise")) == 2

    await eventually(at_the_second)
    await handle.cancel("counted enough", user=alice)
    with pytest.raises(RemoteError) as caught:
        await handle.result()
    assert (caught.value.code, caught.value.note) == ("canceled", "counted enough")
    await shop.idle()
    counted = await inventory.store.row("SELECT count(*) AS lines, max(item_id) AS item_id FROM stocktakes")
    assert counted == {"lines": 1, "item_id": "42"}

    entries = await shop.audit()
    outcomes = Counter(
        (one.decision.action, one.record.code)
        for one in entries
        if isinstance(one.record, OutcomeRecord) and one.decision is not None
    )
    assert outcomes == {
        ("pricing.appraise", None): 1,
        ("inventory.stocktake", None): 1,
        ("pricing.appraise", "canceled"): 1,
        ("inventory.stocktake", "canceled"): 1,
        ("planner.stocktake", "canceled"): 1,
        ("planner._cancel", None): 1,
    }
    [told] = [
        one for one in entries if isinstance(one.record, DecisionRecord) and one.record.action == "planner._cancel"
    ]
    assert told.decided is not None
    assert (told.decided.iss.value, told.decided.re) == (SHOP_WEB, handle.digest)
    [document] = await asked(shop, "planner._cancel")
    assert document["context"]["user"]["id"] == "alice"
    assert document["resource"]["id"] == handle.digest.hex()


async def test_who_may_not_count_an_item_stops_at_it(shop: TestBus) -> None:
    client = await shop.client("shop-web")
    body = planner.Stocktake(items=[inventory.Count(item_id="77", seconds=0)])
    handle = await client.submit(planner.stocktake, body, user=shop.user("alice", "shop-web"))
    with pytest.raises(Denied):
        await handle.result()
    await shop.assert_denied("inventory.stocktake", reason="not_owner")
