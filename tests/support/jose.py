"""Signing with each of the nine algorithms that JWT-SVIDs may have; the tests' own code, beside the reader's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from support.envelopes import Json, base64url

__all__ = [
    "ALGORITHMS",
    "coordinates_over_the_prime",
    "hash_of",
    "jwk_for",
    "key_for",
    "sign_as",
    "signature_of",
    "small_point",
]

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: dict[str, tuple[str, ec.EllipticCurve]] = {
    "ES256": ("P-256", ec.SECP256R1()),
    "ES384": ("P-384", ec.SECP384R1()),
    "ES512": ("P-521", ec.SECP521R1()),
}


def hash_of(alg: str) -> HashAlgorithm:
    """Return the hash of `alg`."""
    return {"256": SHA256(), "384": SHA384(), "512": SHA512()}[alg[2:]]


@cache
def _rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_for(alg: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    """Return a private key for `alg`; all RSA algorithms share one, made once a process."""
    return ec.derive_private_key(987_654_321, _CURVES[alg][1]) if alg in _CURVES else _rsa_key()


def jwk_for(alg: str, kid: str = "key-1") -> dict[str, Json]:
    """Return the public JWK of `key_for(alg)`."""
    public = key_for(alg).public_key()
    if isinstance(public, rsa.RSAPublicKey):
        return {"kty": "RSA", "kid": kid, "n": base64url(public.public_numbers().n.to_bytes(256, "big")), "e": "AQAB"}
    numbers, octets = public.public_numbers(), (public.curve.key_size + 7) // 8
    x, y = (base64url(number.to_bytes(octets, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": _CURVES[alg][0], "kid": kid, "x": x, "y": y}


_SMALL_POINTS: dict[str, tuple[int, int, int]] = {
    "P-256": (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        5,
    ),
    "P-384": (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        2,
    ),
    "P-521": (
        2**521 - 1,
        0x51953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        2,
    ),
}
"""Of each curve the field's prime, the constant b, and the x of a point that fits its bytes even with the prime added."""


def small_point(curve: str) -> tuple[int, int, int]:
    """Return x and y of a point of `curve`, and its field's prime: there is room for that to be added to x."""
    prime, constant, x = _SMALL_POINTS[curve]
    y = pow(x**3 - 3 * x + constant, (prime + 1) // 4, prime)
    known = dict(_CURVES.values())[curve]
    ec.EllipticCurvePublicNumbers(x, y, known).public_key()
    return x, y, prime


def coordinates_over_the_prime() -> dict[str, Json]:
    """Return x and y of a JWK on P-256 whose x is that of a point plus the field's prime: another spelling of the point."""
    x, y, prime = small_point("P-256")
    return {"x": base64url((x + prime).to_bytes(32, "big")), "y": base64url(y.to_bytes(32, "big"))}


def signature_of(alg: str, data: bytes, *, salt: int | None = None) -> bytes:
    """Return the signature by `key_for(alg)` over `data`; `salt` overrides the length of a PS salt."""
    key, digest = key_for(alg), hash_of(alg)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        octets = (key.curve.key_size + 7) // 8
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
        return r.to_bytes(octets, "big") + s.to_bytes(octets, "big")
    if alg.startswith("RS"):
        return key.sign(data, padding.PKCS1v15(), digest)
    length = digest.digest_size if salt is None else salt
    return key.sign(data, padding.PSS(mgf=padding.MGF1(digest), salt_length=length), digest)


def sign_as(alg: str, claims: Mapping[str, Json], *, says: str | None = None, salt: int | None = None) -> bytes:
    """Return a JWT by `key_for(alg)` under the kid `key-1`; `says` overrides what its header calls the algorithm."""
    header = json.dumps({"alg": says if says is not None else alg, "kid": "key-1"}).encode()
    signed = f"{base64url(header)}.{base64url(json.dumps(dict(claims)).encode())}".encode()
    return signed + b"." + base64url(signature_of(alg, signed, salt=salt)).encode()
