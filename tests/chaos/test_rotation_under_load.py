"""Work with X.509-SVIDs of 10 s and JWT-SVIDs of 50 s, on both engines: rotation is never noticed.

`SEALBUS_ROTATION_SECONDS=120` is the full acceptance run; the ordinary one is just long enough
for three JWT-SVIDs of each agent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.opa import require_opa
from support.workload_api import short_folder

from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import deployment_of, open_audit_trail, open_connection
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import Finding
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.embedded import EmbeddedEngine
from sealbus.policies.engines.sidecar import SidecarEngine
from sealbus.policies.opa.process import OpaProcess

pytestmark = [pytest.mark.nats, pytest.mark.opa, pytest.mark.workload_api, pytest.mark.slow]

DURATION = float(os.environ.get("SEALBUS_ROTATION_SECONDS", "55"))
SLACK = 30.0
"""Seconds beyond, after which something waits that should not: the test says where, and does not only end."""

X509_TTL = 10
JWT_TTL = 50
"""Seconds; each is renewed at the half, and the last 20 s of one are not sealed with any more."""


@dataclass
class Watched:
    """The connections of a run, and what was seen of them."""

    connections: dict[str, Connection] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    expired: int = 0

    async def watch(self) -> None:
        """Look at every live connection's client certificate, again and again."""
        while True:
            for connection in self.connections.values():
                if connection.link.not_after <= wall_clock():
                    self.expired += 1
            await asyncio.sleep(0.25)


async def node(stack: AsyncExitStack, name: str, env: Environment, engine: PolicyEngine, seen: Watched) -> Node:
    counters = Counters()
    identity, connection = await stack.enter_async_context(open_connection(name, env.settings, counters=counters))
    seen.connections[name], seen.counters[name] = connection, counters
    return await stack.enter_async_context(
        Node(
            deployment=deployment_of(env.settings),
            identity=identity,
            transport=NatsTransport(connection),
            engine=engine,
            counters=counters,
        )
    )


@pytest.fixture
async def environment() -> AsyncIterator[Environment]:
    with short_folder() as folder:
        options = DevOptions(
            folder=folder / "dev",
            agents=("inventory", "pricing", "shop-web"),
            port=-1,
            x509_ttl=X509_TTL,
            jwt_ttl=JWT_TTL,
        )
        async with open_environment(options) as running:
            yield running


async def alice(env: Environment) -> Statement:
    """Return a user context of alice for the client that loads."""
    async with Client("shop-web", settings=env.settings) as client:
        return await client.user_context(env.idp.token("alice"))


async def load(client: Client, env: Environment, until: float, sent: list[str], calls: list[str]) -> None:
    """Submit a task and call both agents, one after the other; any failure ends the test."""
    loop = asyncio.get_running_loop()
    user = await alice(env)
    while loop.time() < until:
        if len(sent) % 200 == 199:
            user = await alice(env)
        sent.append(
            (await client.submit("inventory.update", inventory.Update(item_id="42", quantity=3), user=user)).message_id
        )
        item = await client.call(inventory.read, inventory.Read(item_id="42"), user=user)
        price = await client.call(pricing.quote, pricing.Quote(item_id="42"))
        calls += [item.item_id, price.item_id]
        await asyncio.sleep(0.01)  # paces the load, so that the run is about rotation and not about throughput


@pytest.mark.timeout(DURATION + SLACK + 60)
async def test_rotation_without_a_failure(environment: Environment, tmp_path: Path) -> None:
    seen, stop = Watched(), asyncio.Event()
    sent: list[str] = []
    calls: list[str] = []
    folder = environment.bundle.parent.parent
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(
            OpaProcess(require_opa(), socket=folder / "opa" / "o.sock", bundle=environment.bundle)
        )
        embedded = await stack.enter_async_context(EmbeddedEngine(environment.bundle))
        sidecar = await stack.enter_async_context(SidecarEngine(folder / "opa" / "o.sock", deadline=5.0))
        nodes = {
            "inventory": await node(stack, "inventory", environment, embedded, seen),
            "pricing": await node(stack, "pricing", environment, sidecar, seen),
            "shop-web": await node(stack, "shop-web", environment, embedded, seen),
        }
        workers = [
            await stack.enter_async_context(Worker(agent, nodes[agent.name]))
            for agent in (inventory.agent, pricing.agent)
        ]
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(stop))
                await worker.ready.wait()
            watching = group.create_task(seen.watch())
            client = Client.on(nodes["shop-web"])
            until = asyncio.get_running_loop().time() + DURATION
            async with asyncio.timeout_at(until + SLACK):
                await load(client, environment, until, sent, calls)
            stop.set()
            watching.cancel()
    assert seen.expired == 0
    for name, counters in seen.counters.items():
        assert counters.value("sealbus_bus_connections_total") >= DURATION / 12, name
    decided, credentials, failed = await audited(environment)
    assert sorted(decided) == sorted(sent)
    assert failed == []
    assert min(len(one) for one in credentials.values()) >= 3
    assert len(calls) == 2 * len(sent)


async def audited(environment: Environment) -> tuple[list[str], dict[str, set[bytes]], list[object]]:
    """Return the tasks that were allowed, each sender's credentials, and whatever is not as it must be."""
    decided: list[str] = []
    credentials: dict[str, set[bytes]] = {}
    failed: list[object] = []
    async with open_audit_trail("operator", environment.settings) as trail:
        async for entry in trail.entries():
            if isinstance(entry, Finding):
                failed.append(entry)
            elif isinstance(entry.record, DecisionRecord):
                header = parse_header(entry.record.header)
                credentials.setdefault(str(header.iss), set()).add(header.crd)
                if entry.record.action == "inventory.update":
                    decided.append(header.id.hex())
                if not entry.record.allow:
                    failed.append(entry)
            elif isinstance(entry.record, OutcomeRecord) and entry.record.code is not None:
                failed.append(entry)
    return decided, credentials, failed
