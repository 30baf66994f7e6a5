"""An identity without a Workload API: the development authority in the same process. For tests in memory only."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import JwtBundle, TrustBundles
from sealbus.envelopes.trust.keys import SigningKey
from sealbus.envelopes.trust.proof import Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId

JWT_LIFE = 3_600
"""Seconds that a credential lives; it is renewed at half its life."""


class MemoryIdentity:
    """The `Identity` port on a `DevelopmentAuthority`: real keys, real JWT-SVIDs, real bundles, nothing on any wire."""

    def __init__(self, authority: DevelopmentAuthority, spiffe_id: SpiffeId) -> None:
        self._authority = authority
        self._spiffe_id = spiffe_id
        self._key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
        self._sealer: Sealer | None = None
        self._bundles: tuple[bytes, TrustBundles] | None = None

    @property
    def spiffe_id(self) -> SpiffeId:
        """The workload's own SPIFFE ID."""
        return self._spiffe_id

    def sealer(self) -> Sealer:
        """Return the signing key with a credential that has at least half of its life left."""
        now = self._authority.clock()
        if self._sealer is None or self._sealer.expires - now < JWT_LIFE * SECOND // 2:
            issued = self._authority.issue_jwt(self._spiffe_id, [self._key.public.thumbprint], ttl=JWT_LIFE)
            self._sealer = Sealer(
                iss=self._spiffe_id,
                key=self._key,
                credential=Credential(1, issued.token.encode()),
                expires=issued.expires,
            )
        return self._sealer

    def bundles(self) -> TrustBundles:
        """Return the authority's current JWT bundles."""
        jwks = self._authority.jwt_bundles()
        stamp = b"".join(jwks.values())
        if self._bundles is None or self._bundles[0] != stamp:
            self._bundles = (stamp, TrustBundles(JwtBundle.parse(name, keys) for name, keys in jwks.items()))
        return self._bundles[1]

    def x509(self) -> X509Material:
        """Raise `IdentityUnavailable`: nothing in memory makes a TLS connection."""
        raise IdentityUnavailable("an identity in memory has no X.509-SVID")

    def on_rotation(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Never call back: there is no connection to rotate."""
        del callback
        return lambda: None
