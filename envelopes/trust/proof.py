"""The proof that bytes are in a signed batch, and the credential of the signing key (SPEC.md section 2)."""

from __future__ import annotations

from typing import Final, NamedTuple

JWT_SVID: Final = 1
"""The credential kind of SPEC.md section 5, the only one in format 1 so far."""


class Proof(NamedTuple):
    """The proof of a leaf in a signed batch: leaf `index` of `size`, its path, and ES256 over the root (64 bytes)."""

    size: int
    index: int  # type: ignore[assignment]  # as in RFC 9162; the method of tuples is not missed
    path: tuple[bytes, ...]
    signature: bytes


class Credential(NamedTuple):
    """The credential that vouches for a signing key; kind 1 is a JWT-SVID in compact form (SPEC.md section 5)."""

    kind: int
    token: bytes

    def __repr__(self) -> str:
        return f"Credential(kind={self.kind!r}, token=...)"
