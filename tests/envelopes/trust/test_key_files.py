"""Keys as PEM: ours come back, everything else is refused by name and without its content."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.keys import key_id, public_pem, read_public_key, read_signing_key

PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
SEC1 = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
P384 = ec.generate_private_key(ec.SECP384R1())
OTHER = ed25519.Ed25519PrivateKey.generate()


@pytest.mark.parametrize("pem", [PEM, SEC1])
def test_a_private_key_signs_what_its_public_key_verifies(pem: bytes) -> None:
    key = read_signing_key(pem, name="team.pem")
    public = read_public_key(public_pem(key.public).encode(), name="team.pub")
    public.verify(b"text", key.sign(b"text"))
    assert public == key.public


def test_a_key_is_named_by_its_thumbprint() -> None:
    key = read_signing_key(PEM, name="x").public
    assert len(key_id(key)) == 43
    assert key.thumbprint.endswith(f":{key_id(key)}")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        public_pem(read_signing_key(PEM, name="x").public).encode(),
        PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")),
    ],
)
def test_what_is_no_private_key(pem: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"team\.pem: not a private key"):
        read_signing_key(pem, name="team.pem")


@pytest.mark.parametrize("private", [P384, OTHER])
def test_keys_of_another_kind(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    with pytest.raises(ConfigurationError, match=r"k: a signing key is on P-256"):
        read_signing_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), name="k")
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigurationError, match=r"k: a signing key is on P-256"):
        read_public_key(public, name="k")


def test_what_is_no_public_key() -> None:
    with pytest.raises(ConfigurationError, match=r"k: not a public key"):
        read_public_key(PEM, name="k")
