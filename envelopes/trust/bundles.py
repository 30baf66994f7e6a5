"""The trust of a verifier: a JWT bundle for each trust domain, and the operator's revocations (SPEC.md section 5).

Bundles come from the Workload API, never from a message. After a refused bundle, the previous bundle stays in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealbus.envelopes.encoding.jws import VerificationKey, decode_base64url
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import BundleRefused
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_USE: Final = "jwt-svid"
_CURVES: Final[Mapping[str, ec.EllipticCurve]] = MappingProxyType(
    {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
)
_RSA_BITS: Final = range(2048, 4097)
_RSA_EXPONENT: Final = 65537
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""RFC 7518 sections 6.2.2, 6.3.2 and 6.4: members that only private or shared keys have."""


@dataclass(frozen=True, slots=True, eq=False)
class BundleKey:
    """A loaded key that may sign JWT-SVIDs."""

    kid: str
    key: VerificationKey = field(repr=False)
    digest: bytes = field(init=False, repr=False)
    """H of the key's SubjectPublicKeyInfo, which is the same in every bundle."""

    def __post_init__(self) -> None:
        info = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        object.__setattr__(self, "digest", sha256(info).digest())

    def is_same(self, other: BundleKey) -> bool:
        """Return whether `other` is this key; a new bundle holds new objects for the same keys."""
        return self is other or self.digest == other.digest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JwtBundle:
    """The JWT bundle of one trust domain, its keys loaded once. `parse` alone makes it."""

    trust_domain: TrustDomain
    jwks: bytes = field(repr=False)
    """The JWK set exactly as received, for the archive."""
    keys: Mapping[str, BundleKey]
    """The keys that JWT-SVIDs are verified with, by `kid`. If empty, every JWT-SVID of this trust domain is invalid."""

    @classmethod
    def parse(cls, trust_domain: TrustDomain, jwks: bytes) -> JwtBundle:
        """Parse the JWK set `jwks` as the bundle of `trust_domain`.

        Raises `BundleRefused` for a set that is not strict JSON, is over 65,536 bytes or 32 keys, repeats a `kid`, or has a
        malformed key, a key without `kid`, or a private or shared key. A key with a `use` other than `jwt-svid` is left
        out. So is a well-formed key of a type that JWT-SVIDs cannot have (RFC 7517 section 5). Other members of a key, such
        as `alg` and `key_ops`, are ignored.
        """
        if len(jwks) > DEFAULT_LIMITS.bundle_bytes:
            raise BundleRefused(f"JWT bundle of {trust_domain}: over {DEFAULT_LIMITS.bundle_bytes} bytes")
        try:
            keys = _parse_keys(jwks)
        except ValueError as error:
            raise BundleRefused(f"JWT bundle of {trust_domain}: {error}") from error
        return cls(trust_domain=trust_domain, jwks=jwks, keys=keys)


def _parse_keys(jwks: bytes) -> Mapping[str, BundleKey]:
    listed = parse_object(jwks, depth=DEFAULT_LIMITS.jwt_nesting).get("keys")
    if type(listed) is not list:
        raise ValueError("no array of keys")
    if len(listed) > DEFAULT_LIMITS.bundle_keys:
        raise ValueError(f"over {DEFAULT_LIMITS.bundle_keys} keys")
    seen: set[str] = set()
    keys: dict[str, BundleKey] = {}
    for jwk in listed:
        if type(jwk) is not dict:
            raise ValueError("a key is not an object")
        if not _PRIVATE_MEMBERS.isdisjoint(jwk):
            raise ValueError("a key is private")
        used = "use" not in jwk or jwk["use"] == _USE
        kid = jwk.get("kid")
        if type(kid) is not str:
            if used:
                raise ValueError("a key without kid")
            continue
        if kid in seen:
            # This counts keys of every use: a choice between two keys would sooner or later be wrong.
            raise ValueError("a kid is repeated")
        seen.add(kid)
        loaded = _load(jwk) if used else None
        if loaded is not None:
            keys[kid] = BundleKey(kid, loaded)
    return MappingProxyType(keys)


def _load(jwk: Mapping[str, Json]) -> VerificationKey | None:
    """Load the public key `jwk`; return None for a type that JWT-SVIDs cannot have; raise `ValueError` if malformed."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if kty == "RSA":
        n, e = _integer(jwk, "n"), _integer(jwk, "e")
        if n.bit_length() not in _RSA_BITS or e != _RSA_EXPONENT:
            return None
        if n % 2 == 0:
            raise ValueError("an even modulus")
        return rsa.RSAPublicNumbers(e, n).public_key()
    if kty == "EC" and type(crv) is str and crv in _CURVES:
        curve = _CURVES[crv]
        octets = (curve.key_size + 7) // 8
        x, y = _octets(jwk, "x"), _octets(jwk, "y")
        if len(x) != octets:
            raise ValueError("a coordinate of the wrong length")
        # Raises ValueError for a `y` of another length, for a point that is not on the curve, and for a coordinate that is
        # not below the field's prime.
        return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
    return None


def _octets(jwk: Mapping[str, Json], member: str) -> bytes:
    text = jwk.get(member)
    if type(text) is not str:
        raise ValueError(f"a key without {member}")
    return decode_base64url(text.encode("utf-8"))


def _integer(jwk: Mapping[str, Json], member: str) -> int:
    """Return a Base64urlUInt: no leading zero octet (RFC 7518 section 2)."""
    octets = _octets(jwk, member)
    if not octets or octets[0] == 0:
        raise ValueError(f"{member} is not in its shortest form")
    return int.from_bytes(octets, "big")


class TrustBundles(Mapping[TrustDomain, JwtBundle]):
    """A frozen set of bundles, one for each trust domain. Replace it as a whole, never key by key."""

    __slots__ = ("_bundles", "_keys")

    def __init__(self, bundles: Iterable[JwtBundle] = ()) -> None:
        """Raise `BundleRefused` if two are of one trust domain: bundles are never merged (SPIFFE_Federation.md)."""
        listed = tuple(bundles)
        self._bundles: Final = MappingProxyType({bundle.trust_domain: bundle for bundle in listed})
        if len(self._bundles) != len(listed):
            raise BundleRefused("two JWT bundles of one trust domain")
        # By plain text, whose hash Python caches: every message needs three lookups.
        self._keys: Final = {bundle.trust_domain.name: bundle.keys for bundle in listed}

    def __getitem__(self, trust_domain: TrustDomain) -> JwtBundle:
        return self._bundles[trust_domain]

    def __iter__(self) -> Iterator[TrustDomain]:
        return iter(self._bundles)

    def __len__(self) -> int:
        return len(self._bundles)

    def key(self, trust_domain: TrustDomain, kid: str) -> BundleKey | None:
        """Return the key `kid` of `trust_domain` only, or None if its bundle has none.

        Raises `KeyError` if there is no bundle of that trust domain.
        """
        return self._keys[trust_domain.name].get(kid)

    def __repr__(self) -> str:
        return f"TrustBundles({', '.join(sorted(domain.name for domain in self))})"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trust:
    """The bundles and revocations that decide which credentials are valid at one moment.

    `revoked_before` is set by the operator: credentials of a SPIFFE ID that were issued before that time, in microseconds
    since the Unix epoch, are refused. An archive is read with the bundles of its time and without revocations.
    """

    bundles: TrustBundles
    revoked_before: Mapping[SpiffeId, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "revoked_before", MappingProxyType(dict(self.revoked_before)))
