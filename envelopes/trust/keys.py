"""The keys that messages are signed with: ECDSA on P-256 with SHA-256, ES256 (SPEC.md sections 3 to 5).

Signatures are `r || s`, 32 bytes each, with `s` in the lower half of the group order. For every `(r, s)` that verifies,
`(r, n - s)` does too, and a signature must have only one valid form. PEM texts and key ids are for keys that people keep,
not for keys that processes make.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sealbus.envelopes.errors import Code, ConfigurationError, EnvelopeError, SealError

_CURVE: Final = ec.SECP256R1()
_ES256: Final = ec.ECDSA(SHA256())
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order n of the group (SEC 2 version 2, section 2.4.2)."""
_HALF_ORDER: Final = (_ORDER - 1) // 2
_THUMBPRINT_URN: Final = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"
"""RFC 9278 section 3."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A P-256 public key that is on the curve, as the 64 bytes `x || y`.

    Raises `EnvelopeError` (`malformed`, step 2) for any other bytes. The credential, not this class, names the holder of the
    private key.
    """

    raw: bytes
    loaded: ec.EllipticCurvePublicKey = field(init=False, repr=False, compare=False)
    thumbprint: str = field(init=False, repr=False, compare=False)
    """The JWK thumbprint URN (RFC 7638, RFC 9278): the one audience of the JWT-SVID that vouches for this key."""

    def __post_init__(self) -> None:
        if type(self.raw) is not bytes or len(self.raw) != 64:
            raise EnvelopeError(Code.MALFORMED, 2, "key")
        try:
            loaded = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, b"\x04" + self.raw)
        except ValueError as error:
            raise EnvelopeError(Code.MALFORMED, 2, "key is not on the curve") from error
        x, y = _base64url(self.raw[:32]), _base64url(self.raw[32:])
        jwk = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
        object.__setattr__(self, "loaded", loaded)
        object.__setattr__(self, "thumbprint", _THUMBPRINT_URN + _base64url(sha256(jwk.encode()).digest()))

    @classmethod
    def parse(cls, raw: bytes) -> PublicKey:
        """Parse a key, as the constructor does; cheap for a known key."""
        return _parse(raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise `EnvelopeError` (`bad_signature`, step 8) unless `signature` is valid ES256 in its one allowed form."""
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        if len(signature) != 64 or not 1 <= r < _ORDER or not 1 <= s <= _HALF_ORDER:
            raise EnvelopeError(Code.BAD_SIGNATURE, 8, "signature out of range")
        try:
            self.loaded.verify(encode_dss_signature(r, s), message, _ES256)
        except InvalidSignature as error:
            raise EnvelopeError(Code.BAD_SIGNATURE, 8, "signature") from error


@lru_cache(maxsize=4096)
def _parse(raw: bytes) -> PublicKey:
    # The cache is bounded and has only points on the curve. An invented point costs its sender as much time as us.
    return PublicKey(raw)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    """A P-256 private key, made and kept in memory by the caller. Never shown, never copied, never pickled."""

    __slots__ = ("_private", "public")

    public: PublicKey
    """The public half, which goes into the header."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        """Raise `SealError` for a key on another curve."""
        if not isinstance(private.curve, ec.SECP256R1):
            raise SealError("a signing key must be on P-256")
        numbers = private.public_key().public_numbers()
        self._private = private
        self.public = PublicKey.parse(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))

    def __repr__(self) -> str:
        return "SigningKey(...)"

    def __reduce__(self) -> str:
        raise TypeError("a signing key stays in its process")

    def sign(self, message: bytes) -> bytes:
        """Return the ES256 signature over `message` as 64 bytes `r || s`, `s` in the lower half."""
        r, s = decode_dss_signature(self._private.sign(message, _ES256))
        return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")


def key_id(key: PublicKey) -> str:
    """Return the JWK thumbprint of `key` (RFC 7638, SHA-256), 43 characters, which serves as a key id."""
    return key.thumbprint.rpartition(":")[2]


def read_signing_key(pem: bytes, *, name: str) -> SigningKey:
    """Read a private key in PEM, PKCS#8 or SEC 1 without a password.

    Raises `ConfigurationError` for any other content: one line that begins with `name` and does not show the content.
    """
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{name}: not a private key in PEM without a password") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ConfigurationError(f"{name}: a signing key is on P-256: openssl ecparam -name prime256v1 -genkey -noout")
    return SigningKey(private)


def read_public_key(pem: bytes, *, name: str) -> PublicKey:
    """Read a public key in PEM, a SubjectPublicKeyInfo. Raises `ConfigurationError` as `read_signing_key` does."""
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{name}: not a public key in PEM") from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise ConfigurationError(f"{name}: a signing key is on P-256")
    numbers = loaded.public_numbers()
    return PublicKey.parse(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))


def public_pem(key: PublicKey) -> str:
    """Return `key` as a SubjectPublicKeyInfo in PEM, the form that OPA's `keys` take."""
    return key.loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
