"""An agent of a federated trust domain that may do one thing and no more, on real SPIRE, NATS and the whole gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from stack.identity_writer import IdentityWriter
from stack.nats_server import NatsServer, static_users
from stack.spire import federate
from support.engines import ScriptedEngine, allow, deny
from support.lab import QUICK
from support.ports import held_port
from support.shop import Shop, Update
from support.spire import entry, spire
from support.workload_api import short_folder

from sealbus import Denied
from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Deployment, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import NotPermitted
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.decision import Decision

pytestmark = [pytest.mark.spire, pytest.mark.nats, pytest.mark.workload_api]

HOME, PARTNER = TrustDomain("example.org"), TrustDomain("partner.org")
INVENTORY, OPERATOR, SERVER = HOME.id("/agent/inventory"), HOME.id("/agent/operator"), HOME.id("/nats/server")
SUPPLIER = PARTNER.id("/agent/supplier")
OURS = Names(HOME, table={"supplier": SUPPLIER})
THEIRS = Names(PARTNER, table={"inventory": INVENTORY})
WITHIN = 60.0


def one_thing(document: dict[str, Any]) -> Decision:
    """Our policy: the partner's supplier may update the inventory."""
    subject = document["subject"]
    if subject["properties"]["trust_domain"] == HOME.name:
        return allow()
    if (subject["id"], document["action"]["name"]) == (str(SUPPLIER), "inventory.update"):
        return allow()
    return deny("not for partners")


def access() -> str:
    """Who may connect: the supplier may publish to the inventory and read the statuses that are for it."""
    supplier = permissions_of(BrokerRole.AGENT, SUPPLIER, OURS)
    narrow = tuple(one for one in supplier.publish if not one.startswith(("task.", "call.", "status.")))
    return static_users(
        {
            INVENTORY: permissions_of(BrokerRole.AGENT, INVENTORY, OURS),
            SUPPLIER: Permissions(publish=("task.inventory.*", *narrow), subscribe=supplier.subscribe),
        },
        with_streams={OPERATOR: permissions_of(BrokerRole.OPERATOR, OPERATOR, OURS)},
    )


@dataclass(kw_only=True)
class Site:
    """Our inventory at work, what its policy was asked, and the partner's supplier as a client."""

    shop: Shop
    policy: ScriptedEngine
    supplier: Client
    counters: Counters
    """Those of the supplier's connection."""


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(spire())
        partner = await stack.enter_async_context(spire(trust_domain="partner.org"))
        await federate(home.server, partner.server)
        await home.register(
            *(
                entry(str(one), federates_with=("partner.org",), dns=("localhost",) if one is SERVER else ())
                for one in (INVENTORY, OPERATOR, SERVER)
            )
        )
        await partner.register(entry(str(SUPPLIER), federates_with=("example.org",)))
        folder = stack.enter_context(short_folder())
        server = NatsServer(
            folder / "nats", svid=folder / "svid", port=held_port(), monitor=held_port(), access=access()
        )
        await stack.enter_async_context(
            IdentityWriter(
                folder / "svid",
                address=home.agent.address,
                spiffe_id=SERVER,
                pid_file=server.pid_file,
                also_trusted=(PARTNER,),
            )
        )
        await stack.enter_async_context(server)

        counters = {INVENTORY: Counters(), OPERATOR: Counters(), SUPPLIER: Counters()}

        async def connection(address: str, spiffe_id: SpiffeId, names: Names) -> tuple[WorkloadIdentity, Connection]:
            identity = await stack.enter_async_context(
                WorkloadIdentity.connect(address, spiffe_id=spiffe_id, deadline=60)
            )
            connected = await stack.enter_async_context(
                Connection(
                    [server.url],
                    identity=identity,
                    server_ids=frozenset({SERVER}),
                    inbox_prefix=names.inbox_prefix(spiffe_id),
                    options=QUICK,
                    counters=counters[spiffe_id],
                )
            )
            return identity, connected

        async def node(address: str, spiffe_id: SpiffeId, names: Names, engine: ScriptedEngine) -> Node:
            identity, connected = await connection(address, spiffe_id, names)
            return await stack.enter_async_context(
                Node(
                    deployment=Deployment(names=names),
                    identity=identity,
                    transport=NatsTransport(connected),
                    engine=engine,
                )
            )

        _, operator = await connection(home.agent.address, OPERATOR, OURS)
        await apply(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}), operator.jetstream)
        shop, policy, stop = Shop(), ScriptedEngine(one_thing), asyncio.Event()
        inventory = await node(home.agent.address, INVENTORY, OURS, policy)
        supplier = await node(partner.agent.address, SUPPLIER, THEIRS, ScriptedEngine())
        async with Worker(shop.inventory, inventory) as worker, asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield Site(shop=shop, policy=policy, supplier=Client.on(supplier), counters=counters[SUPPLIER])
            stop.set()


async def test_the_one_thing_is_done_and_its_result_comes_back(site: Site) -> None:
    """Each side verifies the other's messages with the other's bundle, which its own SPIRE gave it."""
    handle = await site.supplier.submit("inventory.update", Update(item_id="42", quantity=3))
    await handle.result(timeout=WITHIN)
    assert site.shop.handled == [("42", 3)]
    [asked] = [one for one in site.policy.asked if one["action"]["name"] == "inventory.update"]
    assert asked["subject"] == {
        "type": "workload",
        "id": "spiffe://partner.org/agent/supplier",
        "properties": {"trust_domain": "partner.org"},
    }


async def test_another_thing_is_denied_by_our_policy(site: Site) -> None:
    handle = await site.supplier.submit("inventory.order", Update(item_id="42"))
    with pytest.raises(Denied):
        await handle.result(timeout=WITHIN)
    assert site.shop.handled == []


async def test_another_agent_is_out_of_reach_at_nats(site: Site) -> None:
    """NATS says no before anybody is asked, and the publisher is told so."""
    with pytest.raises(NotPermitted):
        await site.supplier.submit("pricing.quote", Update(item_id="42"))
    assert site.counters.value("sealbus_bus_dropped_total", reason="permissions") == 1
