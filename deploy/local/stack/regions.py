"""Two regions on one machine: SPIRE, three nats-servers for each, streams and notary at home, and an agent in each region."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sealbus.agents.dev.held_port import held_port
from sealbus.agents.dev.nats.config import BrokerRole, Permissions, permissions_of
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from stack.identity_writer import IdentityWriter
from stack.nats_cluster import ServerPorts
from stack.nats_regions import HomePart, RegionPart, home_users, region_users
from stack.nats_server import NatsServer, Route
from stack.program import output_of
from stack.roster import AGENTS, NATS, NOTARY, PEOPLE, TRUST_DOMAIN, Workload, entries
from stack.running import Lives, empty_site, make_notary, make_worker, push_policy
from stack.site import SEALBUS, Site
from stack.spire import open_spire
from stack.spire_entry import Entry

__all__ = ["HOME", "OTHER", "RegionPorts", "Regions", "open_regions"]

HOME: Final = "home"
OTHER: Final = "west"
_MIRROR_ID: Final = TRUST_DOMAIN.id("/nats/mirror")
_SERVERS: Final = 3
_ROLES: Final = {"notary": BrokerRole.NOTARY, "operator": BrokerRole.OPERATOR}
_AGENTS: Final = {HOME: "inventory", OTHER: "pricing"}
"""Which example agent runs where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPorts:
    """The ports of the servers of both regions, by region, and where the servers of the home take leaf nodes."""

    servers: dict[str, tuple[ServerPorts, ...]]
    leaf: tuple[int, ...]

    @classmethod
    @contextmanager
    def held(cls) -> Generator[RegionPorts, None, None]:
        """Yield different ports that the system gives to nobody else until the end."""
        with ExitStack() as stack:

            def port() -> int:
                return stack.enter_context(held_port())

            servers = {
                region: tuple(ServerPorts(client=port(), route=port(), monitor=port()) for _ in range(_SERVERS))
                for region in (HOME, OTHER)
            }
            yield cls(servers=servers, leaf=tuple(port() for _ in range(_SERVERS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What runs: the servers of each region, and the environment of a `sealbus` command there."""

    site: Site
    servers: dict[str, tuple[NatsServer, ...]]

    def environment(self, region: str, workload: Workload) -> dict[str, str]:
        """Return the variables of a command of `workload` that is connected to the servers of `region`."""
        urls = [f"tls://localhost:{server.port}" for server in self.servers[region]]
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            **self.site.environment(workload),
            "SEALBUS_NATS": json.dumps(urls),
            "SEALBUS_STREAMS__REPLICAS": str(_SERVERS),
            "SEALBUS_STREAMS__MIRROR__DOMAIN": HOME,
        }


@asynccontextmanager
async def open_regions(site: Site, ports: RegionPorts) -> AsyncGenerator[Regions, None]:
    """Start everything in the folder of `site`, which is emptied first, and yield once all of it is well.

    Needs root, and the programs of `make tools`. Raises `ConfigurationError`, one line that names what did not start.
    """
    await asyncio.to_thread(empty_site, site)
    lives, operator = Lives(), PEOPLE[0]
    known = entries(x509_ttl=lives.x509, jwt_ttl=lives.jwt, server_ttl=lives.server)
    mirror = Entry(spiffe_id=_MIRROR_ID, uid=NATS.uid, x509_ttl=lives.server, jwt_ttl=lives.jwt, dns=NATS.dns)
    async with AsyncExitStack() as stack:
        spire = await stack.enter_async_context(
            open_spire(
                site.folder / "spire",
                trust_domain=TRUST_DOMAIN,
                port=site.ports.spire,
                entries=[*known, mirror],
                refresh=lives.refresh,
            )
        )
        site = replace(site, workload_api=spire.agent.address)
        folder = site.own_folder(NATS)
        servers = {region: _servers(folder, region, ports) for region in (HOME, OTHER)}
        await _start_servers(stack, site, servers)
        regions = Regions(site=site, servers=servers)
        at_home, away = (regions.environment(region, operator) for region in (HOME, OTHER))
        await output_of([SEALBUS, "streams", "apply", "--as", operator.name], environment=at_home)
        await push_policy(site, environment=at_home)
        await output_of([SEALBUS, "streams", "apply", "--mirror", "--as", operator.name], environment=away)
        programs = [await make_notary(site, environment=regions.environment(HOME, NOTARY))]
        for region, name in _AGENTS.items():
            [agent] = [replace(one, engine="embedded") for one in AGENTS if one.name == name]
            programs.append(make_worker(site, agent, environment=regions.environment(region, agent)))
        async with asyncio.TaskGroup() as group:
            for program in programs:
                stack.push_async_callback(program.stop)
                group.create_task(program.start())
        yield regions


async def _start_servers(stack: AsyncExitStack, site: Site, servers: dict[str, tuple[NatsServer, ...]]) -> None:
    """Start the servers of both regions, each beside the writers of its SVIDs."""
    everyone = [(region, server) for region, several in servers.items() for server in several]
    writers = []
    for region, server in everyone:
        ids = {"svid": NATS.spiffe_id} | ({"mirror": _MIRROR_ID} if region == OTHER else {})
        for kind, spiffe_id in ids.items():
            writers.append(
                IdentityWriter(
                    _svid(server.folder, kind),
                    address=site.workload_api,
                    spiffe_id=spiffe_id,
                    pid_file=server.pid_file,
                    uid=NATS.uid,
                )
            )
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            stack.push_async_callback(writer.program.stop)
            group.create_task(writer.__aenter__())
    async with asyncio.TaskGroup() as group:
        for _, server in everyone:
            stack.push_async_callback(server.program.stop)
            group.create_task(server.__aenter__())


def _servers(folder: Path, region: str, ports: RegionPorts) -> tuple[NatsServer, ...]:
    own = ports.servers[region]
    routes = tuple(server.route for server in own)
    agents, operators = _users(with_streams=False), _users(with_streams=True)
    servers = []
    for number, (port, leaf) in enumerate(zip(own, ports.leaf, strict=True), 1):
        name = f"{region}{number}"
        if region == HOME:
            part: HomePart | RegionPart = HomePart(
                domain=HOME, leaf_port=leaf, region_id=NATS.spiffe_id, mirror_id=_MIRROR_ID
            )
            access = home_users(agents, with_streams=operators)
        else:
            svid = _svid(folder / name, "mirror")
            part = RegionPart(domain=OTHER, home=HOME, home_ports=ports.leaf, mirror_svid=svid)
            access = region_users(agents, with_streams=operators, home=HOME)
        servers.append(
            NatsServer(
                folder / name,
                svid=_svid(folder / name, "svid"),
                port=port.client,
                monitor=port.monitor,
                access=access,
                name=name,
                parts=(Route(port=port.route, ports=routes, server_id=NATS.spiffe_id, cluster=region), part),
                uid=NATS.uid,
            )
        )
    return tuple(servers)


def _svid(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}-{kind}")


def _users(*, with_streams: bool) -> dict[SpiffeId, Permissions]:
    names = Names(TRUST_DOMAIN)
    return {
        workload.spiffe_id: permissions_of(role, workload.spiffe_id, names)
        for workload in (NOTARY, *AGENTS, *PEOPLE)
        if (role := _ROLES.get(workload.name, BrokerRole.AGENT)).with_streams is with_streams
    }
