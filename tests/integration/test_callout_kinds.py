"""What else goes over a broker that asks the auth callout: own subjects, the edge's part, and a policy that OPA decides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.callout import NAMES, callout_site, policy_folder
from support.callout_shop import callout_shop
from support.opa import OpaServer
from support.own_subjects import OWN, Orders
from support.shop import Price, Update

from sealbus.agents.examples import inventory, pricing
from sealbus.agents.examples.inventory import Stock
from sealbus.agents.examples.store import DATABASE_VARIABLE
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.engines.sidecar import SidecarEngine

pytestmark = [pytest.mark.nats]

WITHIN = 60.0
ACTIONS = ("orders.ship", "orders.cancel", "orders.price", "orders.count", "shop.sold")
ANSWERS = tuple(f"{name}.reply" for name in ACTIONS if name != "shop.sold")
NEEDS: dict[str, Json] = {"user": "none", "resource": "any", "limits": {}, "hours": False}


async def test_own_subjects_reach_their_handlers(tmp_path: Path) -> None:
    agents: dict[str, Json] = {
        str(NAMES.id_of("shop-web")): {"actions": dict.fromkeys(ACTIONS, True)},
        str(NAMES.id_of("orders")): {"actions": dict.fromkeys(ANSWERS, True)},
    }
    actions: dict[str, Json] = dict.fromkeys((*ACTIONS, *ANSWERS), NEEDS)
    policy = policy_folder(tmp_path / "policy", agents=agents, actions=actions)
    orders = Orders()
    async with (
        callout_site(tmp_path / "site", policy=policy, own=OWN) as site,
        callout_shop(site, orders.agent) as shop,
        asyncio.timeout(WITHIN),
    ):
        client = await shop.client("shop-web")
        await client.submit("orders.ship", Update(item_id="1"))
        await client.submit("orders.cancel", Update(item_id="2"))
        await client.emit("shop.sold", Update(item_id="3"))
        handled = {await orders.handled.get() for _ in range(3)}
        assert handled == {("orders.ship", "1"), ("orders.cancel", "2"), ("shop.sold", "3")}
        price = await client.call("orders.price", Update(item_id="4", quantity=2), returns=Price)
        assert price == Price(item_id="4", price=6)
        got = [one async for one in client.stream("orders.count", Update(item_id="5", quantity=2), returns=int)]
        assert got == [0, 1]
        assert shop.violations() == []
        # Nobody else says what is the owner's to say, hears its calls, or consumes its tasks.
        async with site.raw("inventory") as outside:
            assert not await outside.may_publish("shop.orders.ship")
            assert not await outside.may_publish("shop.sold")
            assert not await outside.may_subscribe("shop.orders.price orders")
            assert not await outside.may_subscribe("shop.orders.price")


async def test_the_edges_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    async with (
        callout_site(tmp_path) as site,
        callout_shop(site, pricing.agent, inventory.agent) as shop,
        asyncio.timeout(WITHIN),
    ):
        edge = await shop.client("edge")
        user = shop.user("alice", "edge")
        handle = await edge.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=user)
        assert (await handle.result(Stock)).quantity == 3
        # Whose each task is, the edge keeps in STATE and reads by its subject.
        subject = "state.edge.request.00112233445566778899aabbccddeeff"
        message = Outgoing(subject=subject, payload=b"owner", message_id="0" * 32)
        (ack,) = await shop.nodes["edge"].transport.publish([message], deadline=60.0)
        assert isinstance(ack, PubAck)
        found = await shop.nodes["edge"].transport.last("STATE", subject, within=60.0)
        assert found is not None
        assert (found.sequence, found.payload) == (ack.sequence, b"owner")
        assert shop.violations() == []


@pytest.mark.opa
async def test_opa_decides_about_connections_as_well(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle" / "bundle.tar.gz"
    bundle.parent.mkdir()
    write_bundle(build_bundle(STARTER), bundle)
    opa = await asyncio.to_thread(OpaServer, "--bundle", str(bundle), "--optimize-store-for-read-speed")
    await asyncio.to_thread(opa.__enter__)
    try:
        async with callout_site(tmp_path / "site", responders=0) as site, SidecarEngine(opa.socket) as engine:
            responder = await site.respond(engine=engine)
            async with site.raw("inventory") as client:
                assert await client.may_publish("call.pricing.quote")
                assert not await client.may_publish("call.planner.plan")
            # Away: nobody is let in, and who is there stays.
            async with site.raw("pricing") as live:
                await asyncio.to_thread(opa.kill)
                with pytest.raises((OSError, asyncio.IncompleteReadError, AssertionError)):
                    await site.raw("inventory").__aenter__()
                assert responder.codes == ["policy_unavailable"]
                assert await live.may_publish("audit.pricing")
    finally:
        await asyncio.to_thread(opa.__exit__, None, None, None)
