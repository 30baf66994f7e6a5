"""Nodes on a real nats-server that a test may kill: TLS from a throwaway CA, sealing from the development authority."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.agents.dev.users import EDGE_PATH, DevUser, mint_user
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.node import AuditOptions, Deployment, Feeds, Host, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.audit.spool import SpoolOptions
from sealbus.bus.clocks import HostClock, wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Clock
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.message.subjects import OwnSubject, own_subjects
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain
from sealbus.policies.decision.engine import PolicyEngine

__all__ = ["RealBus", "real_bus"]

DOMAIN = "example.org"


@dataclass(kw_only=True)
class RealBus:
    """One server with its streams, and as many nodes as a test opens."""

    server: NatsServer
    ca: ThrowawayCa
    authority: DevelopmentAuthority
    names: Names
    stack: AsyncExitStack
    operator: Connection
    """In the account that has the streams, with all rights there."""
    own: tuple[OwnSubject, ...] = ()
    connections: dict[str, Connection] = field(default_factory=dict)

    @property
    def edge(self) -> SpiffeId:
        return SpiffeId(f"spiffe://{DOMAIN}{EDGE_PATH}")

    async def node(
        self, name: str, engine: PolicyEngine, *, spool: SpoolOptions | None = None, clock: Clock = wall_clock
    ) -> Node:
        """Open a node for the agent `name`, whose host has `clock`; a second of the same name is a replica."""
        memory = MemoryIdentity(self.authority, self.names.id_of(name))
        identity = StaticIdentity(self.ca, memory.spiffe_id.value, sealer=memory.sealer, bundles=memory.bundles())
        connection = await self.stack.enter_async_context(
            Connection(
                [self.server.url],
                identity=identity,
                server_ids=frozenset({SpiffeId(self.server.spiffe_id)}),
                inbox_prefix=self.names.inbox_prefix(memory.spiffe_id),
                options=ConnectionOptions(name=name),
            )
        )
        self.connections[name] = connection
        return await self.stack.enter_async_context(
            Node(
                deployment=Deployment(
                    names=self.names, minters=frozenset({self.edge}), own_subjects=own_subjects(*self.own)
                ),
                identity=identity,
                transport=NatsTransport(connection),
                engine=engine,
                audit=AuditOptions(spool=spool),
                feeds=Feeds(connected=lambda: connection.connected),
                host=Host(clock=HostClock(clock)),
            )
        )

    @asynccontextmanager
    async def workers(
        self, *agents: Agent, limits: WorkerLimits | None = None, engine: PolicyEngine | None = None
    ) -> AsyncIterator[list[Worker]]:
        """Run a replica for each of `agents`, which decides by `engine` or allows all."""
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            made = [
                await stack.enter_async_context(
                    Worker(agent, await self.node(agent.name, engine or ScriptedEngine()), limits)
                )
                for agent in agents
            ]
            group = await stack.enter_async_context(asyncio.TaskGroup())
            try:
                for worker in made:
                    group.create_task(worker.run(stop))
                    await worker.ready.wait()
                yield made
            finally:
                stop.set()

    def user(self, identifier: str, workload: str) -> Statement:
        """Return a user context that the edge minted for `workload`."""
        sealer = MemoryIdentity(self.authority, self.edge).sealer()
        return mint_user(
            sealer,
            DevUser(identifier, workload=self.names.id_of(workload)),
            trust_domain=TrustDomain(DOMAIN),
            now=wall_clock(),
        )


@asynccontextmanager
async def real_bus(
    folder: Path,
    *names: str,
    max_bytes: int = 1 << 26,
    own: tuple[OwnSubject, ...] = (),
    permitted: bool = False,
    jetstream: str = "",
    apart: bool = True,
) -> AsyncIterator[RealBus]:
    """Start a server that knows the agents `names` and an operator, apply the streams, and stop all of it afterwards.

    With `permitted` each agent has the permissions that `sealbus dev` gives it; otherwise all rights. `jetstream` is added
    to the server's JetStream block. The streams are in an account of their own, with the operator, unless it is not `apart`.
    """
    known = Names(TrustDomain(DOMAIN), table={"edge": TrustDomain(DOMAIN).id(EDGE_PATH)})
    ca = ThrowawayCa(DOMAIN)
    users = [User(id=known.id_of("operator").value, with_streams=apart)]
    for name in names:
        agent = known.id_of(name)
        rights = (
            permissions_of(BrokerRole.EDGE if name == "edge" else BrokerRole.AGENT, agent, known, own)
            if permitted
            else Permissions(publish=(">",), subscribe=(">",))
        )
        users.append(User(id=agent.value, publish=rights.publish, subscribe=rights.subscribe))
    async with NatsServer(folder, ca, users, jetstream=jetstream, own=own) as server, AsyncExitStack() as stack:
        operator = await stack.enter_async_context(
            Connection(
                [server.url],
                identity=StaticIdentity(ca, known.id_of("operator").value),
                server_ids=frozenset({SpiffeId(server.spiffe_id)}),
                inbox_prefix=known.inbox_prefix(known.id_of("operator")),
            )
        )
        sizes = {"TASKS": max_bytes, "AUDIT": max_bytes}
        await apply(declared_streams(sizes, own=own), operator.jetstream)
        yield RealBus(
            server=server,
            ca=ca,
            authority=DevelopmentAuthority(TrustDomain(DOMAIN)),
            names=known,
            stack=stack,
            operator=operator,
            own=own,
        )
