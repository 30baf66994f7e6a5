"""Certificates that are none: one error, whatever the package raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from support.x509 import ThrowawayCa

from sealbus.agents.control.callout.peer import verify_peer
from sealbus.agents.identity.x509_svid import authority_end, parse_certificates
from sealbus.bus.certificates import reading_certificate
from sealbus.bus.nats.connection.tls import spiffe_id_of
from sealbus.envelopes.errors import Code, ConnectRefused

GOOD = ThrowawayCa("example.org").issue("spiffe://example.org/agent/a").cert_der
VERSION = bytes.fromhex("a003020102")
"""Version 3, which the first field of a certificate has."""
USAGE = bytes.fromhex("0603551d0f")
NAME = bytes.fromhex("0603551d11")
"""The ids of two extensions of equal length."""

OTHER_VERSION = GOOD.replace(VERSION, VERSION[:-1] + b"\x12")
TWO_NAMES = GOOD.replace(USAGE, NAME)
OTHER_KEY = GOOD.replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030117"))
"""On a curve that nobody knows."""


@pytest.mark.parametrize("read", [parse_certificates, authority_end, spiffe_id_of])
def test_a_certificate_of_another_version_is_none(read: Callable[[bytes], object]) -> None:
    with pytest.raises(ValueError, match="malformed"):
        read(OTHER_VERSION)


def test_a_certificate_with_an_extension_twice_names_nobody() -> None:
    with pytest.raises(ValueError, match="malformed"):
        spiffe_id_of(TWO_NAMES)


def test_a_key_that_is_not_supported_is_no_key() -> None:
    [certificate] = parse_certificates(OTHER_KEY)
    with pytest.raises(ValueError), reading_certificate():  # noqa: PT011
        certificate.public_key()


def test_a_missing_extension_is_no_fault() -> None:
    with pytest.raises(x509.ExtensionNotFound), reading_certificate():
        raise x509.ExtensionNotFound("none", x509.NameConstraints.oid)


@pytest.mark.parametrize("der", [OTHER_VERSION, TWO_NAMES])
def test_the_callout_refuses_such_a_peer(der: bytes) -> None:
    import base64

    pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
    with pytest.raises(ConnectRefused) as refused:
        verify_peer([[pem]], {}, now=0)
    assert refused.value.code is Code.BAD_SVID
