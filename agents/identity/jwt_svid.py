"""The process's signing key with the JWT-SVID that vouches for it, and the JWT bundles to verify others' JWT-SVIDs with.

Each bundle that the Workload API streams is checked alone and kept under its own trust domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from sealbus.agents.identity.x509_svid import parse_domain
from sealbus.envelopes.errors import BundleRefused, EnvelopeError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import ClaimedKey, VerifiedCredential, verify_credential
from sealbus.envelopes.trust.keys import PublicKey, SigningKey
from sealbus.envelopes.trust.proof import JWT_SVID, Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["ASK_AGAIN", "LEAST_LIFE", "BundlesReading", "KeyCredential", "read_jwt_bundles"]

LEAST_LIFE: Final = 20 * SECOND
"""Nothing is sealed with a credential that has less time left (SPEC.md section 5)."""

ASK_AGAIN: Final = 5 * SECOND
"""SPIRE's agent hands out one token until about half of its life is over; asking again sooner returns the same one."""


class KeyCredential:
    """A P-256 key, made here and kept in memory, with its current JWT-SVID. The key lives as long as this object."""

    def __init__(self) -> None:
        self._key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
        self._sealer: Sealer | None = None
        self._says: VerifiedCredential | None = None
        self._asked = 0

    @property
    def key(self) -> PublicKey:
        """The public half; its thumbprint is the only audience that JWT-SVIDs are requested for."""
        return self._key.public

    @property
    def says(self) -> VerifiedCredential | None:
        """The verified contents of the current JWT-SVID, or None if there is none."""
        return self._says

    def sealer(self, now: int) -> Sealer:
        """Return key and JWT-SVID to seal with at `now`; raise `IdentityUnavailable` with under 20 s of life left."""
        if self._sealer is None:
            raise IdentityUnavailable("no JWT-SVID from the Workload API")
        left = self._sealer.expires - now
        if left < LEAST_LIFE:
            raise IdentityUnavailable(
                f"the JWT-SVID has {left / SECOND:.0f} s left, sealing needs {LEAST_LIFE // SECOND}"
            )
        return self._sealer

    def accept(self, token: str, spiffe_id: SpiffeId, bundles: TrustBundles, now: int) -> None:
        """Use `token` from now on if it verifies as readers will verify it; otherwise raise `EnvelopeError`.

        The same token again, or one that does not end later, only changes when to ask next.
        """
        credential = Credential(JWT_SVID, token.encode("ascii", "replace"))
        says = self._verify(credential, spiffe_id, bundles, now)
        self._asked = now
        if self._says is None or says.exp > self._says.exp or not self.holds(bundles, now):
            self._says = says
            self._sealer = Sealer(iss=spiffe_id, key=self._key, credential=credential, expires=says.exp)

    def holds(self, bundles: TrustBundles, now: int) -> bool:
        """Return whether readers with these bundles still accept the current JWT-SVID: its signing key may be gone."""
        if self._sealer is None:
            return False
        try:
            self._verify(self._sealer.credential, self._sealer.iss, bundles, now)
        except EnvelopeError:
            return False
        return True

    def due(self) -> int:
        """Return when to ask for the next one: at half life, but not within 5 s of the last request; 0 if there is none."""
        if self._says is None:
            return 0
        return max(self._says.iat + (self._says.exp - self._says.iat) // 2, self._asked + ASK_AGAIN)

    def withdraw(self) -> None:
        """Stop sealing: the Workload API says that this workload has no identity."""
        self._sealer = self._says = None

    def _verify(
        self, credential: Credential, spiffe_id: SpiffeId, bundles: TrustBundles, now: int
    ) -> VerifiedCredential:
        return verify_credential(
            credential,
            ClaimedKey(spiffe_id, self._key.public, sha256(credential.token).digest()),
            reference=now,
            trust=Trust(bundles=bundles),
            caches=Caches(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundlesReading:
    """One parsed response: the bundles now in force, whether they differ from before, and why some were refused."""

    bundles: TrustBundles
    changed: bool
    refused: tuple[str, ...]


def read_jwt_bundles(given: Mapping[str, bytes], before: TrustBundles) -> BundlesReading:
    """Return the bundles in force after a response with `given`: JWK sets by the SPIFFE ID of their trust domain.

    A refused bundle leaves the old one of its trust domain in force; an absent one is gone (SPIFFE_Workload_API.md section
    4.4); one with the same bytes is not parsed again.
    """
    bundles: list[JwtBundle] = []
    refused: list[str] = []
    for name, jwks in sorted(given.items()):
        try:
            trust_domain = parse_domain(name)
        except EnvelopeError:
            refused.append(f"JWT bundle of {name[:256]!r}: not a trust domain")
            continue
        old = before.get(trust_domain)
        try:
            bundles.append(old if old is not None and old.jwks == jwks else JwtBundle.parse(trust_domain, jwks))
        except BundleRefused as error:
            refused.append(error.detail)
            if old is not None:
                bundles.append(old)
    after = TrustBundles(bundles)
    changed = len(after) != len(before) or any(before.get(name) is not bundle for name, bundle in after.items())
    return BundlesReading(bundles=after, changed=changed, refused=tuple(refused))
