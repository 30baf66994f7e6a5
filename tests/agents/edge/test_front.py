from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from support.edge import door
from support.own_subjects import OWN
from support.shop import Price, Update

from sealbus import Agent, Context
from sealbus.agents.edge.front import Exposed
from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NAMES = Names(TrustDomain("example.org"))


def test_what_is_shown_is_what_the_settings_list() -> None:
    exposed = Exposed(["inventory.*", "pricing.quote"], NAMES)
    assert exposed.action("inventory", "update") == "inventory.update"
    assert exposed.action("pricing", "quote") == "pricing.quote"
    for agent, verb in [("pricing", "set"), ("planner", "plan"), ("inventory", "*"), ("inventory", "a.b"), ("", "x")]:
        with pytest.raises(EdgeError) as caught:
            exposed.action(agent, verb)
        assert caught.value.status == 404


@pytest.mark.parametrize("pattern", ["*", "*.*", "inventory", "a.b.c", "inventory.up*", ".x", "a b.c", "id-x.*", ">"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError):
        Exposed([pattern], NAMES)


async def test_an_own_subject_is_reached_by_its_action_and_never_by_its_name() -> None:
    handled: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    ship = next(one for one in OWN if one.subject == "shop.orders.ship")
    named = replace(ship, subject="legacy.ship")
    price = next(one for one in OWN if one.subject == "shop.orders.price")
    agent = Agent("orders")

    @agent.on("legacy.ship")
    async def shipped(body: Update, ctx: Context) -> None:
        handled.put_nowait((ctx.action, body.item_id))

    @agent.on("shop.orders.price")
    async def asked(body: Update, ctx: Context) -> Price:
        return Price(item_id=body.item_id, price=3)

    async with door(agent, actions=("legacy.*",), own=(named, price)) as edge:
        for path in ("/v1/tasks/legacy/ship", "/v1/calls/legacy/ship"):
            refused = await edge.post(path, {"item_id": "42"})
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
        assert edge.published()["TASKS"] == 0
    async with door(agent, actions=("orders.*",), own=(named, price)) as edge:
        assert (await edge.post("/v1/tasks/orders/ship", {"item_id": "42"})).status_code == 202
        assert await handled.get() == ("orders.ship", "42")
        assert (await edge.post("/v1/calls/orders/price", {"item_id": "42"})).json()["price"] == 3
