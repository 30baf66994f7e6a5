"""The connecting peer: the one SPIFFE ID of the client's certificate, if its own trust domain vouches for it.

nats-server verifies a client's chain against all authorities of its `ca_file` and does not check which of them may vouch for
which trust domain: of two in the file, each could issue an SVID for the other's agents. So the chain is verified again here,
against the current bundle of the trust domain in the certificate, from the Workload API (X509-SVID.md sections 2, 4 and 5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from sealbus.bus.certificates import reading_certificate
from sealbus.envelopes.errors import Code, ConnectRefused, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.printable import printable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_LEAST_LIFE: Final = SECOND
"""A user JWT ends on a whole second, so an SVID with less than one second left cannot have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedPeer:
    """A connecting workload, verified, and when its X.509-SVID expires, in microseconds."""

    spiffe_id: SpiffeId
    not_after: int


def verify_peer(
    chains: Sequence[Sequence[str]], bundles: Mapping[TrustDomain, tuple[bytes, ...]], *, now: int
) -> VerifiedPeer:
    """Return the workload of `chains`, PEM certificates from the leaf to a root, at `now` microseconds.

    It verifies that the leaf has exactly one URI name, which is a SPIFFE ID, and is an X.509-SVID and no authority; that one
    chain ends in an authority of that trust domain's own bundle (`bundles`, DER by trust domain); and that the leaf verifies
    against this bundle alone. Raises `ConnectRefused`: `no_client_certificate`, `bad_svid`, `not_one_uri`,
    `unknown_trust_domain`, `wrong_authority`, `svid_expired`.
    """
    if not chains:
        raise ConnectRefused(Code.NO_CLIENT_CERTIFICATE)
    try:
        parsed = [[x509.load_pem_x509_certificate(text.encode()) for text in chain] for chain in chains]
    except (x509.InvalidVersion, ValueError) as error:
        raise ConnectRefused(Code.BAD_SVID, "a certificate cannot be parsed") from error
    leaf = parsed[0][0]
    if any(chain[0] != leaf for chain in parsed):
        raise ConnectRefused(Code.BAD_SVID, "the chains are of different certificates")
    spiffe_id = _spiffe_id(leaf)
    not_after = int(leaf.not_valid_after_utc.timestamp()) * SECOND
    if not_after < now + _LEAST_LIFE:
        raise ConnectRefused(Code.SVID_EXPIRED, str(spiffe_id))
    anchors = bundles.get(spiffe_id.trust_domain)
    if not anchors:
        raise ConnectRefused(Code.UNKNOWN_TRUST_DOMAIN, spiffe_id.trust_domain.name)
    if not any(chain[-1].public_bytes(Encoding.DER) in anchors for chain in parsed):
        raise ConnectRefused(Code.WRONG_AUTHORITY, f"{spiffe_id}: no chain ends in its trust domain's bundle")
    between = list({certificate: None for chain in parsed for certificate in chain[1:-1]})
    moment = datetime.fromtimestamp(now // SECOND, UTC)
    try:
        with reading_certificate():
            PolicyBuilder().store(_store(anchors)).time(moment).build_client_verifier().verify(leaf, between)
    except ValueError as error:
        # To say what is wrong, the verifier reads names that nothing before has read.
        raise ConnectRefused(Code.BAD_SVID, f"{spiffe_id}: a certificate of its chain cannot be parsed") from error
    except VerificationError as error:
        reason = printable(str(error).splitlines()[0][:200])
        raise ConnectRefused(Code.WRONG_AUTHORITY, f"{spiffe_id}: {reason}") from error
    return VerifiedPeer(spiffe_id=spiffe_id, not_after=not_after)


@lru_cache(maxsize=16)
def _store(anchors: tuple[bytes, ...]) -> Store:
    """Return the store of a bundle, cached: there is one for each trust domain, and each is needed often."""
    return Store([x509.load_der_x509_certificate(anchor) for anchor in anchors])


def _spiffe_id(leaf: x509.Certificate) -> SpiffeId:
    try:
        extensions = leaf.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound as error:
        raise ConnectRefused(Code.NOT_ONE_URI, "no subject alternative name") from error
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError) as error:
        raise ConnectRefused(Code.BAD_SVID, "its extensions cannot be parsed") from error
    if len(uris) != 1:
        raise ConnectRefused(Code.NOT_ONE_URI, f"{len(uris)} URI names")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except EnvelopeError as error:
        raise ConnectRefused(Code.BAD_SVID, "its URI is not a SPIFFE ID") from error
    if not _is_leaf(extensions):
        raise ConnectRefused(Code.BAD_SVID, f"{spiffe_id}: not a leaf that may sign")
    return spiffe_id


def _is_leaf(extensions: x509.Extensions) -> bool:
    """Return whether the certificate is no authority and may sign (X509-SVID.md sections 4.1 and 4.3)."""
    for extension in extensions:
        if isinstance(extension.value, x509.BasicConstraints) and extension.value.ca:
            return False
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return usage.digital_signature and not usage.key_cert_sign and not usage.crl_sign
