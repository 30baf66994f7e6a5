"""Access tokens, by the table of issuers: JWTs (RFC 9068) are verified, about others their issuer is asked (RFC 7662)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.introspection import Introspection
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.oauth.jwks import KeySource
from sealbus.agents.edge.oauth.jwt import Claims, checked_header, is_signed, parsed
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import ClaimValue

__all__ = ["AccessToken", "AccessTokenVerifier", "Binding", "BindingKind"]


_TOKEN_TYPES: Final = ("bearer", "dpop")
_THUMBPRINT: Final = re.compile("[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url."""


class BindingKind(StrEnum):
    """How a token is bound to a key, by the name of the member of `cnf` (RFC 7800)."""

    KEY = "jkt"
    """The thumbprint of a key that signs a proof for each request (RFC 9449 section 6)."""
    CERTIFICATE = "x5t#S256"
    """The hash of a client's certificate (RFC 8705 section 3.1)."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The key that only who may use a token has: its SHA-256 in base64url."""

    kind: BindingKind
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The contents of a verified access token that the edge uses; the token itself is not kept.

    Times are microseconds since the Unix epoch. `claims` are those of the issuer's allow-list, by their names in the user
    context. `session` is the session that the issuer names, or else the token's own id. With `bound` it is not accepted from
    anybody who does not prove to hold that key (`possession.py`). Its text shows no user.
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
    bound: Binding | None = None

    def __repr__(self) -> str:
        return f"AccessToken(issuer={self.issuer!r}, expires={self.expires!r}, ...)"


class AccessTokenVerifier:
    """A verifier of access tokens by the rows of `issuers`, with the keys that `keys` finds, or by asking.

    Raises `ConfigurationError` if two rows have the same issuer, or more than one is asked: what is no JWT does not say whose
    it is, and a token is for its own issuer's eyes.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        keys: KeySource,
        limits: EdgeLimits = DEFAULT_EDGE_LIMITS,
        *,
        introspection: Introspection | None = None,
    ) -> None:
        asked = [issuer for issuer in issuers if issuer.introspection is not None]
        if len(asked) > 1:
            raise ConfigurationError("more than one issuer has introspection")
        self._asked = asked[0] if asked else None
        self._introspection = introspection
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("two rows have the same issuer")
        self._keys = keys
        self._limits = limits

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return the contents of `token` at `now`, microseconds since the Unix epoch.

        Of a JWT in this order: length, form, header, issuer, type, algorithm, key, signature, audience, times, claims. Until
        the signature holds, a token only selects the row of the table and the issuer's key. The answer of an issuer that is
        asked is held to the same rules, but for what RFC 7662 leaves out: `iat`, `jti`, `iss`, and `sub` where a client acts
        for itself.

        Of a bound token this does not say who may use it.

        Raises `TokenRefused`, or `KeysUnavailable` if its issuer's keys are not available.
        """
        # Characters, not bytes: non-ASCII is refused next, and each character has at least one byte.
        if len(token) > self._limits.token_bytes:
            raise TokenRefused("too long")
        found = parsed(token, self._limits)
        if found is None:
            if self._asked is None or self._asked.introspection is None:
                raise TokenRefused("not a JWT in compact form")
            return await self._answered(self._asked, self._asked.introspection, token, now)
        jws, header, says = found
        issuer = self._row(says)
        if issuer.introspection is not None:
            return await self._answered(issuer, issuer.introspection, token, now)
        algorithm, kid = checked_header(header, issuer.types, issuer.algorithms, self._limits)
        key = await self._keys.key(issuer, kid, algorithm, now=now)
        if not is_signed(jws, algorithm, key):
            raise TokenRefused("signature")
        claims = Claims(says)
        subject, token_id = claims.text("sub"), claims.text("jti")
        return self._judged(claims, issuer, now, subject=subject, issued=claims.time("iat"), token_id=token_id)

    async def _answered(self, issuer: Issuer, at: IntrospectionEndpoint, token: str, now: int) -> AccessToken:
        """Return the contents of `token` by the word of its issuer."""
        if self._introspection is None:
            raise KeysUnavailable("the issuer cannot be asked", retry_after=1)
        claims = Claims(await self._introspection.claims(issuer, at, token, now=now))
        if "iss" in claims and claims.text("iss") != issuer.issuer:
            raise TokenRefused("iss", code=Code.UNKNOWN_ISSUER)
        if "token_type" in claims and claims.text("token_type").lower() not in _TOKEN_TYPES:
            raise TokenRefused("token_type")
        issued = claims.time("iat") if "iat" in claims else now
        own = claims.text("jti") if "jti" in claims else sha256(token.encode()).hexdigest()[:32]
        # Of a client that acts for itself a JWT says the client here (RFC 9068 section 2.2), and RFC 7662 nothing.
        subject = claims.text("sub" if "sub" in claims else "client_id")
        return self._judged(claims, issuer, now, subject=subject, issued=issued, token_id=own)

    def _row(self, claims: Mapping[str, Json]) -> Issuer:
        name = claims.get("iss")
        issuer = self._issuers.get(name) if type(name) is str else None
        if issuer is None:
            raise TokenRefused("iss", code=Code.UNKNOWN_ISSUER)
        return issuer

    def _judged(
        self, claims: Claims, issuer: Issuer, now: int, *, subject: str, issued: int, token_id: str
    ) -> AccessToken:
        """Return the contents of verified `claims`; raise unless for us, valid now and complete (RFC 9068 section 2.2)."""
        if issuer.audiences.isdisjoint(claims.audiences("aud")):
            raise TokenRefused("aud", code=Code.TOKEN_AUDIENCE)
        expires = claims.time("exp")
        if now >= expires:
            raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
        latest = now + self._limits.future_seconds * SECOND
        if issued > latest:
            raise TokenRefused("iat is in the future")
        if "nbf" in claims and claims.time("nbf") > latest:
            raise TokenRefused("nbf is in the future")
        bound = _binding(claims) if "cnf" in claims else None
        if bound is None and issuer.bound:
            raise TokenRefused("cnf: not bound to a key")
        return AccessToken(
            issuer=issuer.issuer,
            subject=subject,
            client=claims.text("client_id"),
            session=claims.text(issuer.session_claim) if issuer.session_claim in claims else token_id,
            scope=tuple([one for one in claims.scope("scope") if issuer.scopes is None or one in issuer.scopes]),
            claims=claims.allowed(issuer.claims),
            tenant=claims.text(issuer.tenant_claim) if issuer.tenant_claim is not None else issuer.tenant,
            acr=claims.text("acr") if "acr" in claims else None,
            amr=claims.texts("amr") if "amr" in claims else None,
            auth_time=claims.time("auth_time") if "auth_time" in claims else None,
            issued=issued,
            expires=expires,
            bound=bound,
        )


def _binding(claims: Claims) -> Binding:
    """Return the key of `cnf`; a token that is bound in a way that is not understood is refused."""
    members = claims.members("cnf")
    if len(members) == 1:
        for kind in BindingKind:
            value = members.get(kind)
            if type(value) is str and _THUMBPRINT.fullmatch(value):
                return Binding(kind, value)
    raise TokenRefused("cnf")
