"""`GET /bundles/sealbus.tar.gz` as OPA's bundle plugin requests it: ETag, 304, and `Prefer: modes=...;wait=N`.

The bundle is signed once and identified by its ETag; clients that have it already wait for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from sealbus.agents.edge.http.peer import PEER, Peer
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.trust.keys import SigningKey
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.signing import sign_bundle

COMPOSED: Final = "sealbus"
"""Name of the composed bundle, and scope of its signature."""

_log: Final = logging.getLogger(__name__)

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
        """ETag of the content, not of the signature: the same at every replica. Empty before there is a bundle."""
        self.revision = ""

    async def put(self, bundle: Bundle) -> None:
        """Serve `bundle` from now on, and wake the waiting requests."""
        etag = f'"{bundle.digest.hex()}"'
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
        """Wait for at most `seconds` until something other than `etag` is served; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.etag == etag and not self._stopping:
                    await self._changed.wait()
        return self.etag != etag

    def _wake(self) -> None:
        # A new event for later waiters: all present ones are being woken.
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
        _log.debug("%s gets %d, policy %s", peer.spiffe_id if isinstance(peer, Peer) else "?", status, served.revision)
        headers = {"etag": served.etag, "cache-control": "no-store"} if status in (200, 304) else {}
        return Response(served.raw if status == 200 else b"", status, headers, MEDIA_TYPE)


def _patience(prefer: str) -> float:
    """Return how long the client wants to wait for news, in seconds (RFC 7240's `wait`, as OPA writes it)."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), WAIT_MOST) if found is not None else 0.0
