"""X.509 certificates of the development CA and the X.509-SVIDs that it issues (SPIFFE X509-SVID.md)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

BACKDATED = 5
"""Seconds from a certificate's notBefore to its issue: the clock skew that the envelope format allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Authority:
    """A self-signed CA certificate with its P-256 key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate as DER, as in a bundle."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSvid:
    """One X.509-SVID: `chain` as DER, leaf first; `key` as unencrypted PKCS#8 DER; times in microseconds."""

    spiffe_id: SpiffeId
    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    issued: int
    not_after: int


def make_authority(trust_domain: TrustDomain, *, now: int, ttl: int) -> X509Authority:
    """Make a CA for `trust_domain` that is valid for `ttl` seconds from `now` (microseconds).

    Each CA has its own subject, so that a chain never matches the name of one CA with the key of another. No leaf has the
    subject of its CA, because verifiers would treat it as self-signed.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sealbus development CA"),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )
    moment = _moment(now)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(moment - timedelta(seconds=BACKDATED))
        .not_valid_after(moment + timedelta(seconds=ttl))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return X509Authority(certificate=certificate, key=key)


def issue_svid(
    authority: X509Authority, spiffe_id: SpiffeId, *, dns_names: Iterable[str] = (), now: int, ttl: int
) -> IssuedSvid:
    """Issue an X.509-SVID with a new P-256 key that is valid for `ttl` seconds from `now` (microseconds).

    The leaf has exactly one URI SAN. `dns_names` become DNS SANs, or IP SANs if they are addresses.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    moment = _moment(now)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(spiffe_id))]
    names += [_host_name(name) for name in dns_names]
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sealbus development SVID")]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(seconds=BACKDATED))
        .not_valid_after(moment + timedelta(seconds=ttl))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    return IssuedSvid(
        spiffe_id=spiffe_id,
        chain=(leaf.public_bytes(serialization.Encoding.DER),),
        key=key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        issued=now,
        not_after=int(leaf.not_valid_after_utc.timestamp()) * SECOND,
    )


def _moment(now: int) -> datetime:
    return datetime.fromtimestamp(now // SECOND, UTC)


def _host_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
