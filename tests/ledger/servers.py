"""The nats-servers of a site: one, three that are a cluster, or these and others that join them as leaf nodes.

Those are one leaf node that all clients are connected to, or another region: three servers with a JetStream of their own.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx2
from support.cut import CuttableLink
from support.nats_server import find_nats_server
from support.ports import held_port

from sealbus.agents.control.callout.key_files import CalloutKeys
from sealbus.agents.dev.nats.accounts import AGENTS, STREAMS, SYSTEM, accounts
from sealbus.agents.dev.nats.config import BrokerUser, NatsConfig
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Layout", "Server", "Servers", "ended", "open_servers"]

READY_SECONDS = 180.0
LOOK = 0.1
STORE_BYTES = 1 << 34
"""What a server may hold as far as it knows: the disk is full before that."""
DOMAIN = "hub"
"""Of the cluster's JetStream."""
HOST = "localhost"
"""A DNS name of the servers' SVID, which those that open a route or a leaf link check."""


class Layout(StrEnum):
    """Which servers there are."""

    SINGLE = "single"
    CLUSTER = "cluster"
    LEAF = "leaf"
    REGIONS = "regions"


@dataclass(slots=True)
class Server:
    """One nats-server with its configuration."""

    name: str
    folder: Path
    port: int
    document: dict[str, Any]
    process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Start it and wait until it takes connections; one that runs is left alone."""
        if self.process is not None and self.process.returncode is None:
            return
        config = self.folder / f"{self.name}.conf"
        config.write_text(json.dumps(self.document))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                find_nats_server(), "-c", str(config), stdout=log, stderr=log
            )
        async with asyncio.timeout(READY_SECONDS):
            while True:
                if self.process.returncode is not None:
                    raise RuntimeError(f"nats-server ended by itself; see {self.log}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                return

    async def kill(self) -> None:
        """kill -9."""
        await ended(self.process, signal.SIGKILL)

    async def stop(self) -> None:
        await ended(self.process, signal.SIGTERM)


async def ended(process: asyncio.subprocess.Process | None, how: signal.Signals) -> None:
    """Send a signal, and return when the process is gone."""
    if process is None or process.returncode is not None:
        return
    process.send_signal(how)
    try:
        async with asyncio.timeout(READY_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


@dataclass(slots=True)
class Servers:
    """What `open_servers` laid out; none runs before `start`."""

    storing: tuple[Server, ...]
    """Without the leaf node, which stores nothing."""
    leaf: Server | None = None
    link: tuple[CuttableLink, ...] = ()
    """The ways of the leaf node, or of the other region, to the others."""
    region: tuple[Server, ...] = ()
    """The servers of the other region, which store nothing of the load."""
    always: bool = True
    """Whether they sync each write."""

    @property
    def entrances(self) -> list[int]:
        """The ports of those that clients are connected to."""
        return [self.leaf.port] if self.leaf is not None else [one.port for one in self.region or self.storing]

    async def start(self) -> None:
        """Start all that do not run."""
        await asyncio.gather(*(one.start() for one in self._all()))

    def configure(self, *, always: bool) -> None:
        """Have them sync each write from their next start on, or when nats-server does so by itself."""
        for one in self.storing:
            if always:
                one.document["jetstream"]["sync_interval"] = "always"
            else:
                one.document["jetstream"].pop("sync_interval", None)

    async def caught_up(self) -> None:
        """Wait until each says, as in docs/runbooks.md, that it has what the others have."""
        async with asyncio.timeout(READY_SECONDS), httpx2.AsyncClient(trust_env=False) as http:
            for one in self.storing:
                while not (await http.get(f"http://{one.document['http']}/healthz")).is_success:  # noqa: ASYNC110 -- servers say nothing by themselves
                    await asyncio.sleep(LOOK)

    async def kill(self) -> None:
        """kill -9 of all."""
        await asyncio.gather(*(one.kill() for one in self._all()))

    async def stop(self) -> None:
        await asyncio.gather(*(one.stop() for one in self._all()))

    def _all(self) -> list[Server]:
        return [*self.storing, *([self.leaf] if self.leaf is not None else []), *self.region]


@asynccontextmanager
async def open_servers(
    folder: Path,
    layout: Layout,
    *,
    authority: DevelopmentAuthority,
    users: Sequence[BrokerUser],
    callout: CalloutKeys | None = None,
    always: bool = True,
) -> AsyncIterator[Servers]:
    """Lay out the servers of `layout` below `folder`, and stop them at the end; `always` is whether they sync first.

    Their SPIFFE ID is `/nats` of the authority's trust domain, and their stores are in `folder`/store. With `callout` those
    that store ask who holds these keys about each connection, instead of having `users`.
    """
    server_id = authority.trust_domain.id("/nats")
    svid = write_server_svid(folder / "tls", authority, server_id, dns=(HOST,))
    config = NatsConfig(
        port=held_port(),
        certificate=svid.certificate,
        key=svid.key,
        bundle=svid.bundle,
        store=folder / "store",
        users=tuple(users),
        max_store_bytes=STORE_BYTES,
        sync=always,
    )
    async with AsyncExitStack() as stack:
        if layout is Layout.SINGLE:
            servers = Servers((Server("nats", folder, config.port, json.loads(config.render())),), always=always)
        else:
            ports = [held_port() for _ in range(3)]
            servers = Servers(_cluster(folder, config, ports, server_id=server_id), always=always)
        for one in servers.storing:
            one.document["http"] = f"127.0.0.1:{held_port()}"
        if callout is not None:
            for one in servers.storing:
                _ask_callout(one.document, callout.public())
        if layout in (Layout.LEAF, Layout.REGIONS):
            links = [await stack.enter_async_context(CuttableLink(_leaf_port(one))) for one in servers.storing]
            servers.link, hubs = tuple(links), [one.port for one in links]
            if layout is Layout.LEAF:
                servers.leaf = _leaf(folder, config, hubs)
            else:
                servers.region = _region(folder, config, hubs, server_id=server_id)
        stack.push_async_callback(servers.stop)
        yield servers


def _cluster(folder: Path, config: NatsConfig, ports: Sequence[int], *, server_id: SpiffeId) -> tuple[Server, ...]:
    """Return three servers as `config`, at `ports`, each with a store of its own; leaf nodes of `server_id` may join."""
    routes = [held_port() for _ in ports]
    servers = []
    for number, (port, route) in enumerate(zip(ports, routes, strict=True), 1):
        own = replace(config, port=port, server_name=f"n{number}", store=config.store / f"n{number}")
        document = json.loads(own.render())
        tls = _server_tls(own)
        document["jetstream"]["domain"] = DOMAIN
        document["cluster"] = _joined("ledger", route, routes, server_id=server_id, tls=tls)
        document["leafnodes"] = {
            "listen": f"127.0.0.1:{held_port()}",
            "no_advertise": True,
            "authorization": {"users": [{"user": str(server_id), "account": AGENTS}], "timeout": 5},
            "tls": tls,
        }
        servers.append(Server(own.server_name, folder, port, document))
    return tuple(servers)


def _joined(
    name: str, route: int, routes: Sequence[int], *, server_id: SpiffeId, tls: Mapping[str, object]
) -> dict[str, object]:
    """Return what makes a server one of the cluster `name`, which listens at `route` for the others."""
    return {
        "name": name,
        "listen": f"127.0.0.1:{route}",
        "routes": [f"nats-route://{HOST}:{one}" for one in routes],
        "no_advertise": True,
        "authorization": {"user": str(server_id), "timeout": 5},
        "tls": tls,
    }


def _region(folder: Path, config: NatsConfig, hubs: Sequence[int], *, server_id: SpiffeId) -> tuple[Server, ...]:
    """Return three servers that are leaf nodes and a cluster with a JetStream of its own, as in deploy/regions."""
    routes = [held_port() for _ in range(3)]
    servers = []
    for number, route in enumerate(routes, 1):
        name = f"other{number}"
        server = _leaf(folder, replace(config, port=held_port()), hubs, name=name)
        server.document["jetstream"] = {"store_dir": str(folder / name), "domain": "other"}
        server.document["accounts"][STREAMS] = {"jetstream": "enabled"}
        server.document["cluster"] = _joined("other", route, routes, server_id=server_id, tls=_server_tls(config))
        servers.append(server)
    return tuple(servers)


def _leaf_port(server: Server) -> int:
    """Return where leaf nodes join a server of a cluster."""
    return int(str(server.document["leafnodes"]["listen"]).rpartition(":")[2])


def _leaf(folder: Path, config: NatsConfig, hubs: Sequence[int], *, name: str = "leaf") -> Server:
    """Return a leaf node as `config`, without streams of its own, that joins at one of the ports `hubs`."""
    document = json.loads(replace(config, server_name=name).render())
    # One account with all users, of which none is in the account of the streams: what they ask crosses at the cluster.
    users = [user for account in document["accounts"].values() for user in account.get("users", ())]
    document["accounts"] = {AGENTS: {"users": users}, SYSTEM: {}}
    del document["jetstream"]
    # Without a shared system account a request for JetStream passes by the name of a domain alone, under which the leaf
    # node puts those of its clients, before it looks whether they may publish them.
    document["default_js_domain"] = {AGENTS: DOMAIN}
    for user in users:
        publish = user["permissions"]["publish"]
        publish["allow"] = [one.replace("$JS.API.", f"$JS.{DOMAIN}.API.") for one in publish["allow"]]
    document["leafnodes"] = {
        "reconnect": "1s",
        "remotes": [
            {
                "urls": [f"tls://{HOST}:{port}" for port in hubs],
                "account": AGENTS,
                "tls": {
                    "cert_file": str(config.certificate),
                    "key_file": str(config.key),
                    "ca_file": str(config.bundle),
                },
            }
        ],
    }
    return Server(name, folder, config.port, document)


def _ask_callout(document: dict[str, Any], keys: Mapping[str, str]) -> None:
    """Change a configuration as deploy/local/nats/nats.conf has it."""
    user = keys["CALLOUT_USER"]
    responder = {
        "publish": {"allow": ["$SYS._INBOX.*.*"]},
        "subscribe": {"allow": ["$SYS.REQ.USER.AUTH sealbus-callout", "_INBOX.callout.>"]},
    }
    document["accounts"] = {
        "AUTH": {"users": [{"nkey": user, "permissions": responder}]},
        **accounts(),
    }
    document["authorization"] = {
        "auth_callout": {
            "issuer": keys["CALLOUT_ISSUER"],
            "account": "AUTH",
            "auth_users": [user],
            "xkey": keys["CALLOUT_XKEY"],
        }
    }
    # The SPIFFE ID in a certificate is for the callout to judge.
    del document["tls"]["verify_and_map"]
    document["tls"]["verify"] = True


def _server_tls(config: NatsConfig) -> dict[str, object]:
    return {
        "cert_file": str(config.certificate),
        "key_file": str(config.key),
        "ca_file": str(config.bundle),
        "verify_and_map": True,
        "min_version": "1.3",
        "timeout": 5,
    }
