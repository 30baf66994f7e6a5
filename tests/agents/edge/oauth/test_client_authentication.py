"""The edge's own credentials at an issuer: from files that nobody else can read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sealbus.agents.edge.oauth.client_authentication import ClientSecret, PrivateKeyJwt, client_authentication
from sealbus.envelopes.errors import ConfigurationError

KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def file(folder: Path, content: bytes, *, mode: int = 0o600) -> Path:
    made = folder / "client"
    made.touch(mode=mode)
    made.chmod(mode)
    made.write_bytes(content)
    return made


def test_a_key_in_pem(tmp_path: Path) -> None:
    found = client_authentication(
        "edge", key=file(tmp_path, KEY.private_bytes(*PRIVATE)), secret=None, setting="client"
    )
    assert isinstance(found, PrivateKeyJwt)
    assert found.client_id == "edge"
    assert "key" not in repr(found)


def test_a_secret_ends_with_its_line(tmp_path: Path) -> None:
    found = client_authentication("edge", key=None, secret=file(tmp_path, b"s3cret with blanks\n"), setting="client")
    assert found == ClientSecret("edge", "s3cret with blanks")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP384R1()).private_bytes(*PRIVATE),
        rsa.generate_private_key(65537, 2048).private_bytes(*PRIVATE),
        ed25519.Ed25519PrivateKey.generate().private_bytes(*PRIVATE),
    ],
    ids=["empty", "text", "public", "P-384", "RSA", "Ed25519"],
)
def test_what_is_no_such_key_is_refused_without_being_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"client of x: .* is not a private P-256 key in PEM$") as caught:
        client_authentication("edge", key=file(tmp_path, content), secret=None, setting="client of x")
    assert not content or content.decode().split("\n")[0] not in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\nb", b"a\x00b"])
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigurationError, match="does not hold a secret"):
        client_authentication("edge", key=None, secret=file(tmp_path, content), setting="client of x")


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    readable = file(tmp_path, b"secret", mode=0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        client_authentication("edge", key=None, secret=readable, setting="client of x")
    with pytest.raises(ConfigurationError, match="No such file"):
        client_authentication("edge", key=tmp_path / "missing", secret=None, setting="client of x")
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigurationError, match="does not hold a secret"):
        client_authentication("edge", key=None, secret=tmp_path / "fifo", setting="client of x")


@pytest.mark.parametrize("both", [True, False])
def test_it_is_one_of_the_two(tmp_path: Path, both: bool) -> None:
    path = file(tmp_path, b"secret") if both else None
    with pytest.raises(ConfigurationError, match="either client_key or client_secret"):
        client_authentication("edge", key=path, secret=path, setting="client of x")
