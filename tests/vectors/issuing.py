"""Test keys and the JWT-SVIDs that vouch for them, the same in every run.

TEST KEYS. Every private key here follows from a public label or constant, and is worth nothing. Signatures are made
with nonces and salts that follow from key and message (RFC 6979, and a given salt), so that the vectors come out the
same in every run.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from sealbus.envelopes.trust.keys import PublicKey, SigningKey
from sealbus.envelopes.trust.proof import Credential

__all__ = [
    "BROKER",
    "BUNDLES",
    "EDGE",
    "HOUR",
    "INVENTORY",
    "MINUTE",
    "NOW",
    "PLANNER",
    "PRICING",
    "SECOND",
    "Json",
    "Party",
    "base64url",
    "party",
    "private_key",
    "token",
]

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
NOW = 1_764_000_000 * SECOND

EDGE = "spiffe://example.org/edge"
PLANNER = "spiffe://example.org/agent/planner"
INVENTORY = "spiffe://example.org/agent/inventory"
PRICING = "spiffe://example.org/agent/pricing"
BROKER = "spiffe://partner.example/broker"

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_RSA_P = int(
    "f7e959049161907bbdbad68e32da1369858d796704823c1cdafcc8e7c1bfe4d0"
    "12b96c5a9fdf29825f500878379ea964286ad0f5922bb97a213a0720adda3b0a"
    "08ab44a148518628e31a80d9e7a47e0783db311ec26832ddc2acc3d55629fef8"
    "f2d4a7a8284755bbbff5837fd4d633ef1b86d5efce991f37ba9115d11b96a331",
    16,
)
_RSA_Q = int(
    "ecef71779d439229ff147e7dc4608d6c4c7267808d1d7cd841d53ff88a0b5080"
    "e7a6ec5c2176cfab675f091bf0dc49171d6b1bcea6fba6e1864e45f6ce798ebe"
    "c3b8d6889d778db4bc7b169a3846d2c390ba087fa81b4c37dfb09a36ea7fa6c0"
    "058e8548bf42fdf702790a3dc00bd5be9642c5b5ada5eea4ca02b2ddd3de2431",
    16,
)
_CURVES: dict[str, tuple[str, ec.EllipticCurve, HashAlgorithm]] = {
    "ES256": ("P-256", ec.SECP256R1(), SHA256()),
    "ES384": ("P-384", ec.SECP384R1(), SHA384()),
    "ES512": ("P-521", ec.SECP521R1(), SHA512()),
}


def base64url(data: bytes) -> str:
    """Return the unpadded base64url of `data`."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def private_key(label: str, alg: str = "ES256") -> ec.EllipticCurvePrivateKey:
    """Return the test key of `label`."""
    return ec.derive_private_key(int.from_bytes(sha256(label.encode()).digest()[:30], "big"), _CURVES[alg][1])


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    d = pow(65537, -1, (_RSA_P - 1) * (_RSA_Q - 1))
    public = rsa.RSAPublicNumbers(65537, _RSA_P * _RSA_Q)
    dmp1, dmq1 = d % (_RSA_P - 1), d % (_RSA_Q - 1)
    return rsa.RSAPrivateNumbers(_RSA_P, _RSA_Q, d, dmp1, dmq1, pow(_RSA_Q, -1, _RSA_P), public).private_key()


class SteadyKey(SigningKey):
    """A signing key whose signatures follow from key and message (RFC 6979)."""

    __slots__ = ("_steady",)

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        super().__init__(private)
        self._steady = private

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._steady.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big")


@dataclass(frozen=True, kw_only=True)
class Party:
    """Who sends: a SPIFFE ID, its key, and the credential that vouches for both."""

    iss: str
    key: SteadyKey = field(repr=False)
    credential: Credential


def issuer_key(kid: str) -> tuple[str, str]:
    """Return algorithm and label of the issuer's key `kid`."""
    return {"es384": "ES384", "es512": "ES512"}.get(kid, "ES256"), f"issuer {kid}"


def _jwk(kid: str, **more: Json) -> Json:
    if kid == "rsa":
        return {"kty": "RSA", "kid": kid, "n": base64url((_RSA_P * _RSA_Q).to_bytes(256, "big")), "e": "AQAB", **more}
    alg, label = issuer_key(kid)
    curve = _CURVES[alg]
    numbers, octets = private_key(label, alg).public_key().public_numbers(), (curve[1].key_size + 7) // 8
    x, y = (base64url(number.to_bytes(octets, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "kid": kid, "crv": curve[0], "x": x, "y": y, **more}


BUNDLES: dict[str, dict[str, str]] = {
    "default": {
        "example.org": json.dumps(
            {
                "keys": [
                    *(_jwk(kid) for kid in ("es256", "es384", "es512", "rsa")),
                    _jwk("used", use="jwt-svid"),
                    _jwk("wit", use="wit-svid"),
                ]
            }
        ),
        "partner.example": json.dumps({"keys": [_jwk("partner")]}),
    },
    "without partner": {"example.org": json.dumps({"keys": [_jwk("es256")]})},
    "rotated": {"example.org": json.dumps({"keys": [_jwk("es512")]})},
}
"""JWT bundles by the name that cases refer to; each is trust domain to JWK set."""


def signed_by(kid: str, alg: str, signed: bytes) -> bytes:
    """Return the JWS signature by the issuer's key `kid` over `signed`."""
    if kid != "rsa":
        size, label = issuer_key(kid)
        digest, octets = _CURVES[size][2], (_CURVES[size][1].key_size + 7) // 8
        key = private_key(label, size)
        r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(digest, deterministic_signing=True)))
        return r.to_bytes(octets, "big") + s.to_bytes(octets, "big")
    digest = {"256": SHA256(), "384": SHA384(), "512": SHA512()}[alg[2:]]
    if alg.startswith("RS"):
        return _rsa_key().sign(signed, padding.PKCS1v15(), digest)
    return _pss(signed, bytes(range(digest.digest_size)))


def _pss(signed: bytes, salt: bytes) -> bytes:
    """Return the RSASSA-PSS signature with SHA-256 and exactly this salt (RFC 8017 sections 8.1.1 and 9.1.1)."""
    digest = sha256(bytes(8) + sha256(signed).digest() + salt).digest()
    block = bytes(256 - len(salt) - 32 - 2) + b"\x01" + salt
    counters = range(-(-len(block) // 32))
    mask = b"".join(sha256(digest + counter.to_bytes(4, "big")).digest() for counter in counters)
    masked = bytearray(a ^ b for a, b in zip(block, mask, strict=False))
    masked[0] &= 0x7F
    encoded = int.from_bytes(bytes(masked) + digest + b"\xbc", "big")
    numbers = _rsa_key().private_numbers()
    return pow(encoded, numbers.d, numbers.public_numbers.n).to_bytes(256, "big")


def token(
    sub: str,
    key: PublicKey,
    *,
    kid: str = "es256",
    alg: str | None = None,
    header: Mapping[str, Json] | None = None,
    claims: Mapping[str, Json] | None = None,
    parts: Mapping[int, bytes] | None = None,
    salt: bytes | None = None,
) -> bytes:
    """Return a JWT-SVID for `key`, from a minute before `NOW` to an hour after it.

    `header` and `claims` override single entries, None leaves one out; `parts` replaces the JSON of header (0) or
    claims (1), or the spelling of any part (10, 11, 12), by these bytes.
    """
    name = alg if alg is not None else "RS256" if kid == "rsa" else issuer_key(kid)[0]
    jose: dict[str, Json] = {"alg": name, "kid": kid, "typ": "JWT"}
    body: dict[str, Json] = {
        "sub": sub,
        "aud": key.thumbprint,
        "iat": (NOW - MINUTE) // SECOND,
        "exp": (NOW + HOUR) // SECOND,
    }
    given = dict(parts or {})
    encoded = [
        given.get(number, json.dumps({k: v for k, v in (entries | dict(more or {})).items() if v is not None}).encode())
        for number, (entries, more) in enumerate(((jose, header), (body, claims)))
    ]
    spelled = [given.get(10 + number, base64url(part).encode()) for number, part in enumerate(encoded)]
    signed = b".".join(spelled)
    signature = _pss(signed, salt) if salt is not None else signed_by(kid, name, signed)
    return signed + b"." + given.get(12, base64url(signature).encode())


@cache
def party(iss: str, label: str = "") -> Party:
    """Return who sends as `iss`, with the key of its ID, or of `label`."""
    key = SteadyKey(private_key(label or iss))
    kid = "partner" if iss == BROKER else "es256"
    return Party(iss=iss, key=key, credential=Credential(1, token(iss, key.public, kid=kid)))
