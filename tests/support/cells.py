"""A server with the accounts of two cells, the real callout and policy, and the nodes of agents on it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from support.callout import CONF, DOMAIN, NAMES, CalloutSite, callout_site, policy_folder
from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.lab import until
from support.x509 import ThrowawayCa

from sealbus import Agent
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.node import Deployment, Feeds, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.cells import CellTransport, placed_by
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.decision.placement import Placement

PROJECT = Path(__file__).parents[2]
PLACED: Mapping[str, Placement] = MappingProxyType({"works": Placement("east"), "ruler": Placement("east")})
ACCOUNTS = ("APP", "APP_AGENTS", "EAST", "EAST_AGENTS")


def configuration(folder: Path) -> Path:
    """Return the configuration of the local server with the accounts of two cells in the place of its tenants'."""
    text, changed = re.subn(r"(?ms)^  APP \{.*?(?=^  SYS)", "  include cells.conf\n", CONF.read_text())
    assert changed == 1
    (folder / "cells.conf").write_text((PROJECT / "deploy" / "cells" / "cells.conf").read_text())
    conf = folder / "nats.conf"
    conf.write_text(text)
    return conf


def policy(folder: Path, placed: Mapping[str, Placement], registry: Mapping[str, Mapping[str, Json]]) -> Path:
    """Return a copy of the starter policy whose registry has these placements, and documents of `registry` by name."""
    agents: dict[str, Json] = {
        str(NAMES.id_of(name)): {"actions": dict.fromkeys(actions, True)}
        for name, actions in {
            "shop": ["plans.plan", "plans._cancel"],
            "plans": ["works.work", "works._cancel", "plans.plan.reply"],
            "works": ["ends.end", "works.work.reply", "works.made"],
            "ends": ["ends.end.reply"],
            "hears": [],
        }.items()
    }
    limits: Json = {"subscriptions": 100, "payload": -1, "data": -1}
    tenants: dict[str, Json] = {"east": {"account": "EAST_AGENTS", "streams": "EAST", "limits": limits}}
    ruler: dict[str, Json] = {str(NAMES.id_of("ruler")): {"role": "operator", "tenant": "default"}}
    documents = {"agents": agents, "tenants": tenants, "workloads": ruler}
    more = {name: {**documents.get(name, {}), **registry.get(name, {})} for name in {*documents, *registry}}
    made = policy_folder(folder, **more)
    cells = made / "sealbus" / "registry" / "cells"
    cells.mkdir()
    (cells / "data.json").write_text(
        json.dumps({token: asdict(one) if one.before else one.cell for token, one in placed.items()})
    )
    return made


@dataclass(kw_only=True)
class CellsSite:
    """The server with the streams of both cells, and the nodes that a test opens."""

    server: CalloutSite
    stack: AsyncExitStack
    cells: Mapping[str, Placement]
    """What the registry says now."""
    authority: DevelopmentAuthority
    """Of all identities, by which the server's are issued, too."""
    registry: Mapping[str, Mapping[str, Json]]
    connections: list[Connection] = field(default_factory=list)

    async def node(self, name: str) -> Node:
        memory = MemoryIdentity(self.authority, NAMES.id_of(name))
        identity = StaticIdentity(
            self.server.ca, memory.spiffe_id.value, sealer=memory.sealer, bundles=memory.bundles()
        )
        connection = await self.stack.enter_async_context(self.server.connection(name, identity=identity))
        self.connections.append(connection)
        transport = CellTransport(
            NatsTransport(connection),
            placed_by(lambda: self.cells, name),
            reach=lambda cell: NatsTransport(connection, cell),
            owners={},
        )
        return await self.stack.enter_async_context(
            Node(
                deployment=Deployment(names=NAMES),
                identity=identity,
                transport=transport,
                engine=ScriptedEngine(),
                feeds=Feeds(connected=lambda: connection.connected),
            )
        )

    async def run(self, *agents: Agent) -> None:
        """Run a worker for each of `agents` until the test ends."""
        for agent in agents:
            await self.stack.enter_async_context(self.running(agent))

    @asynccontextmanager
    async def running(self, agent: Agent) -> AsyncIterator[Node]:
        """Run a worker for `agent` while entered."""
        node, stop = await self.node(agent.name), asyncio.Event()
        async with Worker(agent, node) as worker:
            running = asyncio.create_task(worker.run(stop))
            await worker.ready.wait()
            yield node
            stop.set()
            await running

    async def push(self, folder: Path, placed: Mapping[str, Placement]) -> None:
        """Have the registry say where each token is: the callout by a policy in the new `folder`, and all nodes."""
        for responder in self.server.responders:
            await responder.stop()
        self.server.responders.clear()
        self.server.policy = policy(folder, placed, self.registry)
        await self.server.respond(accounts=ACCOUNTS)
        self.cells = placed
        # As each process does after a change of the cells (`follow_cells`).
        links = [(connection, connection.link) for connection in self.connections if connection.connected]
        for connection, _ in links:
            connection.rotate()
        await until(lambda: all(connection.link is not link for connection, link in links))


@asynccontextmanager
async def cells_site(
    folder: Path,
    placed: Mapping[str, Placement] = PLACED,
    registry: Mapping[str, Mapping[str, Json]] = MappingProxyType({}),
) -> AsyncIterator[CellsSite]:
    """Start the server with the streams of both cells; the callout places workloads by `placed`.

    `registry` adds to documents of the policy's registry, by their names.
    """
    rules, conf = policy(folder / "policy", placed, registry), configuration(folder)
    authority = DevelopmentAuthority(DOMAIN)
    ca = ThrowawayCa.stolen(DOMAIN.name, authority.x509.current.certificate, authority.x509.current.key)
    started = callout_site(folder / "site", responders=0, policy=rules, conf=conf, ca=ca)
    async with started as server, AsyncExitStack() as stack:
        await server.respond(accounts=ACCOUNTS)
        for operator in ("operator", "ruler"):
            async with server.connection(operator) as connection:
                await apply(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}), connection.jetstream)
        yield CellsSite(server=server, stack=stack, cells=placed, authority=authority, registry=registry)


async def stored(site: CellsSite, operator: str) -> dict[str, int]:
    """Return how many messages each stream in the account of `operator` has."""
    async with site.server.connection(operator) as connection:
        listed = (await api(connection.jetstream, "STREAM.LIST"))["streams"]
        assert isinstance(listed, list)
        return {stream["config"]["name"]: stream["state"]["messages"] for stream in listed}
