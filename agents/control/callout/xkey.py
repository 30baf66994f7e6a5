"""What the server and a responder tell each other, sealed by their curve keys (NATS' xkey, version 1).

A sealed message is `xkv1`, a nonce of 24 bytes and a NaCl box (X25519, XSalsa20, Poly1305): from its sender, for its
reader only (github.com/nats-io/nkeys, `xkeys.go`).
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Final, Self

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from sealbus.agents.control.callout.nkeys import (
    KEY_BYTES,
    NkeyError,
    Prefix,
    decode_public,
    decode_seed,
    encode_public,
    encode_seed,
)

__all__ = ["CurveKey"]

_VERSION: Final = b"xkv1"
_LEAST: Final = len(_VERSION) + Box.NONCE_SIZE + 16


class CurveKey:
    """A curve key with its nkey texts; never shown, never logged."""

    __slots__ = ("_box", "_key", "public")

    def __init__(self, seed: bytes) -> None:
        self._key: Final = PrivateKey(seed)
        self.public: Final = encode_public(Prefix.CURVE, bytes(self._key.public_key))
        # What two keys share is computed once for each server, whose key lives as long as it does.
        self._box = lru_cache(maxsize=64)(self._make_box)

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def from_seed(cls, text: str) -> Self:
        """Return the key of a seed; raise `NkeyError` for anything but a seed that begins with SX."""
        return cls(decode_seed(text, Prefix.CURVE))

    def seed(self) -> str:
        """Return the seed's text, to be stored where only its owner reads."""
        return encode_seed(Prefix.CURVE, bytes(self._key))

    def seal(self, data: bytes, reader: str) -> bytes:
        """Return `data` sealed for the public curve key `reader`; raise `NkeyError` if that is none."""
        return _VERSION + self._box(reader).encrypt(data)

    def open(self, sealed: bytes, sender: str) -> bytes:
        """Return what `sender`, a public curve key, sealed for us; raise `NkeyError` for anything else."""
        if len(sealed) < _LEAST or not sealed.startswith(_VERSION):
            raise NkeyError("not a sealed message")
        try:
            return self._box(sender).decrypt(sealed[len(_VERSION) :])
        except CryptoError as error:
            raise NkeyError("not sealed by this key for us") from error

    def _make_box(self, other: str) -> Box:
        return Box(self._key, PublicKey(decode_public(other, Prefix.CURVE)))

    def __repr__(self) -> str:
        return f"CurveKey({self.public})"
