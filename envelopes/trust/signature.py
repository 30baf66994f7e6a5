"""Signatures over batches: one ES256 signature over the root of many leaves (SPEC.md section 4; step 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.caches import VerifiedRoots
from sealbus.envelopes.trust.keys import PublicKey, SigningKey
from sealbus.envelopes.trust.merkle import paths, root_of_path
from sealbus.envelopes.trust.proof import Proof

MESSAGE_TYPE: Final = "application/vnd.sealbus.message.v1"
"""Payload type of signatures over headers."""
CONTEXT_TYPE: Final = "application/vnd.sealbus.context.v1"
"""Payload type of signatures over user contexts. A signature of one type is invalid as the other."""

_new: Final = tuple.__new__


def pae(payload_type: str, body: bytes) -> bytes:
    """Return the bytes that a signature covers (DSSE 1.0.2, protocol.md, "Signature Definition").

    Lengths are counted in bytes of the UTF-8 encoding, not in characters. Nothing is verified here.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def sign_batch(leaves: Sequence[bytes], payload_type: str, key: SigningKey) -> list[Proof]:
    """Return one proof for each of 1 to 4,096 leaf hashes, all with the same signature.

    Raises `SealError` for more or none.
    """
    size = len(leaves)
    if not 1 <= size <= DEFAULT_LIMITS.batch_leaves:
        raise SealError("a batch has 1 to 4,096 leaves")
    root, nodes = paths(leaves)
    signature = key.sign(_covered(payload_type, root, size))
    return [_new(Proof, (size, index, path, signature)) for index, path in enumerate(nodes)]


def verify_proof(proof: Proof, leaf: bytes, payload_type: str, key: PublicKey, roots: VerifiedRoots) -> None:
    """Step 8: raise `EnvelopeError` (`bad_signature`) unless `key` signed the batch that holds `leaf` at its place.

    The path is checked each time. `roots` are the signatures that were verified before. Step 7 checks the holder of `key`
    and whether the key was valid.
    """
    root = root_of_path(leaf, proof.size, proof.index, proof.path)
    if roots.knows(payload_type, key, root, proof.size, proof.signature):
        return
    key.verify(_covered(payload_type, root, proof.size), proof.signature)
    roots.remember(payload_type, key, root, proof.size, proof.signature)


def _covered(payload_type: str, root: bytes, size: int) -> bytes:
    return pae(payload_type, root + size.to_bytes(4, "big"))
