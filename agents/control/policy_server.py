"""The role `policy` of `sealbus control`: serves the policy to OPA, over HTTPS with SVIDs on both sides.

OPA polls `GET /bundles/sealbus.tar.gz` by its bundle plugin, with an ETag and `Prefer: modes=...;wait=N`. A client that has
the bundle of the ETag already waits for the next one (long polling). The bundle is composed here of verified parts that were
pushed to NATS, and signed once with the key `policy.serve_key`, which OPA verifies by its `keys`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sealbus.agents.control.control import CONTROL
from sealbus.agents.edge.http.peer import PEER, Peer, PeerProtocol
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.agents.edge.http.tls import svid_context
from sealbus.agents.files import file_errors
from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.policy.source import open_sync
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Clock, Identity
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import SigningKey, read_signing_key
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.signing import sign_bundle
from sealbus.policies.opa.compiler import find_opa, opa_check

_logger: Final = logging.getLogger(__name__)

CACHE: Final = "policy-server"
"""The policy server's folder within `policy.cache`."""
COMPOSED: Final = "sealbus"
"""Name of the composed bundle, and scope of its signature."""
BUNDLE_PATH: Final = f"/bundles/{COMPOSED}.tar.gz"
MEDIA_TYPE: Final = "application/vnd.openpolicyagent.bundles"
"""OPA continues long polling only if the answer, even a 304, has this content type."""
WAIT_MOST: Final = 60.0
"""Most seconds that a request may wait; OPA asks again."""

_WAIT: Final = re.compile(r"(?:^|[;,\s])wait=([0-9]{1,6})(?:$|[;,\s])")


class Served:
    """The newest composed bundle with the signature of `key`."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._changed = asyncio.Event()
        self._stopping = False
        self.raw = b""
        self.etag = ""
        """ETag of the content without the signature, so that it is the same at every replica. Empty before there is a
        bundle."""
        self.revision = ""

    async def put(self, bundle: Bundle) -> None:
        """Serve `bundle` from now on, and wake the waiting requests."""
        # In a thread: a bundle that a denial has extended is packed now.
        etag = f'"{(await asyncio.to_thread(lambda: bundle.digest)).hex()}"'
        if etag == self.etag:
            return
        signed = await asyncio.to_thread(sign_bundle, bundle, self._key, scope=COMPOSED)
        self.raw = signed.raw
        self.etag, self.revision = etag, bundle.revision
        self._wake()

    def stop(self) -> None:
        """End all waits, now and from now on."""
        self._stopping = True
        self._wake()

    async def other_than(self, etag: str, seconds: float) -> bool:
        """Wait at most `seconds` until another bundle than `etag` is served; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.etag == etag and not self._stopping:
                    await self._changed.wait()
        return self.etag != etag

    def _wake(self) -> None:
        # Later waiters get a new event: this one wakes all present waiters.
        self._changed.set()
        self._changed = asyncio.Event()


class PolicyApplication:
    """The ASGI application of `served`; run it only by `PeerProtocol`, which identifies the peer. `clock` is microseconds."""

    def __init__(self, served: Served, *, counters: Counters, clock: Callable[[], int]) -> None:
        self._served = served
        self._counters = counters
        self._clock = clock
        self._router = Router([Route(BUNDLE_PATH, self._bundle, methods=["GET"])], redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._router(scope, receive, send)

    async def _bundle(self, request: Request) -> Response:
        peer = request.scope.get(PEER)
        if not isinstance(peer, Peer) or peer.expires <= self._clock():
            # A connection may outlive the certificate that it was made with.
            return self._answer(401, peer)
        served = self._served
        if not served.etag:
            return self._answer(503, peer)
        known = request.headers.get("if-none-match", "")
        if known == served.etag and not await served.other_than(known, _patience(request.headers.get("prefer", ""))):
            return self._answer(304, peer)
        return self._answer(200, peer)

    def _answer(self, status: int, peer: object) -> Response:
        served = self._served
        self._counters.add("sealbus_policy_served_total", status=str(status))
        _logger.debug(
            "%s gets %d, policy %s", peer.spiffe_id if isinstance(peer, Peer) else "?", status, served.revision
        )
        headers = {"etag": served.etag, "cache-control": "no-store"} if status in (200, 304) else {}
        return Response(served.raw if status == 200 else b"", status, headers, MEDIA_TYPE)


def _patience(prefer: str) -> float:
    """Return how many seconds the client wants to wait for another bundle (RFC 7240's `wait`, as OPA writes it)."""
    wait = _WAIT.search(prefer)
    return min(float(wait[1]), WAIT_MOST) if wait is not None else 0.0


class PolicyServer:
    """The server of the newest policy. Any number may run at a time: all serve the same content."""

    def __init__(
        self,
        sync: PolicySync,
        key: SigningKey,
        *,
        address: str,
        identity: Identity,
        counters: Counters | None = None,
        limits: ConnectionLimits | None = None,
        clock: Clock = wall_clock,
    ) -> None:
        self.served = Served(key)
        self.listening = asyncio.Event()
        self.port = 0
        """The port that it listens on, once `listening` is set."""
        self._sync = sync
        self._address = address
        self._limits = limits or ConnectionLimits()
        self._counters = counters or Counters()
        self._application = PolicyApplication(self.served, counters=self._counters, clock=clock)
        self._trust_domain = identity.spiffe_id.trust_domain
        self._tls: ssl.SSLContext = svid_context(identity, self._trust_domain)

    @property
    def problem(self) -> str:
        """Why a part's newest version is not served, or the store is not read; empty if all is well."""
        return self._sync.problem

    async def run(self) -> None:
        """Listen and serve the newest policy until cancelled; `sync` is already entered. Raises `ConfigurationError`."""
        async with (
            self._sync.in_force.taken(self.served.put),
            listening(
                self._application,
                self._address,
                setting="policy.serve",
                limits=self._limits,
                counters=self._counters,
                tls=self._tls,
                protocol=partial(PeerProtocol, trust_domain=self._trust_domain),
            ) as port,
        ):
            self.port = port
            self.listening.set()
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                # Otherwise shutdown would wait for long polls.
                self.served.stop()
                self.listening.clear()


@asynccontextmanager
async def open_policy_server(
    settings: Settings, identity: Identity, connection: Connection, *, counters: Counters | None = None
) -> AsyncGenerator[PolicyServer, None]:
    """Return the policy server of the settings, on the identity and connection of `sealbus control`; then `run` it.

    If there is an `opa` (SEALBUS_OPA, or on PATH), it must be able to compile the served policy. Raises `ConfigurationError`,
    one line that names the setting, for a missing setting, and before the first push.
    """
    policy = settings.policy
    if policy.serve is None or policy.serve_key is None:
        raise ConfigurationError("policy.serve (where to listen) and policy.serve_key (the key for OPA) are not set")
    key = await asyncio.to_thread(_read_key, policy.serve_key)
    opa = find_opa()
    if opa is None:
        _logger.warning(
            "opa was not found: a policy that only its compiler refuses is served, and then refused by every OPA"
        )
    check = partial(opa_check, opa=opa) if opa is not None else None
    async with open_sync(CACHE, policy, connection, counters=counters, check=check) as sync:
        yield PolicyServer(sync, key, address=policy.serve, identity=identity, counters=counters)


def _read_key(file: Path) -> SigningKey:
    with file_errors(f"policy.serve_key: {file} cannot be read"):
        pem = file.read_bytes()
    return read_signing_key(pem, name=f"policy.serve_key: {file}")


@asynccontextmanager
async def open_policy_role(settings: Settings, *, counters: Counters) -> AsyncGenerator[PolicyServer, None]:
    """Open identity, connection and bucket. Raises `SealbusError` if one is missing, or before the first push."""
    async with (
        open_connection(CONTROL, settings, counters=counters) as (identity, connection),
        open_policy_server(settings, identity, connection, counters=counters) as server,
    ):
        yield server
