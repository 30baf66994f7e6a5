"""Values that an identity stores where others can write too; a signature tells it which values are its own.

::

    [payload, signature, key, token]           an encoded array; the signature is over H(0x00 || payload), under a type

Everything here is pure. A payload must name the place that it belongs to, because signed values can be moved and replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sealbus.envelopes.errors import EnvelopeError, SealError
from sealbus.envelopes.message.seal import Sealer
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.credential import verify_credential
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.merkle import leaf_hash
from sealbus.envelopes.trust.proof import Credential, Proof
from sealbus.envelopes.trust.signature import sign_batch, verify_proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

PARTS: Final = 4
"""Number of parts that `signed` returns."""


def signed(payload: bytes, payload_type: str, sealer: Sealer) -> tuple[bytes, bytes, bytes, bytes]:
    """Return `payload`, a signature over it for `payload_type` alone, the key and its credential's token."""
    [proof] = sign_batch([leaf_hash(payload)], payload_type, sealer.key)
    return payload, proof.signature, sealer.key.public.raw, sealer.credential.token


def is_own(parts: Sequence[bytes], payload_type: str, *, own: SpiffeId, at: int, trust: Trust, caches: Caches) -> bool:
    """Return whether `own` signed these `parts` with a credential that was valid at `at` (microseconds)."""
    if len(parts) != PARTS:
        return False
    payload, signature, raw, token = parts
    try:
        key = PublicKey.parse(raw)
        verify_credential(
            Credential(1, token),
            iss=own,
            key=key,
            crd=sha256(token).digest(),
            reference=at,
            trust=trust,
            caches=caches,
        )
        verify_proof(Proof(1, 0, (), signature), leaf_hash(payload), payload_type, key, caches.roots)
    except (EnvelopeError, SealError, ValueError):
        return False
    return True
