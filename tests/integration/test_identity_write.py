"""`sealbus identity write` beside a real nats-server, with SVIDs of seconds from real SPIRE."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from stack.identity_writer import IdentityWriter
from stack.nats_server import NatsServer, static_users
from stack.program import output_of
from stack.run_as import as_user
from stack.spire import Spire
from support.lab import QUICK, until
from support.ports import held_port
from support.spire import entry, spire
from support.workload_api import short_folder

from sealbus.agents.dev.nats.config import Permissions
from sealbus.agents.identity import WorkloadIdentity
from sealbus.agents.runtime.health import HealthServer, Probes
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = [pytest.mark.spire, pytest.mark.nats, pytest.mark.workload_api]

SERVER = SpiffeId("spiffe://example.org/nats/server")
AGENT = SpiffeId("spiffe://example.org/agent/a")
RELOADED = "Reloaded server configuration"
ALL = Permissions(publish=(">",), subscribe=(">",))


@dataclass(kw_only=True)
class Site:
    """A nats-server with its writer, and an agent whose own SVID lives for an hour."""

    spire: Spire
    server: NatsServer
    writer: IdentityWriter
    agent: WorkloadIdentity

    @property
    def log(self) -> str:
        return self.server.log_file.read_text()

    async def served(self) -> bytes:
        """Return the certificate that a new connection is shown, verified as every connection's is."""
        context = client_context(self.agent.x509(), expected=frozenset({SERVER}))
        async with asyncio.timeout(60):
            _, writer = await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context)
            found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            # Not an orderly end: the server speaks first, and its greeting is on the way.
            writer.transport.abort()
        return found

    def connection(self, counters: Counters) -> Connection:
        return Connection(
            [self.server.url],
            identity=self.agent,
            server_ids=frozenset({SERVER}),
            inbox_prefix="_INBOX.a.",
            options=QUICK,
            counters=counters,
        )


@asynccontextmanager
async def open_site(*, callout_health: tuple[str, ...] = (), uid: int | None = None) -> AsyncIterator[Site]:
    """Start it all. The server's X.509-SVID lives 12 seconds and is new every second or two.

    Server and writer run as user `uid`, whose identity alone is the server's; without it, as ours.
    """
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            spire(entry(str(SERVER), uid=uid, x509_ttl=12, dns=("localhost",)), entry(str(AGENT), x509_ttl=3600))
        )
        folder = stack.enter_context(short_folder())
        folder.chmod(0o711)
        server = NatsServer(
            folder / "nats",
            svid=folder / "svid",
            port=held_port(),
            monitor=held_port(),
            access=static_users({}, with_streams={AGENT: ALL}),
            uid=uid,
        )
        writer = await stack.enter_async_context(
            IdentityWriter(
                folder / "svid",
                address=running.agent.address,
                spiffe_id=SERVER,
                pid_file=server.pid_file,
                callout_health=callout_health,
                uid=uid,
            )
        )
        await stack.enter_async_context(server)
        agent = await stack.enter_async_context(
            WorkloadIdentity.connect(running.agent.address, spiffe_id=AGENT, deadline=60)
        )
        yield Site(spire=running, server=server, writer=writer, agent=agent)


async def changed(site: Site, before: bytes) -> bytes:
    """Return the certificate that is served once it is another than `before`."""
    async with asyncio.timeout(60):
        while (now := await site.served()) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)  # there is no event for what another process does
    return now


async def test_new_connections_see_each_rotation_and_old_ones_live_on() -> None:
    counters = Counters()
    async with open_site() as site, site.connection(counters) as connection:
        link, seen = connection.link, {await site.served()}
        for _ in range(3):
            seen.add(await changed(site, await site.served()))
        assert len(seen) >= 4
        assert connection.link is link
        answer = await connection.request("$JS.API.INFO", b"", deadline=60.0)
        assert b"account_info_response" in answer.payload
        assert site.log.count(RELOADED) >= 3
        assert "Failed to reload" not in site.log
        assert counters.value("sealbus_bus_connections_total") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: server and writer run as a user of their own")
async def test_the_server_is_a_user_of_its_own() -> None:
    """As `make stack` runs it: by its user SPIRE knows it, and no other user's process can read its key."""
    try:
        await output_of([*as_user(64_123), sys.executable, "-c", "import sealbus"])
    except (ConfigurationError, PermissionError):
        pytest.skip("another user cannot run this interpreter: it is in a private folder")
    async with open_site(uid=64_123) as site:
        assert await changed(site, await site.served())
        for program in (site.server.program, site.writer.program):
            status = (await asyncio.to_thread(Path(f"/proc/{program.pid}/status").read_text)).splitlines()
            assert "Uid:\t64123\t64123\t64123\t64123" in status
        key = await asyncio.to_thread((site.writer.folder / "svid.key").stat)
        assert (key.st_uid, key.st_mode & 0o777) == (64_123, 0o600)


async def test_junk_on_the_disk_is_refused_and_the_old_certificate_keeps_serving() -> None:
    """Whatever a writer of another kind leaves there: a reload reads all of it or nothing."""
    async with open_site() as site:
        await site.writer.program.stop()
        before = await site.served()
        current = site.writer.folder / ".current"
        good = (current / "svid.pem").read_bytes()
        for junk in (b"", b"junk\n", good[: len(good) // 2]):
            (current / "svid.pem").write_bytes(junk)
            refusals = site.log.count("Failed to reload")
            os.kill(site.server.program.pid, signal.SIGHUP)
            await until(lambda refusals=refusals: site.log.count("Failed to reload") > refusals)  # type: ignore[misc]
            assert await site.served() == before
        (current / "svid.pem").write_bytes(good)
        await site.writer.program.start()
        assert await changed(site, before) != before


async def test_without_a_healthy_responder_there_is_no_reload() -> None:
    """Files go on being renewed, so that a server that is started has good ones; the running one waits."""
    down = {"callout": "not subscribed"}
    probes = Probes(healthy=dict, ready=lambda: down)
    async with (
        LoopWatch() as watch,
        HealthServer("0", probes=probes, counters=Counters(), watch=watch) as responder,
        open_site(
            callout_health=(f"http://127.0.0.1:{held_port()}/readyz", f"http://127.0.0.1:{responder.port}/readyz")
        ) as site,
    ):
        before = await site.served()
        sets = (site.writer.folder / ".current").readlink()
        await until(lambda: (site.writer.folder / ".current").readlink() != sets)
        sets = (site.writer.folder / ".current").readlink()
        await until(lambda: (site.writer.folder / ".current").readlink() != sets)
        assert RELOADED not in site.log
        assert await site.served() == before
        # Before that it may say that the server has not written its process id yet.
        waiting = [line for line in site.writer.program.said if line.startswith("not reloading: no callout")]
        assert len(waiting) == 1
        assert "no callout responder is healthy" in waiting[0]
        down.clear()
        assert await changed(site, before) != before
        assert RELOADED in site.log


async def test_an_identity_that_is_withdrawn_leaves_the_disk() -> None:
    """Nothing new may start with it; the running server is not told, because it could only refuse."""
    async with spire() as running:
        [entry_id] = await running.register(entry(str(SERVER)))
        with short_folder() as folder:
            async with IdentityWriter(
                folder / "svid", address=running.agent.address, spiffe_id=SERVER, pid_file=folder / "nats.pid"
            ) as writer:
                key = folder / "svid" / "svid.key"
                assert key.stat().st_mode & 0o777 == 0o600
                await running.server.delete(entry_id)
                await until(lambda: not key.exists())
                await until(lambda: any("withdrawn" in line for line in writer.program.said))
                assert not [name for name in os.listdir(folder / "svid") if name.startswith(".set-")]  # noqa: PTH208
                await running.register(entry(str(SERVER)))
                await until(key.exists)


async def test_without_an_identity_it_ends_with_one_line() -> None:
    async with spire() as running:
        with short_folder() as folder:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "sealbus", "identity", "write", str(folder / "svid"), "--once"),
                env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": running.agent.address},
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await process.communicate()
            assert process.returncode == 1
            assert [line.split(":")[0] for line in said.decode().splitlines()] == ["sealbus", "  next"]
            assert "[identity_unavailable]" in said.decode()
            assert not (folder / "svid" / "svid.pem").exists()
