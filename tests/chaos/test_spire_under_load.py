"""Real SPIRE under a bus that works: SVIDs of seconds, both of its processes killed, its authority changed; nobody notices.

Server and agent have X.509-SVIDs of 12 seconds. A publisher goes on all the while and must see no failure: connections
are replaced before they must end, reloads of the server keep them, and what SPIRE gave stays in force while it is away.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from cryptography import x509
from stack.authorities import Authorities, Kind
from stack.identity_writer import IdentityWriter
from stack.nats_server import NatsServer, static_users
from support.lab import QUICK, make_stream, outgoing
from support.lab import until as until_within
from support.ports import held_port
from support.spire import entry, spire
from support.workload_api import short_folder

from sealbus.agents.dev.nats.config import Permissions
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import PubAck
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = [
    pytest.mark.spire,
    pytest.mark.nats,
    pytest.mark.workload_api,
    pytest.mark.slow,
]

SERVER = SpiffeId("spiffe://example.org/nats/server")
AGENT = SpiffeId("spiffe://example.org/agent/a")
TTL = 12
WITHIN = 60.0


class Load:
    """A publisher that goes on until it is told to stop, and what came of each message."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport = NatsTransport(connection)
        self.stop = asyncio.Event()
        self.sent = 0
        self.failures: list[object] = []
        self.expired = 0

    async def run(self) -> None:
        while not self.stop.is_set():
            for result in await self._transport.publish([outgoing(self.sent)], deadline=5.0):
                if not isinstance(result, PubAck) or result.duplicate:
                    self.failures.append(result)
            self.sent += 1
            self.expired += self._connection.link.not_after <= wall_clock()
            await asyncio.sleep(0.01)  # paces it, so that the run is about rotation and not about throughput

    async def more(self, messages: int = 50) -> None:
        """Return once it has published this many more."""
        goal = self.sent + messages
        await until_within(lambda: self.sent >= goal, seconds=WITHIN)


async def test_rotation_kills_and_a_new_authority_without_a_failure() -> None:
    counters = Counters()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(
            spire(entry(str(SERVER), x509_ttl=TTL, dns=("localhost",)), entry(str(AGENT), x509_ttl=TTL))
        )
        folder = stack.enter_context(short_folder())
        svid = folder / "svid"
        server = NatsServer(
            folder / "nats",
            svid=svid,
            port=held_port(),
            monitor=held_port(),
            access=static_users({}, with_streams={AGENT: Permissions(publish=(">",), subscribe=(">",))}),
        )
        await stack.enter_async_context(
            IdentityWriter(svid, address=running.agent.address, spiffe_id=SERVER, pid_file=server.pid_file)
        )
        await stack.enter_async_context(server)
        identity = await stack.enter_async_context(
            WorkloadIdentity.connect(running.agent.address, spiffe_id=AGENT, deadline=60)
        )
        connection = await stack.enter_async_context(
            Connection(
                [server.url],
                identity=identity,
                server_ids=frozenset({SERVER}),
                inbox_prefix="_INBOX.a.",
                options=QUICK,
                counters=counters,
            )
        )
        await make_stream(connection)
        load = Load(connection)

        def reloads() -> int:
            return server.log_file.read_text().count("Reloaded server configuration")

        def connections() -> float:
            return counters.value("sealbus_bus_connections_total")

        def trusted_by_server() -> set[bytes]:
            return {
                one.tbs_certificate_bytes for one in x509.load_pem_x509_certificates((svid / "bundle.pem").read_bytes())
            }

        def trusted_by_agent() -> set[bytes]:
            anchors = identity.x509().bundles[AGENT.trust_domain]
            return {x509.load_der_x509_certificate(one).tbs_certificate_bytes for one in anchors}

        async def rotated() -> None:
            """Wait for two more reloads and two more connections, both made with what there is now."""
            before = reloads(), connections()
            await until_within(lambda: reloads() >= before[0] + 2 and connections() >= before[1] + 2, seconds=WITHIN)

        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            await rotated()

            await running.agent.program.kill9()
            await load.more()
            await running.agent.program.start()
            await rotated()

            await running.server.program.kill9()
            await load.more()
            await running.server.program.start()
            await rotated()

            authorities = Authorities(running.server, Kind.X509)
            prepared = await authorities.prepare()
            await until_within(lambda: len(trusted_by_server()) == len(trusted_by_agent()) == 2, seconds=WITHIN)
            await rotated()
            before = await authorities.activate(prepared)
            await rotated()
            await authorities.taint(before)
            await rotated()
            await authorities.revoke(before)
            await until_within(lambda: len(trusted_by_server()) == len(trusted_by_agent()) == 1, seconds=WITHIN)
            assert trusted_by_server() == trusted_by_agent()
            await rotated()
            load.stop.set()

        info = json.loads((await connection.request("$JS.API.STREAM.INFO.TASKS", b"", deadline=5.0)).payload)
        assert load.failures == []
        assert load.expired == 0
        assert int(info["state"]["messages"]) == load.sent > 500
        assert "Failed to reload" not in server.log_file.read_text()
