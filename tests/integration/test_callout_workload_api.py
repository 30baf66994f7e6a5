"""The whole way from settings: identities from a Workload API that are renewed every few seconds, workers, callout."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.callout import CONTROL, DOMAIN, NAMES, SERVER_ID, CalloutSite
from support.lab import until
from support.ports import held_port
from support.x509 import IssuedSvid, ThrowawayCa

from sealbus.agents.control.callout.key_files import write_keys
from sealbus.agents.control.callout.responder import RefusedConnection
from sealbus.agents.control.callout.role import open_callout
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.examples import inventory, pricing
from sealbus.agents.examples.inventory import Stock, Update
from sealbus.agents.examples.store import DATABASE_VARIABLE
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.open import open_connection, open_node, streams_of
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.clocks import wall_clock
from sealbus.bus.streams.plan import apply
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.engines.embedded import EmbeddedEngine

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

WITHIN = 150.0
"""Seconds after which a test has hung; no measure of speed."""
LIFE = 16
"""Seconds of an X.509-SVID: connections are renewed at half of it."""
NAMED = ("control", "operator", "inventory", "pricing", "shop-web")


@dataclass(kw_only=True)
class Deployment:
    """What runs: settings, authority and server, and what the responder refused."""

    settings: Settings
    authority: DevelopmentAuthority
    api: EmbeddedWorkloadApi
    server: CalloutSite
    refused: list[RefusedConnection]
    identity: WorkloadIdentity
    stack: AsyncExitStack

    def write_server_svid(self) -> None:
        """Write the server's SVID and the bundle as they are now."""
        write_server_svid(self.server.folder, self.api.authority, SERVER_ID, ttl=3_600)

    async def worker(self, agent: Agent) -> Worker:
        node = await self.stack.enter_async_context(open_node(agent.name, self.settings))
        worker = await self.stack.enter_async_context(Worker(agent, node))
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))

        async def end() -> None:
            stop.set()
            await running

        self.stack.push_async_callback(end)
        await worker.ready.wait()
        return worker

    def bundle(self) -> tuple[bytes, ...]:
        """Return the authorities that the responder trusts now."""
        return self.identity.x509().bundles[DOMAIN]

    @property
    def violations(self) -> list[str]:
        return [line for line in self.server.log.splitlines() if "Violation" in line]


def written(folder: Path, port: int) -> Settings:
    write_bundle(build_bundle(STARTER), folder / "bundle.tar.gz")
    keys = folder / "keys"
    (folder / "sealbus.toml").write_text(
        f"""
trust_domain = "{DOMAIN}"
nats = ["tls://127.0.0.1:{port}"]
nats_ids = ["{SERVER_ID}"]
workload_api = "unix://{folder / "api"}/{{name}}.sock"
[policy]
engine = "embedded"
bundle = "bundle.tar.gz"
[agents]
edge = "{NAMES.id_of("edge")}"
control = "{CONTROL}"
[context]
minters = ["{NAMES.id_of("edge")}"]
[streams.max_bytes]
tasks = "64MiB"
audit = "64MiB"
[control.callout]
issuer = "{keys / "issuer.seed"}"
xkey = "{keys / "xkey.seed"}"
nkey = "{keys / "user.seed"}"
"""
    )
    return load_settings(folder / "sealbus.toml", environment={})


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[Deployment]:
    port = held_port()
    keys = write_keys(folder / "keys")
    settings = await asyncio.to_thread(written, folder, port)
    async with AsyncExitStack() as stack:
        authority = DevelopmentAuthority(DOMAIN)
        api = await stack.enter_async_context(EmbeddedWorkloadApi(folder / "api", authority, x509_ttl=LIFE))
        for name in NAMED:
            address = await api.add_identity(NAMES.id_of(name))
            link = folder / "api" / f"{name}.sock"
            if Path(address.removeprefix("unix://")) != link:
                link.symlink_to(address.removeprefix("unix://"))
        nats = folder / "nats"
        server = CalloutSite(folder=nats, ca=ThrowawayCa(DOMAIN.name), trusted=(), keys=keys, port=port, stack=stack)
        files = write_server_svid(nats, api.authority, SERVER_ID, ttl=3_600)
        stack.push_async_callback(server.stop)
        await server.run(certificate=files.certificate, key=files.key, bundle=files.bundle)
        engine = await stack.enter_async_context(EmbeddedEngine(folder / "bundle.tar.gz"))
        identity = await stack.enter_async_context(WorkloadIdentity.connect(api.address(CONTROL), deadline=60))
        refused: list[RefusedConnection] = []
        callout = await stack.enter_async_context(
            open_callout(settings, identity=identity, engine=engine, on_refused=refused.append)
        )
        running = asyncio.create_task(callout.run())
        stack.callback(running.cancel)
        await until(lambda: not callout.problem)
        async with open_connection("operator", settings) as (_, connection):
            await apply(streams_of(settings), connection.jetstream)
        yield Deployment(
            settings=settings,
            authority=authority,
            api=api,
            server=server,
            refused=refused,
            identity=identity,
            stack=stack,
        )


@pytest.mark.slow
async def test_work_goes_on_while_everybody_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATABASE_VARIABLE, raising=False)
    async with deployed(tmp_path) as site, asyncio.timeout(WITHIN):
        worker = await site.worker(inventory.agent)
        await site.worker(pricing.agent)
        node = await site.stack.enter_async_context(open_node("shop-web", site.settings))
        client = Client.on(node)
        minter = MemoryIdentity(site.authority, NAMES.id_of("edge"))
        done = 0
        until_rotated = "sealbus_bus_rotations_total 3"
        while until_rotated not in worker.node.counters.render():
            user = mint_user(
                minter.sealer(),
                DevUser("alice", workload=NAMES.id_of("shop-web")),
                trust_domain=DOMAIN,
                now=wall_clock(),
            )
            handle = await client.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
            assert (await handle.result(Stock)).quantity == 3
            done += 1
        assert done > 10
        assert site.violations == []
        assert site.refused == []
        # By now every first certificate has ended, and with it the connection that was made with it.
        assert "sealbus_bus_reconnects_total" not in worker.node.counters.render()


def old_svid(site: Deployment) -> IssuedSvid:
    """Return a certificate of the authority of now that lives for an hour."""
    issued = site.authority.issue_x509(NAMES.id_of("inventory"), ttl=3_600)
    return IssuedSvid(
        spiffe_id=str(NAMES.id_of("inventory")),
        certificate=x509.load_der_x509_certificate(issued.chain[0]),
        private_key=cast("ec.EllipticCurvePrivateKey", serialization.load_der_private_key(issued.key, None)),
        not_before=0,
        not_after=issued.not_after,
    )


async def test_an_authority_is_replaced_under_everybody(tmp_path: Path) -> None:
    async with deployed(tmp_path) as site:
        site.server.ca.certificate = site.authority.x509.current.certificate
        async with (
            asyncio.timeout(WITHIN),
            open_connection("pricing", site.settings) as (_, connection),
            site.server.raw("inventory", svid=old_svid(site)) as client,
        ):
            site.authority.prepare_x509()
            site.write_server_svid()
            await site.server.reload()
            first = connection.link
            site.authority.activate_x509()
            await until(lambda: connection.connected and connection.link is not first)
            await until(lambda: not first.alive)
            assert await client.may_publish("audit.inventory")
            site.authority.prune_x509()
            site.write_server_svid()
            await until(lambda: len(site.bundle()) == 1)
            # The server keeps connections of the old authority; asked about them again, we don't.
            await site.server.reload()
            await client.closed()
            # Others with such a certificate may still be on their way to a new one, and are refused as well.
            ours = str(NAMES.id_of("inventory"))
            assert any(one.detail.startswith(f"{ours}: ") for one in site.refused)
            assert {str(one.code) for one in site.refused} == {"wrong_authority"}
            await connection.ready(WITHIN)
            await connection.link.flush(WITHIN)
