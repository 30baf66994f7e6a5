"""The inventory example under the starter policy: allowed, denied for each reason, and done once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.restarted import restarted

from sealbus import Denied
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Code
from sealbus.testing import TestBus


async def submit(shop: TestBus, user: str, item_id: str = "42", quantity: int = 3) -> TaskHandle:
    """Submit an update for `user` and wait until it was decided and done."""
    client = await shop.client("shop-web")
    body = inventory.Update(item_id=item_id, quantity=quantity)
    handle = await client.submit("inventory.update", body, user=shop.user(user, "shop-web"))
    await shop.idle()
    return handle


async def stock(shop: TestBus, user: str = "alice", item_id: str = "42") -> inventory.Stock:
    client = await shop.client("shop-web")
    return await client.call(inventory.read, inventory.Read(item_id=item_id), user=shop.user(user, "shop-web"))


async def test_the_owner_updates_an_item(shop: TestBus) -> None:
    handle = await submit(shop, "alice")
    await shop.assert_allowed("inventory.update")
    assert await handle.result(inventory.Stock) == inventory.Stock(item_id="42", quantity=3, cents=5_997)
    assert await stock(shop) == inventory.Stock(item_id="42", quantity=3, cents=5_997)


async def test_an_update_is_an_event_with_neither_user_nor_chain(shop: TestBus) -> None:
    await submit(shop, "alice")
    (event,) = [entry for entry in await shop.audit() if entry.input and _action(entry.input) == "inventory.updated"][
        :1
    ]
    context = event.input["context"]
    assert isinstance(context, dict)
    assert context["user"]["present"] is False
    assert context["chain"] == ["spiffe://example.org/agent/inventory"]


async def test_the_manager_of_a_customer_updates_its_item(shop: TestBus) -> None:
    await submit(shop, "bob")
    await shop.assert_allowed("inventory.update")
    assert (await stock(shop, "bob")).quantity == 3


@pytest.mark.parametrize(
    ("user", "item_id", "quantity", "reason"),
    [
        ("carol", "42", 3, "not_owner"),
        ("bob", "77", 3, "not_owner"),
        ("alice", "42", 101, "over_limit"),
        ("alice", "42", -1, "over_limit"),
        ("alice", "43", 3, "outside_business_hours"),
    ],
)
async def test_a_denied_update_changes_nothing(
    shop: TestBus, user: str, item_id: str, quantity: int, reason: str
) -> None:
    handle = await submit(shop, user, item_id, quantity)
    await shop.assert_denied("inventory.update", reason=reason)
    await shop.assert_task(handle, "rejected", "denied")
    owner = "carol" if item_id == "77" else "alice"
    assert (await stock(shop, owner, item_id)).quantity == 10
    assert shop.stored("EVENTS") == []


async def test_only_who_may_update_may_read(shop: TestBus) -> None:
    with pytest.raises(Denied) as caught:
        await stock(shop, "carol")
    assert caught.value.reasons == ("not_owner",)


async def test_an_item_that_is_not_there(shop: TestBus) -> None:
    with pytest.raises(RemoteError) as caught:
        await stock(shop, item_id="nothing")
    assert caught.value.code is Code.RESOURCE_NOT_FOUND


async def test_the_owner_is_never_taken_from_the_message(shop: TestBus) -> None:
    client = await shop.client("shop-web")
    body = {"item_id": "42", "quantity": 3, "owner": "carol", "customer": "globex"}
    await client.submit("inventory.update", body, user=shop.user("carol", "shop-web"))
    await shop.idle()
    await shop.assert_denied("inventory.update", reason="not_owner")
    (decision,) = await shop.decisions("inventory.update")
    assert decision.input is not None
    properties = json.loads(decision.input)["resource"]["properties"]
    assert properties == {"owner": "alice", "customer": "acme", "region": "always"}


async def test_an_update_that_comes_again_after_a_restart_is_not_done_again(kept: Path) -> None:
    async with TestBus(inventory.agent, pricing.agent) as first:
        await submit(first, "alice", quantity=3)
        await submit(first, "alice", quantity=5)
    async with restarted(first, inventory.agent, pricing.agent) as shop:
        await inventory.store.change("UPDATE items SET quantity = 7 WHERE item_id = ?", "42")
        shop.broker.consumers["TASKS", "inventory"].rewind()
        await shop.idle()
        assert len(await shop.decisions("inventory.update")) == 4  # each copy is decided and recorded, ...
        assert (await stock(shop)).quantity == 7  # ... and none is handled
        assert len(shop.stored("EVENTS")) == 2


async def test_without_a_price_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    once = replace(inventory.update.options, retry=RetryPolicy(maximum_attempts=1))
    monkeypatch.setattr(inventory.update, "options", once)
    async with TestBus(inventory.agent, pricing.agent) as bus:
        await pricing.store.change("DELETE FROM prices WHERE item_id = ?", "42")
        handle = await submit(bus, "alice")
        await bus.assert_task(handle, "failed", "resource_not_found")
        row = await inventory.store.row("SELECT quantity FROM items WHERE item_id = ?", "42")
    assert row == {"quantity": 10}
    assert "event.inventory.updated" not in [one.subject for one in bus.stored("EVENTS")]


def _action(document: dict[str, object]) -> object:
    action = document["action"]
    assert isinstance(action, dict)
    return action["name"]
