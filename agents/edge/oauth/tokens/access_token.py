"""Access tokens, by the table of issuers: JWTs (RFC 9068) are verified, about others their issuer is asked (RFC 7662)."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import KeysUnavailable, TokenRefused
from sealbus.agents.edge.oauth.issuers import IntrospectionEndpoint, Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.keys.key_set import VerificationKey
from sealbus.agents.edge.oauth.tokens.introspection import Introspection
from sealbus.agents.edge.oauth.tokens.jwt import Claims, checked_header, is_signed, parsed
from sealbus.agents.edge.oauth.tokens.scopes import ScopesSeen, scopes_of
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import ClaimValue, SubjectType
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_TOKEN_TYPES: Final = ("bearer", "dpop")
_REMEMBERED: Final = 4_096
"""Tokens whose signature is remembered; the oldest gives way, and is verified again."""
_REMEMBERED_BYTES: Final = 4_096
"""The longest of them: tokens of real issuers have 1 to 4 KiB."""
_REMEMBERED_VALUES: Final = 128
"""The most commas, objects and lists in one of them: made of nothing else, a token of 4 KiB takes 64 KiB of memory."""
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
    """The contents of a verified access token, or assertion, that the edge uses; the token itself is not kept.

    `subject` is as the issuer calls it, `type` what it is if it is no user. `client` is as policies call it: one of a
    partner's `domain` ends with `@` and that. Times are microseconds since the Unix epoch. `claims` are those of the issuer's
    allow-list, by their names in the user context. `session` is the session that the issuer names, or else the token's own
    id. With `bound` it is not accepted from anybody who does not prove to hold that key (`possession.py`). Its text shows no
    user.
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
    type: SubjectType | None = None
    domain: TrustDomain | None = None
    bound: Binding | None = None

    def __repr__(self) -> str:
        return f"AccessToken(issuer={self.issuer!r}, expires={self.expires!r}, ...)"


class Parties(NamedTuple):
    """Whom a token is about: its `subject`, as the issuer calls it, its `client`, and the subject's type, None for a user."""

    subject: str
    client: str
    type: SubjectType | None


class _Signed(NamedTuple):
    """Header and claims of a token, and the key by which its signature was verified."""

    header: Mapping[str, Json]
    says: Mapping[str, Json]
    key: VerificationKey


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
        introspected = [issuer for issuer in issuers if issuer.introspection is not None]
        if len(introspected) > 1:
            raise ConfigurationError("more than one issuer has introspection")
        self._asked = introspected[0] if introspected else None
        self._introspection = introspection
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ConfigurationError("two rows have the same issuer")
        self._foreign = tuple([f"@{issuer.domain}" for issuer in issuers if issuer.domain is not None])
        self._keys = keys
        self._limits = limits
        self._signed: OrderedDict[bytes, _Signed] = OrderedDict()
        self._scopes = ScopesSeen(issuers)

    def notes(self) -> dict[str, str]:
        """Return what an operator should look at, by part: whose tokens carry no scopes."""
        return self._scopes.notes()

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return the contents of `token` at `now`, microseconds since the Unix epoch.

        Of a JWT in this order: length, form, header, issuer, type, algorithm, key, signature, audience, times, claims. Until
        the signature holds, a token only selects the row of the table and the issuer's key. The answer of an issuer that is
        asked is held to the same rules, but for what RFC 7662 leaves out: `iat`, `jti`, `iss`, and `sub` where a client acts
        for itself. An issuer without a domain cannot name a subject or client as one of another row's domain.

        That a key signed a token is remembered, by a hash of the token and without its signature. All else is checked each
        time, also that this key is still its issuer's. Of a bound token this does not say who may use it.

        Raises `TokenRefused`, or `KeysUnavailable` if its issuer's keys are not available.
        """
        # Characters, not bytes: non-ASCII is refused next, and each character has at least one byte.
        if len(token) > self._limits.token_bytes:
            raise TokenRefused("too long")
        digest = sha256(token.encode(errors="surrogatepass")).digest()
        remembered = self._signed.get(digest)
        if remembered is not None:
            issuer = self._row(remembered.says)
            if await self._key(issuer, remembered.header, now) is remembered.key:
                return self._of_jwt(remembered.says, issuer, token, now)
        parts = parsed(token, self._limits)
        if parts is None:
            if self._asked is None or self._asked.introspection is None:
                raise TokenRefused("not a JWT in compact form")
            return await self._answered(self._asked, self._asked.introspection, token, now)
        jws, header, says = parts
        issuer = self._row(says)
        if issuer.introspection is not None:
            return await self._answered(issuer, issuer.introspection, token, now)
        key = await self._key(issuer, header, now)
        if not is_signed(jws, str(header["alg"]), key):
            raise TokenRefused("signature")
        contents = self._of_jwt(says, issuer, token, now)
        # What is refused is not remembered: where anybody can get a token of the issuer, strangers' would push out others.
        values = sum(map(jws.payload.count, (b",", b"{", b"[")))
        if len(token) <= _REMEMBERED_BYTES and values <= _REMEMBERED_VALUES:
            self._signed[digest] = _Signed(header, says, key)
            while len(self._signed) > _REMEMBERED:
                self._signed.popitem(last=False)
        return contents

    async def _key(self, issuer: Issuer, header: Mapping[str, Json], now: int) -> VerificationKey:
        """Return the key that `header` names, if `issuer` may have made it; raises as `KeySource.key`."""
        algorithm, kid = checked_header(header, issuer.types, issuer.algorithms, self._limits)
        return await self._keys.key(issuer, kid, algorithm, now=now)

    def _of_jwt(self, says: Mapping[str, Json], issuer: Issuer, token: str, now: int) -> AccessToken:
        claims = Claims(says)
        subject = claims.text("sub")
        # RFC 9068 requires `jti`, and OIDC does not. Without the signature, of which anybody can make another one that holds
        # (ECDSA): a token whose id is revoked has no second one.
        token_id = claims.text("jti") if "jti" in claims or not issuer.workloads else _digest(token.rpartition(".")[0])
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
        own = claims.text("jti") if "jti" in claims else _digest(token)
        # Of a client that acts for itself a JWT says the client here (RFC 9068 section 2.2), and RFC 7662 nothing.
        subject = claims.text("sub" if "sub" in claims else issuer.client_claim)
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
        client = claims.text(issuer.client_claim)
        if issuer.domain is None and (subject.endswith(self._foreign) or client.endswith(self._foreign)):
            raise TokenRefused("sub or client: of another row's domain")
        kind = SubjectType.CLIENT if subject == client else None
        contents = contents_of(
            claims,
            issuer,
            Parties(
                subject,
                client if issuer.domain is None else f"{client}@{issuer.domain}",
                SubjectType.WORKLOAD if issuer.workloads else kind,
            ),
            token_id=token_id,
            issued=issued,
            expires=expires,
            bound=bound,
        )
        self._scopes.note(claims, issuer)
        return contents


def contents_of(
    claims: Claims,
    issuer: Issuer,
    parties: Parties,
    *,
    token_id: str,
    issued: int,
    expires: int,
    bound: Binding | None = None,
) -> AccessToken:
    """Return what the edge uses of verified `claims` of `issuer`, whose audience and times have been checked.

    Raises `TokenRefused` for a claim that is not as the row requires, or is of another type.
    """
    for name, value in issuer.require.items():
        if claims.text(name) != value:
            raise TokenRefused(f"{name}: not as required")
    return AccessToken(
        issuer=issuer.issuer,
        subject=parties.subject,
        client=parties.client,
        session=claims.text(issuer.session_claim) if issuer.session_claim in claims else token_id,
        scope=scopes_of(claims, issuer),
        claims=claims.allowed(issuer.claims),
        tenant=claims.text(issuer.tenant_claim) if issuer.tenant_claim is not None else issuer.tenant,
        acr=claims.text("acr") if "acr" in claims else None,
        amr=claims.texts("amr") if "amr" in claims else None,
        auth_time=claims.time("auth_time") if "auth_time" in claims else None,
        issued=issued,
        expires=expires,
        type=parties.type,
        domain=issuer.domain,
        bound=bound,
    )


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()[:32]


def _binding(claims: Claims) -> Binding:
    """Return the key of `cnf`; a token that is bound in a way that is not understood is refused."""
    members = claims.members("cnf")
    if len(members) == 1:
        for kind in BindingKind:
            value = members.get(kind)
            if type(value) is str and _THUMBPRINT.fullmatch(value):
                return Binding(kind, value)
    raise TokenRefused("cnf")
