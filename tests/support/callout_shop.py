"""The example agents at work on a broker that asks the auth callout: workers, a client, an operator, all sealing for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from support.callout import DOMAIN, NAMES, SERVER_ID, CalloutSite
from support.identity import StaticIdentity
from support.lab import QUICK

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.users import EDGE_PATH, DevUser, mint_user
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Deployment, Feeds, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.subjects import own_subjects
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["CalloutShop", "callout_shop"]

EDGE = SpiffeId(f"spiffe://{DOMAIN.name}{EDGE_PATH}")


@dataclass(kw_only=True)
class CalloutShop:
    """Nodes on a callout site, by name."""

    site: CalloutSite
    authority: DevelopmentAuthority
    stack: AsyncExitStack
    nodes: dict[str, Node] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)
    identities: dict[str, StaticIdentity] = field(default_factory=dict)

    async def node(self, name: str, *, life: float = 3600.0) -> Node:
        """Open a node for `name`, whose streams are checked as a worker's are."""
        memory = MemoryIdentity(self.authority, NAMES.id_of(name))
        identity = StaticIdentity(
            self.site.ca, memory.spiffe_id.value, life=life, sealer=memory.sealer, bundles=memory.bundles()
        )
        counters = Counters()
        connection = await self.stack.enter_async_context(
            Connection(
                [self.site.url],
                identity=identity,
                server_ids=frozenset({SERVER_ID}),
                inbox_prefix=NAMES.inbox_prefix(identity.spiffe_id),
                options=replace(QUICK, name=name),
                counters=counters,
            )
        )
        await check_streams(
            declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}, own=self.site.own), connection.jetstream
        )
        engine = await self.stack.enter_async_context(EmbeddedEngine.of_folder(self.site.policy))
        node = await self.stack.enter_async_context(
            Node(
                deployment=Deployment(
                    names=NAMES, minters=frozenset({EDGE}), own_subjects=own_subjects(*self.site.own)
                ),
                identity=identity,
                transport=NatsTransport(connection),
                engine=engine,
                counters=counters,
                feeds=Feeds(connected=lambda: connection.connected),
            )
        )
        self.nodes[name] = node
        self.counters[name], self.connections[name], self.identities[name] = counters, connection, identity
        return node

    async def client(self, name: str) -> Client:
        return Client.on(await self.node(name))

    async def worker(self, agent: Agent, *, life: float = 3600.0) -> None:
        """Run `agent` until the shop closes."""
        node = await self.node(agent.name, life=life)
        stop = asyncio.Event()
        worker = await self.stack.enter_async_context(Worker(agent, node))
        task = asyncio.create_task(worker.run(stop))

        async def end() -> None:
            stop.set()
            await task

        self.stack.push_async_callback(end)
        await worker.ready.wait()

    def user(self, identifier: str, workload: str) -> Statement:
        """Return a user context that the edge minted for `workload`."""
        sealer = MemoryIdentity(self.authority, EDGE).sealer()
        return mint_user(
            sealer, DevUser(identifier, workload=NAMES.id_of(workload)), trust_domain=DOMAIN, now=wall_clock()
        )

    def violations(self) -> list[str]:
        """Return what the server refused since it started."""
        return [line for line in self.site.log.splitlines() if "Violation" in line]


@asynccontextmanager
async def callout_shop(site: CalloutSite, *agents: Agent) -> AsyncIterator[CalloutShop]:
    """Create the streams as the operator, run `agents`, and stop them afterwards."""
    await site.apply_streams()
    async with AsyncExitStack() as stack:
        shop = CalloutShop(site=site, authority=DevelopmentAuthority(DOMAIN), stack=stack)
        for agent in agents:
            await shop.worker(agent)
        yield shop
