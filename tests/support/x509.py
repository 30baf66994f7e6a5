"""A throwaway certificate authority of one trust domain: X.509-SVIDs for tests, good ones and wrong ones.

And a certificate of no authority, for servers that are no workloads.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["IssuedSvid", "ThrowawayCa", "self_signed"]

_DER = serialization.Encoding.DER
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedSvid:
    """One certificate with its key. `not_before` and `not_after` are microseconds since the Unix epoch."""

    spiffe_id: str
    certificate: x509.Certificate = field(repr=False)
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)
    not_before: int
    not_after: int

    @property
    def cert_der(self) -> bytes:
        return self.certificate.public_bytes(_DER)

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    @property
    def key_der(self) -> bytes:
        return self._key(_DER)

    @property
    def key_pem(self) -> bytes:
        return self._key(_PEM)

    def _key(self, encoding: serialization.Encoding) -> bytes:
        return self.private_key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class ThrowawayCa:
    """Signs with a self-signed P-256 certificate that lives one day, or `life` seconds; with `above`, by its name and key."""

    def __init__(self, trust_domain: str, *, life: float = 86_400.0, above: IssuedSvid | None = None) -> None:
        self.trust_domain = trust_domain
        self._key = above.private_key if above is not None else ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test CA of {trust_domain}")])
        self._name = above.certificate.subject if above is not None else name
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(seconds=life))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(sign=False, certify=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )

    @classmethod
    def stolen(cls, trust_domain: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> ThrowawayCa:
        """Return one that signs with somebody's own certificate and key, whatever it is asked for."""
        ca = cls.__new__(cls)
        ca.trust_domain, ca.certificate, ca._key, ca._name = trust_domain, certificate, key, certificate.subject
        return ca

    @property
    def cert_der(self) -> bytes:
        return self.certificate.public_bytes(_DER)

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(_PEM)

    def issue(
        self,
        spiffe_id: str,
        *,
        life: float = 3600.0,
        age: float = 60.0,
        uris: Sequence[str] | None = None,
        addresses: Sequence[str] = (),
        authority: bool = False,
        usage: x509.KeyUsage | None = None,
        organization: str = "throwaway",
        constraints_last: bool = False,
    ) -> IssuedSvid:
        """Return a certificate that ends `life` seconds from now (negative: expired) and began `age` seconds ago.

        X.509 times are whole seconds: the end is rounded up. `uris` replaces the URI SANs, `authority` makes the leaf
        a CA certificate, which no SVID may be, and `usage` replaces what its key may be used for. Its basic constraints are
        its first extension, or its last.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = time.time()
        not_before = int(now - age)
        not_after = int(now + life) + 1
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(uri) for uri in (uris if uris is not None else [spiffe_id])
        ]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder, constraints = x509.CertificateBuilder(), x509.BasicConstraints(ca=authority, path_length=None)
        if not constraints_last:
            builder = builder.add_extension(constraints, critical=True)
        builder = (
            builder.subject_name(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime.fromtimestamp(not_before, datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(not_after, datetime.UTC))
            .add_extension(usage or _usage(sign=True, certify=authority), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(_issued_by(self.certificate), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if constraints_last:
            builder = builder.add_extension(constraints, critical=True)
        return IssuedSvid(
            spiffe_id=spiffe_id,
            certificate=builder.sign(self._key, hashes.SHA256()),
            private_key=key,
            not_before=not_before * 1_000_000,
            not_after=not_after * 1_000_000,
        )


def _issued_by(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def self_signed(host: str = "") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for `host`, or for 127.0.0.1, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    whose = x509.DNSName(host) if host else x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - hour)
        .not_valid_after(now + hour)
        .add_extension(x509.SubjectAlternativeName([whose]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(_PEM)
    )
    private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + private)
        file.flush()
        served.load_cert_chain(file.name)
    return served, ssl.create_default_context(cadata=certificate.decode())
