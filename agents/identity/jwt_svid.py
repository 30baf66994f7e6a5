"""The process's signing key with the JWT-SVID that vouches for it, and the JWT bundles that verify others' JWT-SVIDs.

Each bundle from the Workload API is checked alone and kept under its own trust domain.
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

LEAST_LIFE: Final = 20 * SECOND
"""Least time that a credential must have left to seal with it (SPEC.md section 5)."""

ASK_AGAIN: Final = 5 * SECOND
"""Least time between two requests: SPIRE's agent returns the same token until about half of its life is over."""


class KeyCredential:
    """A P-256 key, made here and kept only in memory, with its current JWT-SVID."""

    def __init__(self) -> None:
        self._key = SigningKey(ec.generate_private_key(ec.SECP256R1()))
        self._sealer: Sealer | None = None
        self._verified: VerifiedCredential | None = None
        self._requested = 0

    @property
    def key(self) -> PublicKey:
        """The public key; JWT-SVIDs are requested for its thumbprint as their only audience."""
        return self._key.public

    @property
    def verified(self) -> VerifiedCredential | None:
        """The verified contents of the current JWT-SVID, or None if there is none."""
        return self._verified

    def sealer(self, now: int) -> Sealer:
        """Return key and JWT-SVID for sealing at `now`; raise `IdentityUnavailable` with under 20 s of life left."""
        if self._sealer is None:
            raise IdentityUnavailable("no JWT-SVID from the Workload API")
        left = self._sealer.expires - now
        if left < LEAST_LIFE:
            raise IdentityUnavailable(
                f"the JWT-SVID has {left / SECOND:.0f} s left, sealing needs {LEAST_LIFE // SECOND}"
            )
        return self._sealer

    def accept(self, token: str, spiffe_id: SpiffeId, bundles: TrustBundles, now: int) -> None:
        """Use `token` from now on if readers will accept it; otherwise raise `EnvelopeError`.

        A token that does not end later than the current one only changes the time of the next request.
        """
        credential = Credential(JWT_SVID, token.encode("ascii", "replace"))
        verified = self._verify(credential, spiffe_id, bundles, now)
        self._requested = now
        if self._verified is None or verified.exp > self._verified.exp or not self.holds(bundles, now):
            self._verified = verified
            self._sealer = Sealer(iss=spiffe_id, key=self._key, credential=credential, expires=verified.exp)

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
        """Return the time of the next request: half life, but at least 5 s after the last request; 0 without a JWT-SVID."""
        if (current := self._verified) is None:
            return 0
        return max(current.iat + (current.exp - current.iat) // 2, self._requested + ASK_AGAIN)

    def is_old(self, now: int) -> bool:
        """Return whether the current JWT-SVID has under 20 s of life left, although it had 25 s at first or more."""
        current = self._verified
        return (
            current is not None
            and current.exp - now < LEAST_LIFE
            and current.exp - current.iat >= LEAST_LIFE + ASK_AGAIN
        )

    def withdraw(self) -> None:
        """Stop sealing: the Workload API says that this workload has no identity."""
        self._sealer = self._verified = None

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
    """One parsed response: the bundles now in force, whether they differ from before, and why bundles were refused."""

    bundles: TrustBundles
    changed: bool
    refused: tuple[str, ...]


def read_jwt_bundles(jwk_sets: Mapping[str, bytes], before: TrustBundles) -> BundlesReading:
    """Return the bundles in force after a response with `jwk_sets`, by the SPIFFE ID of their trust domain.

    If a bundle is refused, the old bundle of its trust domain stays in force. An absent bundle is dropped
    (SPIFFE_Workload_API.md section 4.4). A bundle with the same bytes is not parsed again.
    """
    bundles: list[JwtBundle] = []
    refused: list[str] = []
    for name, jwks in sorted(jwk_sets.items()):
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
