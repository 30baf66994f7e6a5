"""The peer of a connection with mutual TLS, for the application behind it: its SPIFFE ID, or the certificate of a client."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from sealbus.agents.edge.http.protocol import ConnectionLimits, EdgeProtocol
from sealbus.bus.nats.connection.tls import spiffe_id_of
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_logger: Final = logging.getLogger(__name__)

PEER: Final = "sealbus.peer"
"""Key of the request's scope that holds the `Peer`."""
CLIENT_CERTIFICATE: Final = "sealbus.client_certificate"
"""Key of the request's scope that holds SHA-256 of a client's certificate (DER) in base64url, where it showed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A workload whose X.509-SVID was verified in the handshake. `expires` is microseconds since the Unix epoch."""

    spiffe_id: SpiffeId
    expires: int


def peer_of(tls: ssl.SSLObject | None, trust_domain: TrustDomain) -> Peer:
    """Return the peer of the handshake on `tls`; raise `ValueError` unless it is one workload of `trust_domain`.

    OpenSSL has verified the chain. The one URI SAN must be a SPIFFE ID with a path (X509-SVID.md sections 2 and 4).
    """
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    named = tls.getpeercert() if tls is not None else None
    if certificate is None or not named:
        raise ValueError("no certificate")
    try:
        spiffe_id = SpiffeId.parse(spiffe_id_of(certificate))
    except EnvelopeError as error:
        raise ValueError("its URI name is not a SPIFFE ID") from error
    if spiffe_id.trust_domain != trust_domain:
        raise ValueError("it is of another trust domain")
    return Peer(spiffe_id=spiffe_id, expires=ssl.cert_time_to_seconds(str(named["notAfter"])) * SECOND)


class PeerProtocol(EdgeProtocol):
    """A connection of the token service: it ends at once unless its peer is a workload of the trust domain."""

    def __init__(
        self, config: Config, server_state: ServerState, limits: ConnectionLimits, trust_domain: TrustDomain
    ) -> None:
        super().__init__(config, server_state, limits)
        self._trust_domain = trust_domain

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so too
        """Take the peer from the TLS connection, whose handshake is complete by now."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        try:
            peer = peer_of(tls if isinstance(tls, ssl.SSLObject) else None, self._trust_domain)
        except ValueError as error:
            _logger.info("token service: refused a connection: %s", error)
            transport.abort()
            return
        self.app = _with_scope(self.app, PEER, peer)


class ClientProtocol(EdgeProtocol):
    """A connection from outside, whose peer may show a certificate that the handshake has verified."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so too
        """Take the certificate from the TLS connection, whose handshake is complete by now."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
        if certificate is not None:
            digest = base64.urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode("ascii")
            self.app = _with_scope(self.app, CLIENT_CERTIFICATE, digest)


def _with_scope(app: ASGIApp, key: str, value: object) -> ASGIApp:
    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope[key] = value
        await app(scope, receive, send)

    return with_peer
