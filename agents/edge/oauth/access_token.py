"""Access tokens as JWTs (RFC 9068), verified against the table of issuers.

Claims are read by type: a missing claim or one of another type is refused, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import ALGORITHMS, Issuer
from sealbus.agents.edge.oauth.jwks import KeySource
from sealbus.agents.edge.oauth.key_set import VerificationKey
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.jws import CompactJws, split_compact
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.user_context import ClaimValue

__all__ = ["AccessToken", "AccessTokenVerifier", "Claims"]

_KEYS_IN_HEADER: Final = ("jku", "jwk", "x5u", "x5c")
"""Headers in which a token names its own verification key (RFC 7515 section 4.1). No server we support sends them, and
refusing them makes sure that none is followed."""
_EXTENSIONS: Final = ("crit", "b64", "zip", "enc")
"""Headers that change how the rest must be read."""
_REGISTRY: Final = JWSRegistry(algorithms=sorted(ALGORITHMS))

_MAX_INTEGER: Final = DEFAULT_LIMITS.max_integer
_LATEST: Final = _MAX_INTEGER // SECOND
"""The last second whose microseconds a context can hold; in the year 2255."""
_ITEMS: Final = DEFAULT_LIMITS.text_items


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The contents of a verified access token that the edge uses; the token itself is not kept.

    Times are microseconds since the Unix epoch. `claims` are those of the issuer's allow-list, by their names in the user
    context. `session` is the session that the issuer names, or else the token's own id. Its text shows no user.
    """

    issuer: str
    subject: str
    client: str
    session: str
    scope: tuple[str, ...]
    claims: Mapping[str, ClaimValue]
    tenant: str | None
    acr: str | None
    amr: tuple[str, ...] | None
    auth_time: int | None
    issued: int
    expires: int

    def __repr__(self) -> str:
        return f"AccessToken(issuer={self.issuer!r}, expires={self.expires!r}, ...)"


class AccessTokenVerifier:
    """A verifier of access tokens by the rows of `issuers`, with the keys that `keys` finds.

    Raises `ConfigurationError` if two rows have the same issuer.
    """

    def __init__(self, issuers: Sequence[Issuer], keys: KeySource, limits: EdgeLimits = DEFAULT_EDGE_LIMITS) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("two rows have the same issuer")
        self._keys = keys
        self._limits = limits

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return the contents of `token` at `now`, microseconds since the Unix epoch.

        In this order: length, form, header, issuer, type, algorithm, key, signature, audience, times, claims. Until the
        signature holds, a token only selects the row of the table and the issuer's key.

        Raises `TokenRefused`, or `KeysUnavailable` if its issuer's keys are not available.
        """
        # Characters, not bytes: non-ASCII is refused next, and each character has at least one byte.
        if len(token) > self._limits.token_bytes:
            raise TokenRefused("too long")
        parsed = _parsed(token, self._limits)
        if parsed is None:
            raise TokenRefused("not a JWT in compact form")
        jws, header, says = parsed
        issuer = self._row(says)
        algorithm, kid = _checked_header(header, issuer, self._limits)
        key = await self._keys.key(issuer, kid, algorithm, now=now)
        if not _is_signed(jws, algorithm, key):
            raise TokenRefused("signature")
        return self._judged(Claims(says), issuer, now)

    def _row(self, claims: Mapping[str, Json]) -> Issuer:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if type(name) is str else None
        if issuer is None:
            raise TokenRefused("iss", code=Code.UNKNOWN_ISSUER)
        return issuer

    def _judged(self, claims: Claims, issuer: Issuer, now: int) -> AccessToken:
        """Return the contents of verified `claims`; raise unless for us, valid now and complete (RFC 9068 section 2.2)."""
        if issuer.audiences.isdisjoint(claims.audiences("aud")):
            raise TokenRefused("aud", code=Code.TOKEN_AUDIENCE)
        issued, expires = claims.time("iat"), claims.time("exp")
        if now >= expires:
            raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
        latest = now + self._limits.future_seconds * SECOND
        if issued > latest:
            raise TokenRefused("iat is in the future")
        if "nbf" in claims and claims.time("nbf") > latest:
            raise TokenRefused("nbf is in the future")
        if "cnf" in claims:
            # Bound to a key whose possession is not proved here: accepted as a bearer token it would lose its protection.
            raise TokenRefused("cnf: tokens that are bound to a key are not accepted")
        token_id = claims.text("jti")
        return AccessToken(
            issuer=issuer.issuer,
            subject=claims.text("sub"),
            client=claims.text("client_id"),
            session=claims.text(issuer.session_claim) if issuer.session_claim in claims else token_id,
            scope=claims.scope("scope"),
            claims=claims.allowed(issuer.claims),
            tenant=claims.text(issuer.tenant_claim) if issuer.tenant_claim is not None else issuer.tenant,
            acr=claims.text("acr") if "acr" in claims else None,
            amr=claims.texts("amr") if "amr" in claims else None,
            auth_time=claims.time("auth_time") if "auth_time" in claims else None,
            issued=issued,
            expires=expires,
        )


def _parsed(token: str, limits: EdgeLimits) -> tuple[CompactJws, dict[str, Json], dict[str, Json]] | None:
    """Return the token's parts, its header and its claims, each of which has one meaning; nothing is verified.

    None for anything else instead of an exception: those of the parsers hold the parsed text, and would become the context of
    exceptions raised while they are handled.
    """
    try:
        jws = split_compact(token.encode("ascii"))
        header = parse_object(jws.header, depth=limits.token_nesting)
        claims = parse_object(jws.payload, depth=limits.token_nesting)
    except ValueError:
        return None
    return jws, header, claims


def _checked_header(header: Mapping[str, Json], issuer: Issuer, limits: EdgeLimits) -> tuple[str, str | None]:
    """Return the algorithm and the key id of a header that `issuer` may have made."""
    for name in (*_KEYS_IN_HEADER, *_EXTENSIONS):
        if name in header:
            raise TokenRefused(f"header: {name}")
    kind = header.get("typ", "")
    if type(kind) is not str or kind.lower() not in issuer.types:
        raise TokenRefused("header: typ")
    algorithm = header.get("alg")
    if type(algorithm) is not str or algorithm not in issuer.algorithms:
        raise TokenRefused("header: alg")
    kid = header.get("kid")
    if kid is not None and (type(kid) is not str or len(kid) > limits.key_id_bytes):
        raise TokenRefused("header: kid")
    return algorithm, kid


def _is_signed(jws: CompactJws, algorithm: str, key: VerificationKey) -> bool:
    """Return whether the signature is one by `key`, under an algorithm that fits it."""
    try:
        method = _REGISTRY.get_alg(algorithm)
        # The key was chosen to fit; a wrong choice must not pass verification.
        method.check_key(key)
        return method.verify(jws.signed, jws.signature, key) is True
    except (JoseError, ValueError):
        return False


class Claims:
    """The claims of one token. Every method but `allowed` raises `TokenRefused`, which names the claim.

    A text is 1 to 256 bytes without control characters, as in a user context: a claim that could not be passed on is refused
    here, where its sender can be told.
    """

    __slots__ = ("_claims",)

    def __init__(self, claims: Mapping[str, Json]) -> None:
        self._claims = claims

    def __contains__(self, name: str) -> bool:
        return name in self._claims

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._claims.get(name)
        if type(value) is not str or not value or not is_text(value):
            raise TokenRefused(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an array of at most 32 texts."""
        value = self._claims.get(name)
        if type(value) is not list or len(value) > _ITEMS:
            raise TokenRefused(name)
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        if len(texts) != len(value):
            raise TokenRefused(name)
        return texts

    def audiences(self, name: str) -> frozenset[str]:
        """Return the audiences: one text, or an array of texts (RFC 7519 section 4.1.3)."""
        value = self._claims.get(name)
        listed = value if type(value) is list else [value]
        texts = frozenset(item for item in listed if type(item) is str)
        if len(texts) != len(listed):
            raise TokenRefused(name)
        return texts

    def scope(self, name: str) -> tuple[str, ...]:
        """Return the scope values in a text, separated by single spaces (RFC 6749 section 3.3); none if absent."""
        value = self._claims.get(name, "")
        if type(value) is not str:
            raise TokenRefused(name)
        values = tuple(value.split(" ")) if value else ()
        if len(values) > _ITEMS or not all(one and is_text(one) for one in values):
            raise TokenRefused(name)
        return values

    def time(self, name: str) -> int:
        """Return a time in microseconds since the Unix epoch. Whole seconds only: no major server sends fractions."""
        value = self._claims.get(name)
        if type(value) is not int or not 0 <= value <= _LATEST:
            raise TokenRefused(name)
        return value * SECOND

    def allowed(self, names: Mapping[str, str]) -> Mapping[str, ClaimValue]:
        """Return the claims that `names` lists, under the names that it gives them.

        A claim that is absent or cannot be in a user context (SPEC.md section 6: a text, an integer, a boolean or an array of
        texts, within its limits) is left out: a policy that needs it then denies.
        """
        found = {ours: _claim_value(self._claims.get(theirs)) for theirs, ours in names.items()}
        return MappingProxyType({name: value for name, value in found.items() if value is not None})


def _claim_value(value: Json) -> ClaimValue | None:
    if type(value) is bool:
        return value
    if type(value) is int:
        return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else None
    if type(value) is str:
        return value if is_text(value) else None
    if type(value) is list and len(value) <= _ITEMS:
        texts = tuple([item for item in value if type(item) is str and is_text(item)])
        return texts if len(texts) == len(value) else None
    return None
