"""An issuer's key set (RFC 7517), parsed into the keys that can verify access tokens; any secret in it refuses the set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.envelopes.encoding.jws import decode_base64url
from sealbus.envelopes.encoding.strict_json import Json, parse_object

VerificationKey: TypeAlias = "ECKey | RSAKey | OKPKey"
"""A public key of joserfc."""

_SECRET_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
"""Members that only private and symmetric keys have (RFC 7518 section 6; `priv` of the AKP keys that follow it)."""
_CURVES: Final[Mapping[str, tuple[str, int, ec.EllipticCurve]]] = MappingProxyType(
    {
        "P-256": ("ES256", 32, ec.SECP256R1()),
        "P-384": ("ES384", 48, ec.SECP384R1()),
        "P-521": ("ES512", 66, ec.SECP521R1()),
    }
)
_RSA_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_LEAST_RSA_BITS: Final = 2_048
_EXPONENT_BITS: Final = 64
"""Real exponents have 17 bits; a long one only makes verification slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A usable key: its `kid` and the algorithms that it may verify."""

    kid: str | None
    algorithms: frozenset[str]
    key: VerificationKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer."""

    entries: tuple[_Entry, ...]

    @classmethod
    def parse(cls, document: bytes, limits: EdgeLimits) -> KeySet:
        """Return the keys of a JWK set; raise `ValueError` for anything else, and if it is too long or holds a secret.

        A set that holds a private or symmetric key is refused as a whole: its issuer has lost control of its keys, and using
        the rest would hide that. Keys that cannot verify accepted signatures are left out, as RFC 7517 section 5 says: other
        types and curves, other uses, RSA below 2,048 bits or with an even modulus, points off their curve or with a
        coordinate that is not below the field's prime.
        """
        listed = _parsed(document, limits).get("keys")
        if type(listed) is not list:
            raise ValueError("not a list of keys")
        if len(listed) > limits.keys:
            raise ValueError("too many keys")
        entries = []
        for jwk in listed:
            if type(jwk) is not dict:
                raise ValueError("a key is not an object")
            if jwk.get("kty") == "oct" or not _SECRET_MEMBERS.isdisjoint(jwk):
                raise ValueError("it holds a private or symmetric key")
            entry = _entry(jwk, limits)
            if entry is not None:
                entries.append(entry)
        return cls(tuple(entries))

    def find_key(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key called `kid` that may verify `algorithm`; without `kid`, the only one of all that may.

        None also if several would fit: trying them in turn is how the wrong one gets accepted.
        """
        fit = [
            entry.key for entry in self.entries if algorithm in entry.algorithms and (kid is None or entry.kid == kid)
        ]
        return fit[0] if len(fit) == 1 else None


def embedded_key(jwk: Json, algorithm: str, limits: EdgeLimits) -> VerificationKey:
    """Return the public key in `jwk`, which a proof shows of itself (RFC 9449 section 4.2); raise `ValueError`.

    It is a key that `KeySet.parse` would not leave out, for `algorithm`, and no private key.
    """
    if type(jwk) is not dict or not _SECRET_MEMBERS.isdisjoint(jwk):
        raise ValueError("not a public key")
    entry = _entry(jwk, limits)
    if entry is None or algorithm not in entry.algorithms:
        raise ValueError("not a key for the algorithm")
    return entry.key


def _parsed(document: bytes, limits: EdgeLimits) -> dict[str, Json]:
    try:
        return parse_object(document, depth=limits.document_nesting)
    except ValueError:
        # The parser's own message could quote the document.
        raise ValueError("not a JSON object") from None


def _entry(jwk: dict[str, Json], limits: EdgeLimits) -> _Entry | None:
    """Return the usable key in `jwk`, or None."""
    kid, use, operations, algorithm = (jwk.get(name) for name in ("kid", "use", "key_ops", "alg"))
    if not (kid is None or type(kid) is str) or not (use is None or use == "sig"):
        return None
    if operations is not None and not (type(operations) is list and "verify" in operations):
        return None
    try:
        key, fitting = _key(jwk, limits)
    except (KeyError, ValueError, JoseError):
        return None
    if algorithm is not None:
        # The name before RFC 9864, which many issuers still publish.
        named = "Ed25519" if algorithm == "EdDSA" else algorithm
        fitting = frozenset(name for name in fitting if name == named)
    return _Entry(kid=kid, algorithms=fitting, key=key) if fitting else None


def _key(jwk: dict[str, Json], limits: EdgeLimits) -> tuple[VerificationKey, frozenset[str]]:
    """Return the public key and all algorithms that its type allows; raise if it is not a key.

    Only the members that make the key are passed on, so that no certificate or URL in the entry is ever looked at.
    """
    match jwk.get("kty"):
        case "EC":
            name = _text(jwk["crv"])
            algorithm, octets, curve = _CURVES[name]
            x, y = _octets(jwk["x"]), _octets(jwk["y"])
            if not len(x) == len(y) == octets:
                raise ValueError("coordinates")
            # joserfc makes the key when it is first used, and would take a coordinate modulo the field's prime: this raises
            # for that, and for a point off the curve.
            ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
            key = ECKey.import_key({"kty": "EC", "crv": name, "x": _text(jwk["x"]), "y": _text(jwk["y"])})
            return key, frozenset({algorithm})
        case "RSA":
            modulus, exponent = (int.from_bytes(_octets(jwk[name])) for name in ("n", "e"))
            if not _LEAST_RSA_BITS <= modulus.bit_length() <= limits.rsa_bits:
                raise ValueError("length of the modulus")
            if modulus % 2 == 0:
                raise ValueError("an even modulus")
            if exponent.bit_length() > _EXPONENT_BITS:
                raise ValueError("exponent")
            rsa = RSAKey.import_key({"kty": "RSA", "n": _text(jwk["n"]), "e": _text(jwk["e"])})
            rsa.get_op_key("verify")
            return rsa, _RSA_ALGORITHMS
        case "OKP" if jwk.get("crv") == "Ed25519":
            # Must be canonically encoded; joserfc checks the length.
            _octets(jwk["x"])
            okp = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _text(jwk["x"])})
            okp.get_op_key("verify")
            return okp, frozenset({"Ed25519"})
        case _:
            raise ValueError("kty")


def _text(value: Json) -> str:
    if type(value) is not str:
        raise ValueError("not a text")
    return value


def _octets(value: Json) -> bytes:
    return decode_base64url(_text(value).encode("ascii"))
