"""Logging in to NATS by an nkey, beside the client certificate: for who must be known before certificates mean anything.

The responder of the auth callout is what tells a NATS server who may do what. It cannot wait for itself, and a server
that maps certificates to users asks nobody which authority may vouch for which trust domain: so it is known by a key.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["NkeyLogin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NkeyLogin:
    """A user's public nkey (`U...`), and what signs with its seed: bytes in, the 64 bytes of an Ed25519 signature out."""

    public: str
    sign: Callable[[bytes], bytes] = field(repr=False)

    def signature(self, nonce: str) -> bytes:
        """Return what CONNECT has as `sig`: the signature over the server's nonce, base64."""
        return base64.b64encode(self.sign(nonce.encode()))
