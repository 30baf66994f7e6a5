"""Certificates that are none: one error, whatever the package raises."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fuzz.callout import NOW, authority, leaf, signed
from spiffe._proto import workload_pb2 as proto
from support.envelopes import private_key
from support.x509 import ThrowawayCa

from sealbus.agents.control.callout.peer import verify_peer
from sealbus.agents.identity.x509_svid import SvidError, authority_end, parse_certificates, read_x509
from sealbus.bus.certificates import reading_certificate
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.connection.tls import spiffe_id_of
from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.trust.spiffe_id import TrustDomain

CA = ThrowawayCa("example.org")
ISSUED = CA.issue("spiffe://example.org/agent/a")
GOOD = ISSUED.cert_der
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
    with pytest.raises(ValueError), reading_certificate():  # noqa: PT011  any text of the parser
        certificate.public_key()


def test_a_missing_extension_is_no_fault() -> None:
    with pytest.raises(x509.ExtensionNotFound), reading_certificate():
        raise x509.ExtensionNotFound("none", x509.NameConstraints.oid)


def pem_of(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("der", [OTHER_VERSION, TWO_NAMES], ids=["version", "extension"])
def test_the_callout_refuses_such_a_peer(der: bytes) -> None:
    anchors = {TrustDomain("example.org"): (CA.cert_der,)}
    with pytest.raises(ConnectRefused) as refused:
        verify_peer([[pem_of(der), pem_of(CA.cert_der)]], anchors, now=wall_clock())
    assert refused.value.code is Code.BAD_SVID


@pytest.mark.parametrize("der", [OTHER_VERSION, TWO_NAMES, OTHER_KEY], ids=["version", "extension", "key"])
def test_the_workload_api_gives_no_such_identity(der: bytes) -> None:
    svid = proto.X509SVID(spiffe_id=ISSUED.spiffe_id, x509_svid=der, x509_svid_key=ISSUED.key_der, bundle=CA.cert_der)
    with pytest.raises(SvidError):
        read_x509(proto.X509SVIDResponse(svids=[svid]), now=wall_clock())


def test_each_is_another_certificate() -> None:
    assert len({GOOD, OTHER_VERSION, TWO_NAMES, OTHER_KEY}) == 4


def test_a_name_that_only_the_verifier_reads_is_read_as_carefully() -> None:
    content, own = leaf().tbs_certificate_bytes, authority().public_bytes(Encoding.DER)
    subject = content.rindex(b"\x0c\x04fuzz")
    # Its value is a set, and the extension that names the authority is another: in its error the verifier names the subject.
    broken = content[:subject] + b"\x31" + content[subject + 1 :]
    broken = signed(broken.replace(bytes.fromhex("0603551d23"), bytes.fromhex("0603551d03")))
    with pytest.raises(ConnectRefused) as refused:
        verify_peer([[pem_of(broken), pem_of(own)]], {TrustDomain("example.org"): (own,)}, now=NOW)
    assert refused.value.code is Code.BAD_SVID
    key = private_key("leaf").private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    svid = proto.X509SVID(
        spiffe_id="spiffe://example.org/agent/planner", x509_svid=broken, x509_svid_key=key, bundle=own
    )
    with pytest.raises(SvidError, match="cannot be parsed"):
        read_x509(proto.X509SVIDResponse(svids=[svid]), now=NOW)


def test_a_subject_that_a_terminal_would_obey_is_shown_escaped() -> None:
    content, own = leaf().tbs_certificate_bytes, authority().public_bytes(Encoding.DER)
    # The last is the subject; what it is refused for names it.
    broken = signed(content[::-1].replace(b"zzuf", b"m[2\x1b", 1)[::-1].replace(b"350101000000Z", b"250601000000Z"))
    with pytest.raises(ConnectRefused) as refused:
        verify_peer([[pem_of(broken), pem_of(own)]], {TrustDomain("example.org"): (own,)}, now=1_700_000_000_000_000)
    assert refused.value.code is Code.WRONG_AUTHORITY
    assert refused.value.detail.isprintable()
