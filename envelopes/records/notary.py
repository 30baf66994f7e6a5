"""The records that only the notary may make: trust bundles, policy bundles and checkpoints as they came into force.

Readers check that the sender is the notary: they compare the record message's `iss` with their settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.fields import DIGEST_BYTES, RecordMap, check_bytes, check_text, check_uint
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_JWT_BUNDLE_BYTES = 65_536
_CERTIFICATES = 32
_CERTIFICATE_BYTES = 8_192
_NOTE_BYTES = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRecord:
    """The bundles of one trust domain that became current at `current`, in microseconds by the notary's clock.

    `jwt` is the JWK set exactly as the Workload API gave it. `x509` are the DER certificates in the order of the Workload
    API, empty if there is no X.509 bundle. Neither is parsed here.
    """

    kind: ClassVar[str] = "bundle"

    trust_domain: TrustDomain
    current: int
    jwt: bytes
    x509: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        check_uint("current", self.current)
        check_bytes("jwt", self.jwt, most=_JWT_BUNDLE_BYTES)
        if len(self.x509) > _CERTIFICATES:
            raise SealError(f"x509 has over {_CERTIFICATES} certificates")
        for certificate in self.x509:
            check_bytes("x509", certificate, most=_CERTIFICATE_BYTES)

    def encode(self) -> bytes:
        """Return the encoded map."""
        record: dict[str, Value] = {
            "v": 1,
            "k": self.kind,
            "dom": str(self.trust_domain),
            "cur": self.current,
            "jwt": self.jwt,
        }
        if self.x509:
            record["x5c"] = list(self.x509)
        return encode(record)

    @classmethod
    def from_keys(cls, keys: RecordMap) -> BundleRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(
            trust_domain=TrustDomain(keys.text("dom")),
            current=keys.uint("cur"),
            jwt=keys.octets("jwt"),
            x509=keys.some_octets("x5c"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRecord:
    """A policy bundle that came into force: its revision, the hash of its bytes, their number, and where it is kept."""

    kind: ClassVar[str] = "policy"

    revision: str
    digest: bytes
    size: int
    location: str

    def __post_init__(self) -> None:
        check_text("revision", self.revision)
        check_bytes("digest", self.digest, least=DIGEST_BYTES, most=DIGEST_BYTES)
        check_uint("size", self.size, least=1)
        check_text("location", self.location)

    def encode(self) -> bytes:
        """Return the encoded map."""
        return encode(
            {
                "v": 1,
                "k": self.kind,
                "rev": self.revision,
                "sha": self.digest,
                "siz": self.size,
                "loc": self.location,
            }
        )

    @classmethod
    def from_keys(cls, keys: RecordMap) -> PolicyRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(
            revision=keys.text("rev"), digest=keys.octets("sha"), size=keys.uint("siz"), location=keys.text("loc")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint of this or another log: the C2SP signed note exactly as published. It is not verified here."""

    kind: ClassVar[str] = "checkpoint"

    note: bytes

    def __post_init__(self) -> None:
        check_bytes("note", self.note, most=_NOTE_BYTES)

    def encode(self) -> bytes:
        """Return the encoded map."""
        return encode({"v": 1, "k": self.kind, "not": self.note})

    @classmethod
    def from_keys(cls, keys: RecordMap) -> CheckpointRecord:
        """Return the record in a decoded map; raise `EnvelopeError` or, for ranges, `SealError`."""
        return cls(note=keys.octets("not"))
