"""Keys that people keep in files: who signs a policy, and who serves it."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealbus.agents.files import PRIVATE, PUBLIC, replace_file
from sealbus.envelopes.trust.keys import PublicKey, SigningKey, public_pem

__all__ = ["write_new_key"]


def write_new_key(*, private: Path, public: Path) -> PublicKey:
    """Make a key as `openssl ecparam -name prime256v1 -genkey` does, and write both halves as PEM; return the public one.

    The private one is for its owner only.
    """
    made = ec.generate_private_key(ec.SECP256R1())
    key = SigningKey(made).public
    replace_file(private, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=PRIVATE)
    replace_file(public, public_pem(key).encode(), mode=PUBLIC)
    return key
