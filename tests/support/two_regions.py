"""Two regions of three nats-servers with the configuration of deploy/regions, joined by links that can be cut.

The home region has the streams. In the other, agents work and send, and AUDIT is mirrored.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel
from stack.nats_regions import HomePart, RegionPart, home_users, region_users
from stack.nats_server import NatsServer, Route
from support.cut import CuttableLink
from support.policy_desk import key_file
from support.ports import held_port
from support.workload_api import short_folder

from sealbus import Agent, Client, Context
from sealbus.agents.control.notary.keys import make_key_file
from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.nats.api import stream_state
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.keys import public_pem
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = [
    "MIRROR",
    "ORIGIN",
    "WITHIN",
    "Payment",
    "Region",
    "TwoRegions",
    "bank_of",
    "two_regions",
    "until_acknowledged",
]

SEALBUS = Path(sys.executable).parent / "sealbus"
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN)
MIRROR = "AUDIT_MIRROR"
HOME, OTHER = "home", "west"
ROLES = {
    "shop": BrokerRole.AGENT,
    "bank": BrokerRole.AGENT,
    "mill": BrokerRole.AGENT,
    "late": BrokerRole.AGENT,
    "notary": BrokerRole.NOTARY,
    "control": BrokerRole.CONTROL,
    "operator": BrokerRole.OPERATOR,
}
ORIGIN = "log.example.org/audit"
WITHIN = 120.0
"""Seconds within which what is awaited happens, on a busy machine."""
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": false, "reasons": ["revoked"], "obligations": [], "policy": "regions"} if {
	object.get(data.sealbus.registry.revoked.agents, request.subject.id, false) != false
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "regions"}
"""
SETTINGS = """trust_domain = "example.org"
nats = {urls}
nats_ids = ["spiffe://example.org/nats/home", "spiffe://example.org/nats/west"]
workload_api = "unix://{folder}/api/{{name}}.sock"
[policy]
engine = "embedded"
bundle = "nats://policies"
cache = "{folder}/cache-{region}"
keys = ["{folder}/platform.pub"]
denials = "entry"
[trust]
notaries = ["spiffe://example.org/agent/notary"]
[streams]
replicas = 3
[streams.mirror]
domain = "home"
[streams.max_bytes]
tasks = "256MiB"
audit = "256MiB"
[control.notary]
origin = "{origin}"
keys = ["{folder}/log.key"]
folder = "{folder}/log"
lease = 2
"""


class Payment(BaseModel):
    amount: int


def bank_of(name: str, paid: list[int]) -> Agent:
    """Return an agent that notes what it pays in `paid`, each amount once."""
    agent = Agent(name)

    @agent.task("pay", facts=["amount"], once=True)
    async def pay(payment: Payment, ctx: Context) -> int:
        paid.append(payment.amount)
        return payment.amount

    return agent


@dataclass(kw_only=True)
class Region:
    """The servers of one region, and the settings of everybody who is connected there."""

    name: str
    file: Path
    servers: Sequence[NatsServer] = ()

    @property
    def settings(self) -> Settings:
        return load_settings(self.file, environment={})

    async def kill(self) -> None:
        """kill -9 of all."""
        await asyncio.gather(*(server.program.kill9() for server in self.servers))

    async def start(self) -> None:
        """Start all again, and wait until JetStream is ready on each."""
        async with asyncio.TaskGroup() as group:
            for server in self.servers:
                group.create_task(server.program.start())

    async def run(self, *arguments: str | Path) -> tuple[int, str]:
        """Run a command of `sealbus` here; return its exit code and what it printed on both of its outputs."""
        process = await asyncio.create_subprocess_exec(
            SEALBUS, *map(str, arguments), env={**os.environ, "SEALBUS_CONFIG": str(self.file)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def done(self, *arguments: str | Path) -> str:
        """Run a command until it succeeds, as an operator would while servers elect a leader."""
        async with asyncio.timeout(WITHIN):
            while True:
                code, output = await self.run(*arguments)
                if code == 0:
                    return output

    async def last(self, stream: str) -> int:
        """Return the last sequence of a stream of this region, as its operator sees it."""
        async with open_connection("operator", self.settings) as (_, connection):
            state = await stream_state(connection.jetstream, stream)
        assert state is not None
        return state.last

    @asynccontextmanager
    async def working(self, agent: Agent) -> AsyncIterator[Worker]:
        """Run a worker here until it is ready, and on."""
        stop = asyncio.Event()
        async with (
            asyncio.TaskGroup() as group,
            open_node(agent.name, self.settings) as node,
            Worker(agent, node) as worker,
        ):
            running = group.create_task(worker.run(stop))
            async with asyncio.timeout(WITHIN):
                await worker.ready.wait()
            yield worker
            stop.set()
            await asyncio.wait([running])


@dataclass(kw_only=True)
class TwoRegions:
    """Both regions, and the way between them."""

    folder: Path
    home: Region
    other: Region
    links: list[CuttableLink] = field(default_factory=list)

    def cut(self) -> None:
        """Let nothing pass between the regions; neither is told."""
        for link in self.links:
            link.cut()

    async def mend(self) -> None:
        """Let it pass again."""
        await asyncio.gather(*(link.mend() for link in self.links))

    async def prepare(self) -> None:
        """Declare the streams, the mirror, and push the policy."""
        await self.home.done("streams", "apply")
        await self.home.done("policy", "push", self.folder / "policy", "--key", self.folder / "platform.pem")
        await self.other.done("streams", "apply", "--mirror")

    async def mirrored(self, sequence: int) -> None:
        """Wait until the mirror has a leader, and this message of AUDIT."""
        async with asyncio.timeout(WITHIN):
            while True:
                with suppress(BusUnavailable):
                    if await self.other.last(MIRROR) >= sequence:
                        return
                await asyncio.sleep(0.1)


async def until_acknowledged(client: Client, action: str, amount: int) -> int:
    """Submit until it is acknowledged, as a sender does that has to get it done, and return the result."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                handle = await client.submit(action, Payment(amount=amount), idempotency_key=f"payment-{amount}")
            except BusUnavailable:
                await asyncio.sleep(0.1)
            else:
                return await handle.result(int, timeout=WITHIN)


@asynccontextmanager
async def two_regions() -> AsyncIterator[TwoRegions]:
    """Start six servers, without streams; end them afterwards."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        authority = DevelopmentAuthority(DOMAIN)
        api = await stack.enter_async_context(EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=3_600))
        for name in ROLES:
            address = await api.add_identity(NAMES.id_of(name))
            link = folder / "api" / f"{name}.sock"
            if Path(address.removeprefix("unix://")) != link:
                link.symlink_to(address.removeprefix("unix://"))
        _write_policy(folder)
        make_key_file(folder / "log.key", ORIGIN)
        regions = {name: Region(name=name, file=folder / f"{name}.toml") for name in (HOME, OTHER)}
        made = TwoRegions(folder=folder, home=regions[HOME], other=regions[OTHER])
        leaf_ports = [held_port() for _ in range(3)]
        made.links = [await stack.enter_async_context(CuttableLink(port)) for port in leaf_ports]
        for region in regions.values():
            region.servers = _servers(folder, region.name, authority, leaf_ports, made.links)
            urls = json.dumps([server.url for server in region.servers])
            region.file.write_text(SETTINGS.format(folder=folder, urls=urls, origin=ORIGIN, region=region.name))
            for server in region.servers:
                stack.push_async_callback(server.program.stop)
        async with asyncio.TaskGroup() as group:
            for region in regions.values():
                for server in region.servers:
                    group.create_task(server.__aenter__())
        await _until_there(made.home)
        yield made


async def _until_there(home: Region) -> None:
    """Wait until the home region has a leader."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                async with open_connection("operator", home.settings) as (_, connection):
                    await stream_state(connection.jetstream, MIRROR)
            except (BusUnavailable, ConfigurationError):
                await asyncio.sleep(0.1)
            else:
                return


def _servers(
    folder: Path, name: str, authority: DevelopmentAuthority, leaf_ports: Sequence[int], links: Sequence[CuttableLink]
) -> tuple[NatsServer, ...]:
    server_id, region_id = DOMAIN.id(f"/nats/{name}"), DOMAIN.id(f"/nats/{OTHER}")
    mirror_id, routes = DOMAIN.id(f"/nats/{OTHER}/mirror"), tuple(held_port() for _ in range(3))
    agents, streams = _users(with_streams=False), _users(with_streams=True)
    servers = []
    for number, (route, leaf) in enumerate(zip(routes, leaf_ports, strict=True), 1):
        svid, mirror_svid = folder / f"{name}{number}-svid", folder / f"{name}{number}-mirror"
        write_server_svid(svid, authority, server_id)
        if name == HOME:
            part: HomePart | RegionPart = HomePart(
                domain=HOME, leaf_port=leaf, region_id=region_id, mirror_id=mirror_id
            )
            access = home_users(agents, with_streams=streams)
        else:
            write_server_svid(mirror_svid, authority, mirror_id)
            ports = tuple(link.port for link in links)
            part = RegionPart(domain=OTHER, home=HOME, home_ports=ports, mirror_svid=mirror_svid)
            access = region_users(agents, with_streams=streams, home=HOME)
        servers.append(
            NatsServer(
                folder / f"{name}{number}",
                svid=svid,
                port=held_port(),
                monitor=held_port(),
                access=access,
                name=f"{name}{number}",
                parts=(Route(port=route, ports=routes, server_id=server_id, cluster=name), part),
            )
        )
    return tuple(servers)


def _users(*, with_streams: bool) -> dict[SpiffeId, Permissions]:
    return {
        NAMES.id_of(name): permissions_of(role, NAMES.id_of(name), NAMES)
        for name, role in ROLES.items()
        if role.with_streams is with_streams
    }


def _write_policy(folder: Path) -> None:
    authz = folder / "policy" / "sealbus" / "authz"
    authz.mkdir(parents=True)
    (authz / "decision.rego").write_text(POLICY)
    revoked = folder / "policy" / "sealbus" / "registry" / "revoked"
    revoked.mkdir(parents=True)
    (revoked / "data.json").write_text(json.dumps({"agents": {}, "users": {}, "sessions": {}, "clients": {}}))
    _, signing = key_file(folder / "platform.pem")
    (folder / "platform.pub").write_text(public_pem(signing.public), encoding="ascii")
