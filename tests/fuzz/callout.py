"""Targets: what a NATS server asks the auth callout, and certificates of workloads."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, partial

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fuzz.targets import Target, check_refusal
from google.protobuf.message import DecodeError
from spiffe._proto import workload_pb2
from support.envelopes import private_key
from support.issuer import compact

from sealbus.agents.control.callout.nkeys import (
    CurveKey,
    NkeyError,
    Prefix,
    SigningKey,
    decode_jwt,
    decode_public,
    decode_seed,
    encode_public,
)
from sealbus.agents.control.callout.peer import verify_peer
from sealbus.agents.control.callout.protocol import verify_request
from sealbus.agents.identity.jwt_svid import read_jwt_bundles
from sealbus.agents.identity.x509_svid import SvidError, authority_end, parse_certificates, read_x509
from sealbus.bus.nats.connection.tls import spiffe_id_of
from sealbus.envelopes.errors import ConnectRefused
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.bundles import TrustBundles
from sealbus.envelopes.trust.spiffe_id import TrustDomain

NOW = 1_764_000_000 * SECOND
_HEADER = b'{"typ":"JWT","alg":"ed25519-nkey"}'
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fuzz")])
_DER, _PEM = serialization.Encoding.DER, serialization.Encoding.PEM
_SHA256_ECDSA = bytes.fromhex("300a06082a8648ce3d040302")


@cache
def server() -> SigningKey:
    """Return the nkey of a server."""
    return SigningKey(Prefix.SERVER, bytes(32))


def user() -> str:
    """Return the nkey of an attempt to connect."""
    return SigningKey(Prefix.USER, bytes([2]) * 32).public


def curve_key() -> str:
    """Return the curve key of the server."""
    return _curve_keys()[1].public


@cache
def _curve_keys() -> tuple[CurveKey, CurveKey]:
    return CurveKey(bytes(32)), CurveKey(bytes([1]) * 32)


def _request(token: bytes) -> None:
    try:
        request = verify_request(token, now=NOW)
        verify_peer(request.chains, {TrustDomain("example.org"): (authority().public_bytes(_DER),)}, now=NOW)
    except ConnectRefused as error:
        check_refusal(error)


def request(data: bytes) -> None:
    """A request of a server."""
    _request(data)


def signed_request(data: bytes) -> None:
    """The claims of a request, signed by its server."""
    _request(compact(_HEADER, data, server().sign).encode())


def jwt(data: bytes) -> None:
    """A JWT of an nkey."""
    try:
        decode_jwt(data, Prefix.SERVER)
    except NkeyError as error:
        check_refusal(error)


def nkeys(data: bytes) -> None:
    """Nkeys as text."""
    text = data.decode("utf-8", "surrogateescape")
    for decode in (decode_public, decode_seed):
        for prefix in Prefix:
            try:
                decode(text, prefix)
            except NkeyError as error:
                check_refusal(error)


def sealed(data: bytes) -> None:
    """A sealed request, and the key of its sender as a header has it."""
    own, other = _curve_keys()
    for sender in (other.public, data[:56].decode("latin-1")):
        _use(own, data, sender)


def any_curve_key(data: bytes) -> None:
    """Any point as the curve key of a server."""
    own, _ = _curve_keys()
    _use(own, b"xkv1" + bytes(64), encode_public(Prefix.CURVE, data[:32].ljust(32, b"\0")))


def _use(own: CurveKey, data: bytes, sender: str) -> None:
    for use in (partial(own.open, data), partial(own.seal, b"answer")):
        try:
            use(sender)
        except NkeyError as error:
            check_refusal(error)


@cache
def _authority_key() -> ec.EllipticCurvePrivateKey:
    return private_key("authority")


@cache
def authority() -> x509.Certificate:
    """Return the certificate of the authority of `example.org`."""
    builder = _builder().public_key(_authority_key().public_key())
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(_authority_key().public_key()), critical=False)
        .sign(_authority_key(), hashes.SHA256(), ecdsa_deterministic=True)
    )


def leaf(uri: str = "spiffe://example.org/agent/planner") -> x509.Certificate:
    """Return the certificate of a workload."""
    return (
        _builder()
        .public_key(private_key("leaf").public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(_authority_key().public_key()), critical=False
        )
        .sign(_authority_key(), hashes.SHA256(), ecdsa_deterministic=True)
    )


def _builder() -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .serial_number(7)
        .not_valid_before(datetime(2025, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2035, 1, 1, tzinfo=UTC))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=not signs, crl_sign=not signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _sequence(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def certificate(data: bytes) -> None:
    """A certificate that nobody signed."""
    _certificate(data)


def signed_certificate(data: bytes) -> None:
    """What an authority signs in a certificate."""
    _certificate(signed(data))


def signed(data: bytes) -> bytes:
    """Return `data` as a certificate that the authority has signed."""
    signature = _authority_key().sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return _sequence(0x30, data + _SHA256_ECDSA + _sequence(0x03, b"\0" + signature))


def _certificate(der: bytes) -> None:
    anchors = {TrustDomain("example.org"): (authority().public_bytes(_DER),)}
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"
    try:
        verify_peer([(pem.decode(), authority().public_bytes(_PEM).decode())], anchors, now=NOW)
    except ConnectRefused as error:
        check_refusal(error)
    for read in (spiffe_id_of, parse_certificates, authority_end):
        try:
            read(der)
        except ValueError as error:
            check_refusal(error)
    key = private_key("leaf").private_bytes(_DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    svid = workload_pb2.X509SVID(
        spiffe_id="spiffe://example.org/agent/planner",
        x509_svid=der,
        x509_svid_key=key,
        bundle=authority().public_bytes(_DER),
    )
    _read_x509(workload_pb2.X509SVIDResponse(svids=[svid], federated_bundles={"spiffe://other.example": der}))


def _read_x509(response: workload_pb2.X509SVIDResponse) -> None:
    try:
        read_x509(response, now=NOW)
    except SvidError as error:
        check_refusal(error)


def workload_api(data: bytes) -> None:
    """A message of the Workload API, as the X.509-SVIDs and as the JWT bundles that it may be."""
    try:
        x509_response = workload_pb2.X509SVIDResponse.FromString(data)
        jwt_response = workload_pb2.JWTBundlesResponse.FromString(data)
    except DecodeError:
        return
    _read_x509(x509_response)
    read_jwt_bundles(jwt_response.bundles, TrustBundles())


TARGETS: Mapping[str, Target] = {
    "request": request,
    "signed_request": signed_request,
    "jwt": jwt,
    "nkeys": nkeys,
    "sealed": sealed,
    "curve_key": any_curve_key,
    "certificate": certificate,
    "signed_certificate": signed_certificate,
    "workload_api": workload_api,
}
