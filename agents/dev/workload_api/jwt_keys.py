"""JWT-SVIDs as SPIRE mints them, the JWKS to check them with (SPIFFE JWT-SVID.md), and the generations of a key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Generic, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_ALGORITHM = "ES256"

K = TypeVar("K")


class TokenError(Exception):
    """A token is not a valid JWT-SVID of this authority; the text gives the reason and quotes no part of the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtKey:
    """One P-256 key that signs JWT-SVIDs; `kid` names it in tokens and in the bundle."""

    kid: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    jwk: ECKey = field(init=False, repr=False, compare=False)
    """The key as `joserfc` takes it."""
    public: Mapping[str, object] = field(init=False, repr=False, compare=False)
    """The public half, as it stands in the bundle."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "jwk", ECKey(self.key, None, {"kid": self.kid}))
        object.__setattr__(self, "public", self.jwk.as_dict(private=False))


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
    claims = {"aud": list(audience), "exp": issued + ttl, "iat": issued, "sub": str(spiffe_id)}
    token = jwt.encode({"alg": _ALGORITHM, "kid": signer.kid}, claims, signer.jwk, algorithms=[_ALGORITHM])
    return IssuedToken(token=token, issued=issued * SECOND, expires=(issued + ttl) * SECOND)


def jwks(keys: Iterable[JwtKey]) -> bytes:
    """Return a JWK set without `use`, as SPIRE's Workload API does (facts of SPIRE 1.13 to 1.15)."""
    return json.dumps({"keys": [key.public for key in keys]}, separators=(",", ":")).encode()


def check_token(
    token: str, audience: str, keys: Mapping[str, tuple[TrustDomain, JwtKey]], *, now: int
) -> dict[str, object]:
    """Return the claims of a JWT-SVID for `audience` that is valid at `now` (microseconds); raise `TokenError`.

    `keys` holds, by `kid`, each trusted key with the one trust domain that it may vouch for. Only for `ValidateJWTSVID`:
    messages are verified by `sealbus.envelopes.trust.credential`, which is stricter.
    """
    try:
        decoded = jwt.decode(token, lambda signed: keys[signed.headers()["kid"]][1].jwk, algorithms=[_ALGORITHM])
        claims, (trust_domain, _) = decoded.claims, keys[decoded.header["kid"]]
        genuine = (
            audience in claims["aud"]
            and now < claims["exp"] * SECOND
            and claims["sub"].startswith(f"spiffe://{trust_domain}/")
        )
    except (JoseError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise TokenError("not a JWT-SVID of a trusted domain") from error
    if not genuine:
        raise TokenError("expired, for another audience, or of a foreign subject")
    return claims


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
