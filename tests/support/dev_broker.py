"""A real embedded nats-server for tests, with a throwaway CA behind it and clients that show its certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cryptography import x509
from support.raw_nats import RawNats
from support.x509 import ThrowawayCa

from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer
from sealbus.agents.dev.workload_api.server_svid import ServerSvidFiles
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = [
    "INVENTORY",
    "NAMES",
    "OPERATOR",
    "PRICING",
    "REFUSED",
    "SECONDS",
    "SERVER_ID",
    "STREAMS",
    "WORKLOADS",
    "Site",
    "running",
    "served_serial",
]

SECONDS = 60.0
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN)
SERVER_ID = DOMAIN.id("/nats/server")
INVENTORY = NAMES.id_of("inventory")
PRICING = NAMES.id_of("pricing")
OPERATOR = NAMES.id_of("operator")
STREAMS = declared_streams({"TASKS": 1_048_576, "AUDIT": 1_048_576})
WORKLOADS: Mapping[SpiffeId, BrokerRole] = {
    INVENTORY: BrokerRole.AGENT,
    PRICING: BrokerRole.AGENT,
    OPERATOR: BrokerRole.OPERATOR,
}

REFUSED = (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, AssertionError)
"""How a connection that the server refuses ends: before, in or after the handshake."""


@dataclass
class Site:
    """A trust domain with its CA, and a state folder."""

    folder: Path
    ca: ThrowawayCa = field(default_factory=lambda: ThrowawayCa("example.org"))
    life: float = 3600.0
    written: int = 0
    junk: bool = False
    wrote: asyncio.Event = field(default_factory=asyncio.Event)

    def write_svid(self, folder: Path) -> ServerSvidFiles:
        svid = self.ca.issue(str(SERVER_ID), life=self.life)
        folder.mkdir(mode=0o700, exist_ok=True)
        files = ServerSvidFiles(
            certificate=folder / "svid.pem",
            key=folder / "svid.key",
            bundle=folder / "bundle.pem",
            not_after=svid.not_after,
        )
        files.key.touch(mode=0o600)
        files.key.write_bytes(svid.key_pem)
        files.certificate.write_bytes(b"junk" if self.junk else svid.cert_pem)
        files.bundle.write_bytes(self.ca.cert_pem)
        self.written += 1
        self.wrote.set()
        return files

    def connect(self, server: EmbeddedNatsServer, spiffe_id: SpiffeId, *, ca: ThrowawayCa | None = None) -> RawNats:
        inbox = NAMES.inbox_prefix(spiffe_id)
        svid = (ca or self.ca).issue(str(spiffe_id))
        return RawNats(server.port, self.ca, svid, self.folder, inbox=inbox)


@asynccontextmanager
async def running(
    site: Site,
    *,
    workloads: Mapping[SpiffeId, BrokerRole] = WORKLOADS,
    own: tuple[OwnSubject, ...] = (),
    port: int = 0,
    write_svid: Callable[[Path], ServerSvidFiles] | None = None,
) -> AsyncIterator[EmbeddedNatsServer]:
    """Run a server, and pass on a failure by itself instead of in a group."""
    failure: SealbusError | None = None
    try:
        async with (
            asyncio.TaskGroup() as tasks,
            EmbeddedNatsServer(
                site.folder / "nats",
                tasks=tasks,
                names=NAMES,
                write_svid=write_svid or site.write_svid,
                workloads=workloads,
                own=own,
                port=port,
            ) as server,
        ):
            yield server
    except* SealbusError as group:
        failure = cast("SealbusError", group.exceptions[0])
    if failure is not None:
        raise failure


def served_serial(port: int) -> int:
    """Return the serial number of the certificate that the server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
