"""One declared identity of the embedded Workload API: its current X.509-SVID and its JWT-SVIDs, renewed early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.certificates import IssuedSvid, X509Authority
from sealbus.agents.dev.workload_api.jwt_keys import IssuedToken, JwtKey
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.caches import BoundedMap
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_RENEWED_AT = 0.45
"""Share of an X.509-SVID's life after which it is replaced: below one half, as in SPIRE's agent."""

_MAX_TOKENS = 1_000
"""JWT-SVIDs kept, one per set of audiences: `jwt_svid_cache_max_size` of SPIRE's agent."""

_ROUNDING = 0.02
"""Seconds by which a stream wakes late: clock and event loop round differently, and an early wake-up renews nothing."""


class DeclaredIdentity:
    """The identity behind one socket: one X.509-SVID for all streams, and JWT-SVIDs that it reuses for half their life."""

    def __init__(
        self,
        authority: DevelopmentAuthority,
        spiffe_id: SpiffeId,
        *,
        dns_names: Sequence[str] = (),
        x509_ttl: int,
        jwt_ttl: int,
    ) -> None:
        self.authority = authority
        self.spiffe_id = spiffe_id
        self.removed = False
        self._dns_names = tuple(dns_names)
        self._x509_ttl = x509_ttl
        self._jwt_ttl = jwt_ttl
        self._svid: tuple[X509Authority, IssuedSvid] | None = None
        self._tokens: BoundedMap[tuple[str, ...], tuple[JwtKey, IssuedToken]] = BoundedMap(_MAX_TOKENS)
        self._version = 0
        self._changed = asyncio.Event()
        self._unsubscribe = authority.on_change(self.touch)

    @property
    def version(self) -> int:
        """A number that grows with every change that streams must report at once."""
        return self._version

    def svid(self) -> IssuedSvid:
        """Return the current X.509-SVID; it is replaced when it is due, or when the signing CA has changed."""
        authority = self.authority.x509.current
        if self._svid is None or self._svid[0] is not authority or self._due() <= self.authority.clock():
            issued = self.authority.issue_x509(self.spiffe_id, dns_names=self._dns_names, ttl=self._x509_ttl)
            self._svid = (authority, issued)
        return self._svid[1]

    def token(self, audience: Sequence[str]) -> IssuedToken:
        """Return a JWT-SVID for `audience`: the same until half of its life is over, or until the JWT key changes."""
        signer = self.authority.jwt.current
        key = tuple(sorted(audience))
        cached = self._tokens.get(key)
        if cached is not None and cached[0] is signer:
            token = cached[1]
            if self.authority.clock() < token.issued + (token.expires - token.issued) // 2:
                return token
        token = self.authority.issue_jwt(self.spiffe_id, list(audience), ttl=self._jwt_ttl)
        self._tokens.put(key, (signer, token))
        return token

    def touch(self) -> None:
        """Wake every stream to report a change."""
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def renew(self) -> None:
        """Replace the X.509-SVID now and forget the JWT-SVIDs: an early rotation."""
        self._svid = None
        self._tokens.clear()
        self.touch()

    def remove(self) -> None:
        """End the identity: streams and calls answer `PermissionDenied` from now on."""
        self.removed = True
        self._svid = None
        self._tokens.clear()
        self._unsubscribe()
        self.touch()

    async def next_svid(self, seen: int) -> None:
        """Return when the X.509-SVID is due for renewal, or at once when the version is no longer `seen`."""
        wait = (self._due() - self.authority.clock()) / SECOND
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(wait, 0) + _ROUNDING):
                await self.next_version(seen)

    async def next_version(self, seen: int) -> None:
        """Return when the version is no longer `seen`."""
        while self._version == seen:
            await self._changed.wait()

    def _due(self) -> int:
        if self._svid is None:
            return 0
        return self._svid[1].issued + int(self._x509_ttl * SECOND * _RENEWED_AT)
