"""Verifies our X.509-SVID from the Workload API before it is used (SPIFFE X509-SVID.md section 5).

A chain that peers would refuse is refused here, where the operator sees the reason, and not at the first connection. Chains
and bundles are DER certificates joined without separators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from spiffe._proto import workload_pb2 as proto

from sealbus.bus.certificates import reading_certificate
from sealbus.bus.ports import X509Material
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.printable import printable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_SCHEME = "spiffe://"

MAX_CERTIFICATES = 64
"""Most certificates in one chain or bundle: a trust domain rotates two or three CAs at a time."""

_SEQUENCE = 0x30
_LONG_FORM = 0x80


class SvidError(Exception):
    """The Workload API gave no usable X.509-SVID; the text gives the reason."""


class SvidMissing(SvidError):
    """The response has SVIDs, and ours is not among them: the Workload API gives it no more, or not yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Reading:
    """One parsed response: the material, and why bundles of federated trust domains were refused."""

    material: X509Material
    refused: tuple[str, ...]


def read_x509(
    response: proto.X509SVIDResponse,
    *,
    wanted: SpiffeId | None = None,
    before: Mapping[TrustDomain, tuple[bytes, ...]] | None = None,
    now: int,
) -> X509Reading:
    """Return our X.509-SVID: that of `wanted`, or without it the first, which is the default identity.

    Verified at `now` (microseconds): exactly one URI SAN, which is the SPIFFE ID that the response names; key usage and basic
    constraints of a leaf; the key fits; the chain leads to the bundle of its own trust domain and no other. Raises
    `SvidError`, and `SvidMissing` if there is no SVID of `wanted`. Bundles of other trust domains are kept apart, each by its
    name. If such a bundle cannot be parsed, that of `before` stays in force; an absent bundle is dropped
    (SPIFFE_Workload_API.md section 4.4).
    """
    svid = _choose(response.svids, wanted)
    try:
        spiffe_id = SpiffeId(svid.spiffe_id)
        chain = parse_certificates(svid.x509_svid)
        own = parse_certificates(svid.bundle)
        key = serialization.load_der_private_key(svid.x509_svid_key, password=None)
        with reading_certificate():
            fits = chain[0].public_key() == key.public_key()
    except (EnvelopeError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SvidError(f"X.509-SVID {svid.spiffe_id[:256]!r} cannot be parsed") from error
    leaf = chain[0]
    _check_leaf(leaf, spiffe_id)
    if not fits:
        raise SvidError(f"the key given with the X.509-SVID of {spiffe_id} does not belong to it")
    _check_chain(chain, own, spiffe_id, now)
    bundles, refused = _bundles(response.federated_bundles, spiffe_id.trust_domain, before or {})
    bundles[spiffe_id.trust_domain] = _der(own)
    material = X509Material(
        spiffe_id=spiffe_id,
        chain=_der(chain),
        key=svid.x509_svid_key,
        bundles=MappingProxyType(bundles),
        not_before=_microseconds(leaf.not_valid_before_utc),
        not_after=_microseconds(leaf.not_valid_after_utc),
    )
    return X509Reading(material=material, refused=tuple(refused))


def authority_end(der: bytes) -> int:
    """Return the end of an authority of a trust bundle, in microseconds. Raises `ValueError` if it is no certificate."""
    with reading_certificate():
        return _microseconds(x509.load_der_x509_certificate(der).not_valid_after_utc)


def parse_domain(name: str) -> TrustDomain:
    """Return the trust domain whose SPIFFE ID is `name`: `spiffe://` and its name. Raises `EnvelopeError`."""
    return TrustDomain(name.removeprefix(_SCHEME) if name.startswith(_SCHEME) else "")


def _choose(svids: Sequence[proto.X509SVID], wanted: SpiffeId | None) -> proto.X509SVID:
    if not svids:
        raise SvidError("the Workload API gave no X.509-SVID")
    if wanted is None:
        return svids[0]
    for svid in svids:
        if svid.spiffe_id == str(wanted):
            return svid
    others = ", ".join(svid.spiffe_id[:256] for svid in svids[:4])
    raise SvidMissing(
        f"the Workload API gives this workload {others}, not {wanted}: correct its entry or the [agents] table"
    )


def _check_leaf(leaf: x509.Certificate, spiffe_id: SpiffeId) -> None:
    try:
        with reading_certificate():
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            authority = _is_authority(leaf)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise SvidError(f"the X.509-SVID of {spiffe_id} lacks a URI name or a key usage") from error
    if uris != [str(spiffe_id)]:
        raise SvidError(f"the X.509-SVID of {spiffe_id} does not have exactly this one URI name")
    if authority or usage.key_cert_sign or usage.crl_sign or not usage.digital_signature:
        raise SvidError(f"the X.509-SVID of {spiffe_id} is not a leaf that may sign")


def _is_authority(leaf: x509.Certificate) -> bool:
    try:
        return leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_chain(
    chain: Sequence[x509.Certificate], own: Sequence[x509.Certificate], spiffe_id: SpiffeId, now: int
) -> None:
    moment = datetime.fromtimestamp(now // SECOND, UTC)
    verifier = PolicyBuilder().store(Store(list(own))).time(moment).build_client_verifier()
    try:
        with reading_certificate():
            verifier.verify(chain[0], list(chain[1:]))
    except ValueError as error:
        # To say what is wrong, the verifier reads names that nothing before has read.
        raise SvidError(f"the X.509-SVID of {spiffe_id} cannot be parsed") from error
    except VerificationError as error:
        reason = printable(str(error).splitlines()[0])
        raise SvidError(f"the X.509-SVID of {spiffe_id} does not verify with its own bundle: {reason}") from error


def _bundles(
    svid: Mapping[str, bytes], own: TrustDomain, before: Mapping[TrustDomain, tuple[bytes, ...]]
) -> tuple[dict[TrustDomain, tuple[bytes, ...]], list[str]]:
    bundles: dict[TrustDomain, tuple[bytes, ...]] = {}
    refused: list[str] = []
    for name, data in sorted(svid.items()):
        try:
            trust_domain = parse_domain(name)
        except EnvelopeError:
            refused.append(f"X.509 bundle of {name[:256]!r}: not a trust domain")
            continue
        if trust_domain == own:
            # The SVID came with the bundle of its own trust domain; a second bundle is not accepted.
            refused.append(f"X.509 bundle of {trust_domain}: given as a federated bundle too")
            continue
        try:
            bundles[trust_domain] = _der(parse_certificates(data))
        except ValueError as error:
            refused.append(f"X.509 bundle of {trust_domain}: {error}")
            if trust_domain in before:
                bundles[trust_domain] = before[trust_domain]
    return bundles, refused


def _der(certificates: Iterable[x509.Certificate]) -> tuple[bytes, ...]:
    return tuple(certificate.public_bytes(serialization.Encoding.DER) for certificate in certificates)


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND


def parse_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates whose DER encodings `data` joins, 1 to 64; raise `ValueError` for any other data.

    Verifies nothing about the certificates.
    """
    certificates: list[x509.Certificate] = []
    position = 0
    while position < len(data):
        if len(certificates) == MAX_CERTIFICATES:
            raise ValueError(f"over {MAX_CERTIFICATES} certificates")
        end = _end_of_sequence(data, position)
        with reading_certificate():
            certificates.append(x509.load_der_x509_certificate(data[position:end]))
        position = end
    if not certificates:
        raise ValueError("no certificate")
    return tuple(certificates)


def _end_of_sequence(data: bytes, start: int) -> int:
    """Return the end of the DER SEQUENCE at `start` (X.690 section 8.1.3: definite lengths)."""
    if len(data) < start + 2 or data[start] != _SEQUENCE:
        raise ValueError("not a certificate")
    length, position = data[start + 1], start + 2
    if length >= _LONG_FORM:
        octets = length - _LONG_FORM
        if not 1 <= octets <= 3:
            raise ValueError("not a certificate's length")
        length, position = int.from_bytes(data[position : position + octets], "big"), position + octets
    if position + length > len(data):
        raise ValueError("a certificate is truncated")
    return position + length
