"""P-256 keys as PEM texts, and the short name of a key: for keys that people keep, not those that processes make."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.keys import PublicKey, SigningKey

__all__ = ["key_id", "public_pem", "read_public_key", "read_signing_key"]


def key_id(key: PublicKey) -> str:
    """Return the JWK thumbprint of `key` (RFC 7638, SHA-256), 43 characters: nobody has to agree on names of keys."""
    return key.thumbprint.rpartition(":")[2]


def read_signing_key(pem: bytes, *, name: str) -> SigningKey:
    """Return the private key that `pem` is, PKCS#8 or SEC 1 without a password.

    Raises `ConfigurationError`, one line that begins with `name` and shows nothing of the content, for anything else.
    """
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{name}: not a private key in PEM without a password") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(private.curve, ec.SECP256R1):
        raise ConfigurationError(f"{name}: a signing key is on P-256: openssl ecparam -name prime256v1 -genkey -noout")
    return SigningKey(private)


def read_public_key(pem: bytes, *, name: str) -> PublicKey:
    """Return the public key that `pem` is, a SubjectPublicKeyInfo. Raises `ConfigurationError` as above."""
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{name}: not a public key in PEM") from error
    if not isinstance(loaded, ec.EllipticCurvePublicKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise ConfigurationError(f"{name}: a signing key is on P-256")
    numbers = loaded.public_numbers()
    return PublicKey.parse(numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big"))


def public_pem(key: PublicKey) -> str:
    """Return `key` as a SubjectPublicKeyInfo in PEM, which is what OPA's `keys` take."""
    return key.loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
