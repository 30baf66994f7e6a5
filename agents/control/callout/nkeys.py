"""NATS' keys as text: base32 over a prefix byte, 32 bytes and a CRC-16; Ed25519 behind those that sign.

A public key is `<prefix><32 bytes>`, a seed `<seed prefix and prefix><32 bytes>`, both with their CRC-16/XMODEM in little
endian, base32 without padding (github.com/nats-io/nkeys, `strkey.go`).
"""

from __future__ import annotations

import base64
import binascii
import os
from enum import IntEnum
from functools import lru_cache
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["KEY_BYTES", "NkeyError", "Prefix", "SigningKey", "decode_public", "decode_seed", "encode_public",
           "encode_seed", "verify"]  # fmt: skip

KEY_BYTES: Final = 32
_SEED: Final = 18 << 3
_PUBLIC_LENGTH: Final = 56
_SEED_LENGTH: Final = 58


class Prefix(IntEnum):
    """What a key is for: the first byte, chosen so that the text begins with this letter."""

    ACCOUNT = 0
    SERVER = 13 << 3
    USER = 20 << 3
    CURVE = 23 << 3

    @property
    def letter(self) -> str:
        """What the public key's text begins with."""
        return {Prefix.ACCOUNT: "A", Prefix.SERVER: "N", Prefix.USER: "U", Prefix.CURVE: "X"}[self]


class NkeyError(ValueError):
    """A text is not the key that it should be. Says nothing of what it is."""


def encode_public(prefix: Prefix, key: bytes) -> str:
    """Return the text of a public key of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise NkeyError("a key has 32 bytes")
    return _encode(bytes([prefix]) + key)


@lru_cache(maxsize=256)  # those of a server and of its curve key are asked for at each request
def decode_public(text: str, prefix: Prefix) -> bytes:
    """Return the 32 bytes of a public key; raise `NkeyError` unless `text` is one of this prefix, CRC included."""
    raw = _decode(text, _PUBLIC_LENGTH)
    if raw[0] != prefix:
        raise NkeyError(f"not a public key that begins with {prefix.letter}")
    return raw[1:]


def encode_seed(prefix: Prefix, seed: bytes) -> str:
    """Return the text of a seed of 32 bytes. It is a secret."""
    if len(seed) != KEY_BYTES:
        raise NkeyError("a seed has 32 bytes")
    return _encode(bytes([_SEED | (prefix >> 5), (prefix & 31) << 3]) + seed)


def decode_seed(text: str, prefix: Prefix) -> bytes:
    """Return the 32 bytes of a seed; raise `NkeyError` unless `text` is one for keys of this prefix, CRC included."""
    raw = _decode(text, _SEED_LENGTH)
    found = ((raw[0] & 7) << 5) | ((raw[1] & 248) >> 3)
    if raw[0] & 248 != _SEED or found != prefix:
        raise NkeyError(f"not a seed that begins with S{prefix.letter}")
    return raw[2:]


class SigningKey:
    """An Ed25519 key with its nkey texts; never shown, never logged."""

    __slots__ = ("_key", "_prefix", "public")

    def __init__(self, prefix: Prefix, seed: bytes) -> None:
        self._prefix: Final = prefix
        self._key: Final = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: Final = encode_public(prefix, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, prefix: Prefix) -> Self:
        """Make a new key from the system's randomness."""
        return cls(prefix, os.urandom(KEY_BYTES))

    @classmethod
    def from_seed(cls, text: str, prefix: Prefix) -> Self:
        """Return the key of a seed; raise `NkeyError` for anything but a seed of `prefix`."""
        return cls(prefix, decode_seed(text, prefix))

    def seed(self) -> str:
        """Return the seed's text, to be stored where only its owner reads."""
        return encode_seed(self._prefix, self._key.private_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over `data`."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.public})"


def verify(public: str, prefix: Prefix, signature: bytes, data: bytes) -> None:
    """Raise `NkeyError` unless `signature` over `data` is by the nkey `public` of `prefix`."""
    try:
        Ed25519PublicKey.from_public_bytes(decode_public(public, prefix)).verify(signature, data)
    except (InvalidSignature, ValueError) as error:
        raise NkeyError("the signature is not by this key") from error


def _encode(raw: bytes) -> str:
    return base64.b32encode(raw + _crc(raw)).decode().rstrip("=")


def _decode(text: str, length: int) -> bytes:
    # Length first: base32 without padding has spellings of one value that differ in their last bits.
    if len(text) != length or not text.isascii():
        raise NkeyError("not an nkey: it has another length")
    try:
        raw = base64.b32decode(text + "=" * (-length % 8))
    except ValueError as error:
        raise NkeyError("not an nkey: not base32") from error
    if _crc(raw[:-2]) != raw[-2:] or _encode(raw[:-2]) != text:
        raise NkeyError("not an nkey: its check sum is wrong")
    return raw[:-2]


def _crc(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")
