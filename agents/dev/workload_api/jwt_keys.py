"""JWT-SVIDs as SPIRE mints them, the JWKS to check them with (SPIFFE JWT-SVID.md), and the generations of a key."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_COORDINATE = 32
"""Bytes of a P-256 coordinate, and of each half of a signature."""

K = TypeVar("K")


class TokenError(Exception):
    """A token is not a valid JWT-SVID of this authority; the text gives the reason and quotes no part of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtKey:
    """One P-256 key that signs JWT-SVIDs; `kid` names it in tokens and in the bundle."""

    kid: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """One JWT-SVID in compact form; times in microseconds."""

    token: str = field(repr=False)
    issued: int
    expires: int


def make_jwt_key() -> JwtKey:
    """Make a signing key with a random `kid`."""
    return JwtKey(kid=secrets.token_urlsafe(24), key=ec.generate_private_key(ec.SECP256R1()))


def issue_token(signer: JwtKey, spiffe_id: SpiffeId, audience: Sequence[str], *, now: int, ttl: int) -> IssuedToken:
    """Mint an ES256 JWT-SVID for `ttl` seconds from `now` (microseconds), claims aud, exp, iat and sub only."""
    issued = now // SECOND
    head = _part({"alg": "ES256", "kid": signer.kid, "typ": "JWT"})
    claims = _part({"aud": list(audience), "exp": issued + ttl, "iat": issued, "sub": str(spiffe_id)})
    signed = f"{head}.{claims}"
    r, s = decode_dss_signature(signer.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    signature = _base64url(r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big"))
    return IssuedToken(token=f"{signed}.{signature}", issued=issued * SECOND, expires=(issued + ttl) * SECOND)


def jwks(keys: Iterable[JwtKey]) -> bytes:
    """Return a JWK set without `use`, as SPIRE's Workload API does (facts of SPIRE 1.13 to 1.15)."""
    return json.dumps({"keys": [_jwk(key) for key in keys]}, separators=(",", ":")).encode()


def check_token(
    token: str, audience: str, keys: Mapping[str, tuple[TrustDomain, JwtKey]], *, now: int
) -> dict[str, object]:
    """Return the claims of a JWT-SVID for `audience` that is valid at `now` (microseconds); raise `TokenError`.

    `keys` holds, by `kid`, each trusted key with the one trust domain that it may vouch for. Only for `ValidateJWTSVID`:
    messages are verified by `sealbus.envelopes.trust.credential`, which is stricter.
    """
    try:
        signed, _, signature = token.rpartition(".")
        header, claims = (json.loads(_unpart(part)) for part in signed.split("."))
        trust_domain, signer = keys[header["kid"]]
        raw = _unpart(signature)
        r, s = int.from_bytes(raw[:_COORDINATE], "big"), int.from_bytes(raw[_COORDINATE:], "big")
        signer.key.public_key().verify(encode_dss_signature(r, s), signed.encode(), ec.ECDSA(hashes.SHA256()))
        genuine = (
            header["alg"] == "ES256"
            and audience in claims["aud"]
            and now < claims["exp"] * SECOND
            and claims["sub"].startswith(f"spiffe://{trust_domain}/")
        )
    except (ValueError, LookupError, TypeError, AttributeError, InvalidSignature) as error:
        raise TokenError("not a JWT-SVID of a trusted domain") from error
    if not genuine:
        raise TokenError("expired, for another audience, or of a foreign subject")
    return dict(claims)


def _jwk(key: JwtKey) -> dict[str, str]:
    numbers = key.key.public_key().public_numbers()
    return {
        "kty": "EC",
        "kid": key.kid,
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(_COORDINATE, "big")),
        "y": _base64url(numbers.y.to_bytes(_COORDINATE, "big")),
    }


def _part(value: dict[str, object]) -> str:
    return _base64url(json.dumps(value, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unpart(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


@dataclass(slots=True)
class KeyRing(Generic[K]):
    """The generations of a key, rotated in three steps, so that verifiers know each key before it is used.

    `prepare` publishes the next key, `activate` signs with it while the former key stays trusted, `prune` ends that trust.
    SPIRE's server rotates in the same way.
    """

    current: K
    """The key that signs."""
    _: KW_ONLY
    prepared: K | None = None
    """The key that signs next; it is trusted already."""
    old: tuple[K, ...] = ()
    """The former keys that are still trusted, newest first."""

    @property
    def trusted(self) -> tuple[K, ...]:
        """Every key in the bundle: the current key, the prepared key if any, the old keys."""
        prepared = () if self.prepared is None else (self.prepared,)
        return (self.current, *prepared, *self.old)

    def prepare(self, key: K) -> None:
        """Trust `key`, which signs next; raise `ValueError` if another key is prepared already."""
        if self.prepared is not None:
            raise ValueError("a key is prepared already: activate it first")
        self.prepared = key

    def activate(self) -> None:
        """Sign with the prepared key from now on; raise `ValueError` if no key is prepared."""
        if self.prepared is None:
            raise ValueError("no key is prepared")
        self.old = (self.current, *self.old)
        self.current, self.prepared = self.prepared, None

    def prune(self) -> None:
        """End the trust in the old keys."""
        self.old = ()
