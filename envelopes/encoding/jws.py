"""JWS compact form and the algorithms that JWT-SVIDs may use (RFC 7515, RFC 7518; SPEC.md section 5).

Every function refuses with `ValueError`; each caller turns it into the code of its own step. Bundles, times and SPIFFE IDs
are checked by callers.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

VerificationKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class _Algorithm:
    """One algorithm: its hash, and the curve of its keys (ECDSA) or the padding of its signatures (RSA)."""

    digest: HashAlgorithm
    curve: str = ""
    padding: padding.AsymmetricPadding | None = None


def _es(digest: HashAlgorithm, curve: str) -> _Algorithm:
    return _Algorithm(digest, curve=curve)


def _rs(digest: HashAlgorithm) -> _Algorithm:
    return _Algorithm(digest, padding=padding.PKCS1v15())


def _ps(digest: HashAlgorithm) -> _Algorithm:
    # The salt must be as long as the hash (RFC 7518 section 3.5), even if the signature claims another length.
    return _Algorithm(digest, padding=padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size))


ALGORITHMS: Final[Mapping[str, _Algorithm]] = MappingProxyType(
    {
        "ES256": _es(SHA256(), "secp256r1"),
        "ES384": _es(SHA384(), "secp384r1"),
        "ES512": _es(SHA512(), "secp521r1"),
        "RS256": _rs(SHA256()),
        "RS384": _rs(SHA384()),
        "RS512": _rs(SHA512()),
        "PS256": _ps(SHA256()),
        "PS384": _ps(SHA384()),
        "PS512": _ps(SHA512()),
    }
)
"""The nine algorithms of JWT-SVID.md section 2.1; neither `none` nor a MAC can be looked up here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactJws:
    """The three decoded parts of a token, and the bytes that its signature covers. Nothing is verified."""

    header: bytes
    payload: bytes
    signature: bytes
    signed: bytes


def decode_base64url(text: bytes) -> bytes:
    """Decode `text`; raise `ValueError` unless it is canonical base64url without padding (RFC 7515)."""
    decoded = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    # Python's decoder drops invalid characters and ignores unused bits. Encoding again detects both.
    if urlsafe_b64encode(decoded).rstrip(b"=") != text:
        raise ValueError("base64url is not canonical")
    return decoded


def split_compact(token: bytes) -> CompactJws:
    """Return the parts of a JWS in compact form; raise `ValueError` unless there are three, each canonical."""
    header, payload, signature = token.split(b".")
    return CompactJws(
        header=decode_base64url(header),
        payload=decode_base64url(payload),
        signature=decode_base64url(signature),
        signed=token[: len(header) + 1 + len(payload)],
    )


def check_fit(alg: str, key: VerificationKey) -> None:
    """Raise `ValueError` unless `alg`, one of `ALGORITHMS`, fits the type of `key`."""
    algorithm = ALGORITHMS[alg]
    fits = key.curve.name == algorithm.curve if isinstance(key, ec.EllipticCurvePublicKey) else not algorithm.curve
    if not fits:
        raise ValueError("the algorithm does not fit the key")


def verify_jws(alg: str, key: VerificationKey, signed: bytes, signature: bytes) -> None:
    """Raise `ValueError` unless `signature` is by `key` over `signed`, under an `alg` that fits (`check_fit`)."""
    algorithm = ALGORITHMS[alg]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(_der(signature, (key.curve.key_size + 7) // 8), signed, ec.ECDSA(algorithm.digest))
        else:
            # All algorithms that fit an RSA key have a padding.
            key.verify(signature, signed, cast("padding.AsymmetricPadding", algorithm.padding), algorithm.digest)
    except InvalidSignature as error:
        raise ValueError("signature") from error


def _der(signature: bytes, octets: int) -> bytes:
    """Return the DER form of `r || s`, each exactly `octets` long (RFC 7518 section 3.4)."""
    if len(signature) != 2 * octets:
        raise ValueError("length of the signature")
    return encode_dss_signature(int.from_bytes(signature[:octets], "big"), int.from_bytes(signature[octets:], "big"))
