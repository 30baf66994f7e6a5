"""TLS between SPIFFE workloads: the handshake checks the peer's SPIFFE ID, never a host name.

A context is made for one X.509-SVID and never changed: `ssl` can add certificate authorities to a context but not remove
them, so a rotation makes a new context. That costs half a millisecond.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sealbus.bus.certificates import reading_certificate
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain


class WrongPeer(ssl.SSLCertVerificationError):
    """The peer has a valid certificate of the right trust domain, but not an expected SPIFFE ID."""


class _SpiffeObject(ssl.SSLObject):
    """The TLS state of one connection, whose handshake succeeds only if the peer's SPIFFE ID is expected."""

    def do_handshake(self) -> None:
        """Do the handshake. Raises `WrongPeer` before we send anything, including our certificate."""
        super().do_handshake()
        # OpenSSL has verified the chain now; while it needs more bytes, the line above raises SSLWantReadError.
        context = self.context
        if not isinstance(context, SpiffeContext):
            raise WrongPeer(1, "the TLS context does not know the server's SPIFFE ID")
        context.check_peer(self.getpeercert(binary_form=True))


class SpiffeContext(ssl.SSLContext):
    """A client context of TLS 1.3 that trusts one trust domain's X.509 bundle and expects given SPIFFE IDs."""

    sslobject_class = _SpiffeObject
    _expected: frozenset[str]

    def __new__(cls, expected: frozenset[SpiffeId]) -> Self:
        """Make the context that `__init__` sets up; `ssl` takes the protocol here."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, expected: frozenset[SpiffeId]) -> None:
        self._expected = frozenset(str(spiffe_id) for spiffe_id in expected)
        self.check_hostname = False
        self.verify_mode = ssl.CERT_REQUIRED
        self.minimum_version = ssl.TLSVersion.TLSv1_3
        # A SPIFFE bundle is a set of trust anchors, self-signed or not (X509-SVID.md section 6).
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    def check_peer(self, certificate: bytes | None) -> None:
        """Raise `WrongPeer` unless the DER `certificate`, its chain verified, is an X.509-SVID of an expected ID."""
        if certificate is None:
            raise WrongPeer(1, "the server has no certificate")
        try:
            peer = spiffe_id_of(certificate)
        except ValueError as error:
            raise WrongPeer(1, f"the server's certificate is not an X.509-SVID: {error}") from error
        if peer not in self._expected:
            wanted = " or ".join(sorted(self._expected))
            raise WrongPeer(1, f"the server is {peer[:200]}, expected {wanted}")


def spiffe_id_of(certificate: bytes) -> str:
    """Return the only URI SAN of a DER certificate, which must be a leaf (X509-SVID.md sections 2 and 4).

    The chain is not verified here, and the URI is not parsed: callers compare it with known IDs. Raises `ValueError` for
    bytes that are no certificate, for an authority's certificate, and unless there is exactly one URI SAN.
    """
    with reading_certificate():
        parsed = x509.load_der_x509_certificate(certificate)
        extensions = parsed.extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise ValueError("it has no subject alternative name") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ValueError(f"it has {len(uris)} URI names, not one")
    with contextlib.suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError("it is a certificate authority's")
    return uris[0]


def client_context(material: X509Material, *, expected: frozenset[SpiffeId]) -> SpiffeContext:
    """Return a context that authenticates us by `material` and accepts a server that is one of `expected`.

    All of `expected` must be of one trust domain, and only its X.509 bundle is trusted: with two, the authority of either
    could impersonate the other's server. Raises `ConfigurationError` otherwise, or without that bundle.
    """
    domains = {spiffe_id.trust_domain for spiffe_id in expected}
    if len(domains) != 1:
        raise ConfigurationError("the expected server IDs must be of one trust domain, and at least one must be given")
    domain: TrustDomain = domains.pop()
    anchors = material.bundles.get(domain)
    if not anchors:
        raise ConfigurationError(f"the Workload API gave no X.509 bundle of {domain.name}, the server's trust domain")
    context = SpiffeContext(expected)
    _load(context, anchors, material)
    return context


def server_context(material: X509Material, *, trust_domain: TrustDomain) -> ssl.SSLContext:
    """Return a TLS 1.3 context that authenticates us by `material` and requires a client certificate of `trust_domain`.

    Only that trust domain's X.509 bundle is trusted. The caller reads the client's SPIFFE ID from the connection with
    `spiffe_id_of`. Raises `ConfigurationError` without that bundle.
    """
    anchors = material.bundles.get(trust_domain)
    if not anchors:
        raise ConfigurationError(f"the Workload API gave no X.509 bundle of {trust_domain.name}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # A resumed session would keep a client's certificate without checking it, or its expiry, again.
    context.num_tickets = 0
    _load(context, anchors, material)
    return context


def _load(context: ssl.SSLContext, anchors: tuple[bytes, ...], material: X509Material) -> None:
    try:
        context.load_verify_locations(cadata=b"".join(anchors))
        _load_identity(context, material)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"the X.509-SVID or bundle from the Workload API cannot be loaded: {error}") from error


def _load_identity(context: ssl.SSLContext, material: X509Material) -> None:
    """Load certificate and key. `ssl` reads them only from files; on Linux the file is an anonymous one in memory."""
    chain = "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in material.chain).encode()
    if hasattr(os, "memfd_create"):
        key = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(material.key) + b"-----END PRIVATE KEY-----\n"
        with _memory_file(chain + key) as path:
            context.load_cert_chain(path)
        return
    password = secrets.token_urlsafe(32)
    with _encrypted_file(chain, material.key, password) as path:
        context.load_cert_chain(path, password=password)


@contextlib.contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _encrypted_file(chain: bytes, key: bytes, password: str) -> Iterator[str]:
    """Make a file of mode 0600 (other systems than Linux), its key encrypted under a password kept only in memory."""
    encrypted = serialization.load_der_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "svid.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(chain + encrypted)
        yield str(path)
