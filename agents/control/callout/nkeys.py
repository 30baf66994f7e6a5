"""NATS keys as text, and the JWTs and boxes that they sign and seal, as far as the auth callout needs them.

A public key is `<prefix><32 bytes>`, a seed `<seed prefix and prefix><32 bytes>`, both with their CRC-16/XMODEM in little
endian, base32 without padding (github.com/nats-io/nkeys, `strkey.go`).

A sealed message is `xkv1`, a nonce of 24 bytes and a NaCl box (X25519, XSalsa20, Poly1305), which only its reader can open
(github.com/nats-io/nkeys, `xkeys.go`).

A JWT is compact and signed with Ed25519, with the issuer's nkey in `iss` and claims in `nats` in addition to the registered
ones (github.com/nats-io/jwt, version 2). Until its signature is verified, only `iss` is read, to know the key.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from sealbus.envelopes.encoding.strict_json import Json, parse_object

KEY_BYTES: Final = 32
_SEED: Final = 18 << 3
_PUBLIC_LENGTH: Final = 56
_SEED_LENGTH: Final = 58

_XKEY_VERSION: Final = b"xkv1"
_SEALED_LEAST: Final = len(_XKEY_VERSION) + Box.NONCE_SIZE + 16

JWT_BYTES: Final = 262_144
"""Most bytes of a JWT that is read: certificate chains make a request a few kilobytes long."""

_JWT_HEADER: Final[Mapping[str, Json]] = {"typ": "JWT", "alg": "ed25519-nkey"}
_JWT_NESTING: Final = 8


class Prefix(IntEnum):
    """The purpose of a key: its first byte, chosen so that the text begins with this letter."""

    ACCOUNT = 0
    SERVER = 13 << 3
    USER = 20 << 3
    CURVE = 23 << 3

    @property
    def letter(self) -> str:
        """The first letter of the public key's text."""
        return {Prefix.ACCOUNT: "A", Prefix.SERVER: "N", Prefix.USER: "U", Prefix.CURVE: "X"}[self]


class NkeyError(ValueError):
    """A text is not the expected key. The error does not contain the text."""


def encode_public(prefix: Prefix, key: bytes) -> str:
    """Return the text of a public key of 32 bytes."""
    if len(key) != KEY_BYTES:
        raise NkeyError("a key has 32 bytes")
    return _encode(bytes([prefix]) + key)


@lru_cache(maxsize=256)  # the keys of servers and their curve keys are decoded at each request
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
    """Return the 32 bytes of a seed; raise `NkeyError` unless `text` is a seed of this prefix, CRC included."""
    raw = _decode(text, _SEED_LENGTH)
    named = ((raw[0] & 7) << 5) | ((raw[1] & 248) >> 3)
    if raw[0] & 248 != _SEED or named != prefix:
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
    # Check the length first: base32 without padding has several spellings of a value, which differ in their last bits.
    if len(text) != length or not text.isascii():
        raise NkeyError("not an nkey: wrong length")
    try:
        raw = base64.b32decode(text + "=" * (-length % 8))
    except ValueError as error:
        raise NkeyError("not an nkey: not base32") from error
    if _crc(raw[:-2]) != raw[-2:] or _encode(raw[:-2]) != text:
        raise NkeyError("not an nkey: wrong checksum")
    return raw[:-2]


def _crc(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")


class CurveKey:
    """A curve key with its nkey texts; never shown, never logged."""

    __slots__ = ("_box", "_key", "public")

    def __init__(self, seed: bytes) -> None:
        self._key: Final = PrivateKey(seed)
        self.public: Final = encode_public(Prefix.CURVE, bytes(self._key.public_key))
        # The secret shared by two keys is computed once per server, whose key lives as long as it does.
        self._box = lru_cache(maxsize=64)(lambda other: Box(self._key, PublicKey(decode_public(other, Prefix.CURVE))))

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
        """Return `data` sealed for the public curve key `reader`; raise `NkeyError` if `reader` is not one."""
        try:
            return _XKEY_VERSION + self._box(reader).encrypt(data)
        except CryptoError as error:
            # A point of low order, with which all would share one secret.
            raise NkeyError("nothing can be sealed for this key") from error

    def open(self, sealed: bytes, sender: str) -> bytes:
        """Return the message that `sender`, a public curve key, sealed for us; raise `NkeyError` for anything else."""
        if len(sealed) < _SEALED_LEAST or not sealed.startswith(_XKEY_VERSION):
            raise NkeyError("not a sealed message")
        try:
            return self._box(sender).decrypt(sealed[len(_XKEY_VERSION) :])
        except CryptoError as error:
            raise NkeyError("not sealed by this key for us") from error

    def __repr__(self) -> str:
        return f"CurveKey({self.public})"


def encode_jwt(claims: Mapping[str, object], key: SigningKey, *, issued: int) -> str:
    """Return `claims` signed by `key`, whose public nkey becomes `iss`; `issued` is `iat`, in seconds."""
    body: dict[str, object] = {**claims, "iss": key.public, "iat": issued, "jti": secrets.token_hex(16)}
    signed = f"{_encoded(_json(_JWT_HEADER))}.{_encoded(_json(body))}"
    return f"{signed}.{_encoded(key.sign(signed.encode()))}"


def decode_jwt(token: bytes, prefix: Prefix) -> dict[str, Json]:
    """Return the claims of a JWT signed by the nkey of `prefix` in its `iss`; raise `NkeyError` for anything else.

    The caller checks `iss`, and the JWT's purpose and expiry.
    """
    if len(token) > JWT_BYTES:
        raise NkeyError(f"a JWT of {len(token)} bytes")
    parts = token.split(b".")
    if len(parts) != 3:
        raise NkeyError("not three parts")
    try:
        header, claims = (parse_object(_decoded(part), depth=_JWT_NESTING) for part in parts[:2])
        signature = _decoded(parts[2])
    except ValueError as error:
        raise NkeyError("not a JWT") from error
    if header != _JWT_HEADER:
        raise NkeyError("another kind of JWT, or another algorithm")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise NkeyError("a JWT without an issuer")
    verify(issuer, prefix, signature, parts[0] + b"." + parts[1])
    return claims


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(part: bytes) -> bytes:
    data = base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    if _encoded(data).encode() != part:
        raise ValueError("another spelling of the same bytes")
    return data
