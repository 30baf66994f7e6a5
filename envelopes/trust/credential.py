"""Step 7: the JWT-SVID that vouches for a message's key (SPEC.md section 5; SPIFFE JWT-SVID.md).

A JWT-SVID whose only audience is the thumbprint of a key states that the workload `sub` holds this key. It is worthless
without the private key, so it is sent openly with every message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

from sealbus.envelopes.encoding.jws import ALGORITHMS, check_fit, split_compact, verify_jws
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.trust.bundles import BundleKey, Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.keys import PublicKey
from sealbus.envelopes.trust.proof import JWT_SVID, Credential
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

_SKEW: Final = DEFAULT_LIMITS.clock_skew
_LONGEST: Final = DEFAULT_LIMITS.live_seconds
_JOSE_NAMES: Final = frozenset({"alg", "kid", "typ"})
_JOSE_TYPES: Final = frozenset({"JWT", "JOSE"})


class KeyClaim(Protocol):
    """The claim of a header or a user context: `iss` holds `key`, and the token with the hash `crd` states this."""

    @property
    def iss(self) -> SpiffeId: ...  # noqa: D102  # the class describes all three

    @property
    def key(self) -> PublicKey: ...  # noqa: D102

    @property
    def crd(self) -> bytes: ...  # noqa: D102


class ClaimedKey(NamedTuple):
    """A `KeyClaim` that stands neither in a header nor in a user context."""

    iss: SpiffeId
    key: PublicKey
    crd: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCredential:
    """The statement of a verified JWT-SVID: `sub` held the key from `iat` to `exp`, microseconds since the Unix epoch."""

    sub: SpiffeId
    iat: int
    exp: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _JwtSvid:
    """A well-formed JWT-SVID for `contents.sub` and the key `raw_key`. Its signature is not verified."""

    token: bytes = field(repr=False)
    raw_key: bytes
    trust_domain: TrustDomain
    alg: str
    kid: str
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    contents: VerifiedCredential


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _CachedCredential:
    """A JWT-SVID with a verified signature, and the bundle key that verified it."""

    svid: _JwtSvid
    bundle_key: BundleKey


def verify_credential(
    credential: Credential, claim: KeyClaim, *, reference: int, trust: Trust, caches: Caches, step: int = 7
) -> VerifiedCredential:
    """Step 7: verify `credential` and return its contents, or raise `EnvelopeError`, counted at `step`.

    `claim` is the header or the user context that it must vouch for. `reference` is the time at which it must have been
    valid, in microseconds. The order of checks: hash, form, bundle, key, times, revocation, signature. Everything that
    follows from the token alone (types, `iat < exp`, its life) is form. Steps 10 and 11 and the archive profile call this
    with another `reference`, `step` or `trust`.

    A token whose signature was verified is cached by `crd`. A hit saves only the parsing and the signature's arithmetic,
    if bundle and `kid` still lead to the same key: bundle, times and revocation are checked at every call.

    Codes: `bad_credential`, `unknown_trust_domain`, `unknown_key`, `credential_expired`, `revoked`.
    """
    cached = caches.credentials.get(claim.crd)
    remembered = cached if isinstance(cached, _CachedCredential) and _is_of(cached.svid, credential, claim) else None
    svid = _parse(credential, claim, step) if remembered is None else remembered.svid
    bundle_key = _bundle_key(svid, trust, step)
    unverified = remembered is None or not remembered.bundle_key.is_same(bundle_key)
    if unverified:
        _check_fit(svid, bundle_key, step)
    verified = svid.contents
    if verified.iat - _SKEW > reference:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "issued after the reference time")
    if verified.exp <= reference:
        raise EnvelopeError(Code.CREDENTIAL_EXPIRED, step)
    if trust.revoked_before and verified.iat < trust.revoked_before.get(claim.iss, 0):
        raise EnvelopeError(Code.REVOKED, step)
    if unverified:
        try:
            verify_jws(svid.alg, bundle_key.key, svid.signed, svid.signature)
        except ValueError as error:
            raise EnvelopeError(Code.BAD_CREDENTIAL, step, "signature") from error
        caches.credentials.put(claim.crd, _CachedCredential(svid=svid, bundle_key=bundle_key))
    return verified


def _is_of(svid: _JwtSvid, credential: Credential, claim: KeyClaim) -> bool:
    """Return whether a cached `svid` is this credential for the ID and key of `claim`; equal bytes need no hashing."""
    return (
        credential.kind == JWT_SVID
        and credential.token == svid.token
        and claim.iss.value == svid.contents.sub.value
        and claim.key.raw == svid.raw_key
    )


def _bundle_key(svid: _JwtSvid, trust: Trust, step: int) -> BundleKey:
    """Return the key that `svid` names in the bundle of its own trust domain. Other bundles are not searched."""
    try:
        bundle_key = trust.bundles.key(svid.trust_domain, svid.kid)
    except KeyError as error:
        raise EnvelopeError(Code.UNKNOWN_TRUST_DOMAIN, step) from error
    if bundle_key is None:
        raise EnvelopeError(Code.UNKNOWN_KEY, step)
    return bundle_key


def _check_fit(svid: _JwtSvid, bundle_key: BundleKey, step: int) -> None:
    try:
        check_fit(svid.alg, bundle_key.key)
    except ValueError as error:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "alg does not fit the key") from error


def _parse(credential: Credential, claim: KeyClaim, step: int) -> _JwtSvid:
    """Parse the token of `credential`, checking its hash and form against `claim`; raise `bad_credential`."""
    token, iss, key = credential.token, claim.iss, claim.key
    if credential.kind != JWT_SVID:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "kind")
    if sha256(token).digest() != claim.crd:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "crd")
    try:
        jws = split_compact(token)
        jose = parse_object(jws.header, depth=DEFAULT_LIMITS.jwt_nesting)
        claims = parse_object(jws.payload, depth=DEFAULT_LIMITS.jwt_nesting)
    except ValueError as error:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "not a JWT") from error
    alg, kid, typ = jose.get("alg"), jose.get("kid"), jose.get("typ", "JWT")
    if not jose.keys() <= _JOSE_NAMES:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "JOSE header")
    if type(alg) is not str or alg not in ALGORITHMS:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "alg")
    if type(kid) is not str:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "kid")
    if type(typ) is not str or typ not in _JOSE_TYPES:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "typ")
    if claims.get("aud") not in (key.thumbprint, [key.thumbprint]):
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "aud is not the thumbprint of the key")
    if claims.get("sub") != iss.value:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "sub is not iss")
    iat, exp = _seconds(claims, "iat", step), _seconds(claims, "exp", step)
    if not iat < exp:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "exp is not after iat")
    if exp - iat > _LONGEST:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, "life")
    verified = VerifiedCredential(sub=iss, iat=iat * SECOND, exp=exp * SECOND)
    return _JwtSvid(
        token=token,
        raw_key=key.raw,
        trust_domain=iss.trust_domain,
        alg=alg,
        kid=kid,
        signed=jws.signed,
        signature=jws.signature,
        contents=verified,
    )


def _seconds(claims: dict[str, Json], name: str, step: int) -> int:
    value = claims.get(name)
    # A float is refused, even with an integral value: two readers might round it to different times.
    if type(value) is not int or not 0 <= value <= DEFAULT_LIMITS.max_integer:
        raise EnvelopeError(Code.BAD_CREDENTIAL, step, name)
    return value
