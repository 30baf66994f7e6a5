"""`TestBus` itself: the starter policy where none is given, and assertions that fail when they should."""

from __future__ import annotations

import pytest
from support.engines import ScriptedEngine, deny
from support.shop import Price, Shop, Update

from sealbus import Denied
from sealbus.testing import SubjectType, TestBus


async def test_the_starter_policy_decides_where_no_other_is_given() -> None:
    shop = Shop()
    async with TestBus(shop.pricing) as bus:
        client = await bus.client("shop-web")
        price = await client.call("pricing.quote", Update(item_id="1", quantity=2), returns=Price)
        assert price == Price(item_id="1", price=14)
        with pytest.raises(Denied):
            await (await bus.client("stranger")).call("pricing.quote", Update(item_id="1"), returns=Price)
        await bus.assert_denied("pricing.quote", reason="unknown_agent")
    assert shop.handled == [("quote", 2)]


async def test_the_assertions_fail_when_they_should() -> None:
    shop = Shop()
    engine = ScriptedEngine()
    async with TestBus(shop.inventory, engine=engine) as bus:
        with pytest.raises(AssertionError, match="nothing was decided"):
            await bus.assert_allowed("inventory.update")
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_allowed("inventory.update")
        with pytest.raises(AssertionError, match="allow True"):
            await bus.assert_denied("inventory.update")
        engine.verdict = lambda _: deny("not_owner")
        await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_denied("inventory.update", reason="not_owner")
        with pytest.raises(AssertionError, match="not_owner"):
            await bus.assert_allowed("inventory.update")
        with pytest.raises(AssertionError, match="not_owner"):
            await bus.assert_denied("inventory.update", reason="over_limit")


async def test_a_user_has_logged_in_as_the_test_says() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for user in (
            bus.user("alice", "shop-web", acr="urn:mfa", amr=["pwd", "otp"], login_age=3_600),
            bus.user("alice", "shop-web", login_age=0),
        ):
            await client.submit("inventory.update", Update(item_id="1"), user=user)
            await bus.idle()
    first, second = (one["context"]["user"] for one in engine.asked if one["action"]["name"] == "inventory.update")
    assert (first["acr"], second["acr"]) == ("urn:mfa", "")
    assert 3_590 <= second["auth_time"] - first["auth_time"] <= 3_610


async def test_a_user_is_whose_and_what_the_test_says() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for user in (
            bus.user("mia", "shop-web", domain="partner.example"),
            bus.user("reports", "shop-web", typ=SubjectType.CLIENT),
        ):
            await client.submit("inventory.update", Update(item_id="1"), user=user)
            await bus.idle()
    asked = [one["context"]["user"] for one in engine.asked if one["action"]["name"] == "inventory.update"]
    assert [(one["id"], one["type"], one["domain"]) for one in asked] == [
        ("mia@partner.example", "user", "partner.example"),
        ("reports", "client", ""),
    ]


async def test_it_is_used_inside_async_with() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await TestBus().client("shop-web")


async def test_leaving_finishes_what_was_taken() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine()) as bus:
        await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
        await bus.idle()
    assert shop.handled == [("1", 1)]
    assert bus.broker.subscriptions == []


async def test_what_became_of_a_task_is_asserted() -> None:
    engine = ScriptedEngine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        done = await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_task(done, "completed")
        assert [one.final for one in await bus.statuses(done)] == [True]
        engine.verdict = lambda _: deny("not_owner")
        denied = await client.submit("inventory.update", Update(item_id="1"))
        await bus.idle()
        await bus.assert_task(denied, "rejected", "denied")
        with pytest.raises(AssertionError, match=r"inventory.update: rejected denied"):
            await bus.assert_task(denied, "completed")
        nobody = await client.submit("pricing.update", Update(item_id="1"))
        await bus.assert_task(nobody, "submitted")


async def test_what_is_raised_inside_a_bus_comes_out_as_itself() -> None:
    shop = Shop()
    engine = ScriptedEngine(lambda _: deny("not_owner"))

    async def denied() -> None:
        async with TestBus(shop.inventory, shop.pricing, engine=engine) as bus:
            client = await bus.client("shop-web")
            await client.call("pricing.quote", Update(item_id="1"), returns=Price)

    async def failed() -> None:
        async with TestBus(shop.inventory, shop.pricing, engine=engine):
            raise AssertionError("1 is not 2")

    with pytest.raises(Denied):
        await denied()
    with pytest.raises(AssertionError, match=r"^1 is not 2$"):
        await failed()
