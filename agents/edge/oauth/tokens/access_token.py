"""Verify access tokens by the table of issuers: JWTs by signature (RFC 9068), others by asking the issuer (RFC 7662)."""

from __future__ import annotations

import re
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
from sealbus.envelopes.trust.caches import BoundedMap
from sealbus.envelopes.trust.spiffe_id import TrustDomain

_TOKEN_TYPES: Final = ("bearer", "dpop")
_REMEMBERED: Final = 4_096
"""Tokens whose signature is remembered; the oldest is forgotten, and verified again when it returns."""
_REMEMBERED_BYTES: Final = 4_096
"""The longest token that is remembered: tokens of real issuers have 1 to 4 KiB."""
_REMEMBERED_VALUES: Final = 128
"""The most commas, objects and lists in a remembered token. A 4 KiB token of nothing else takes 64 KiB of memory."""
_THUMBPRINT: Final = re.compile("[A-Za-z0-9_-]{43}")
"""A SHA-256 in base64url."""


class BindingKind(StrEnum):
    """How a token is bound to a key; values are names of members of `cnf` (RFC 7800)."""

    KEY = "jkt"
    """The thumbprint of a key that signs a proof for each request (RFC 9449 section 6)."""
    CERTIFICATE = "x5t#S256"
    """The hash of a client's certificate (RFC 8705 section 3.1)."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The key that a user of the token has to hold: its SHA-256 in base64url."""

    kind: BindingKind
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """The contents of a verified access token or assertion that the edge uses; the token itself is not kept.

    `subject` is the issuer's name for the subject, `name` its name behind the edge, which the edge adds (`Front.named`): a
    token without it gives no context. `type` is the subject's type, None for a user. `client` is the name of the client in
    policies: that of a client of a partner ends with `@` and the partner's `domain`. Times are microseconds since the Unix
    epoch. `claims` are those of the issuer's allow-list, by their names in the user context. `session` is the session that
    the issuer names, or else the token's id. A token with `bound` is accepted only from a sender that proves to hold that key
    (`possession.py`). The `repr` shows no user.
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
    name: str = ""

    def __repr__(self) -> str:
        return f"AccessToken(issuer={self.issuer!r}, expires={self.expires!r}, ...)"


class Parties(NamedTuple):
    """The `subject` of a token by the issuer's name, its `client`, and the type of the subject, None for a user."""

    subject: str
    client: str
    type: SubjectType | None


class _Signed(NamedTuple):
    """Header and claims of a token, and the key by which its signature was verified."""

    header: Mapping[str, Json]
    says: Mapping[str, Json]
    key: VerificationKey


class AccessTokenVerifier:
    """A verifier of access tokens by the rows of `issuers`, with the keys from `keys`, or by introspection.

    Raises `ConfigurationError` if two rows have the same issuer, or several have introspection: a token that is no JWT does
    not name its issuer, and must not be shown to another issuer.
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
        self._signed: BoundedMap[bytes, _Signed] = BoundedMap(_REMEMBERED)
        self._scopes = ScopesSeen(issuers)

    def notes(self) -> dict[str, str]:
        """Return notes for operators, by part: the issuers whose tokens carry no scopes."""
        return self._scopes.notes()

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return the contents of `token` at `now`, microseconds since the Unix epoch.

        A JWT is checked in this order: length, form, header, issuer, type, algorithm, key, signature, audience, times,
        claims. Until its signature is verified, a token only selects the row of the table and the issuer's key. The answer to
        an introspection is checked by the same rules, except for members that RFC 7662 makes optional: `iat`, `jti`, `iss`,
        and `sub` if a client acts for itself. An issuer without a domain cannot name a subject or client of another row's
        domain.

        A verified signature is remembered, with its key, under a hash of the token. All else is checked each time, also that
        the key is still the issuer's. `Possession` checks who may use a bound token.

        Raises `TokenRefused`, or `KeysUnavailable` if the issuer's keys are not available or it cannot be asked.
        """
        # Characters, not bytes, are enough: non-ASCII is refused next, and each character has at least one byte.
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
        # A refused token is not remembered: strangers' tokens of an open issuer would push out others.
        values = sum(map(jws.payload.count, (b",", b"{", b"[")))
        if len(token) <= _REMEMBERED_BYTES and values <= _REMEMBERED_VALUES:
            self._signed.put(digest, _Signed(header, says, key))
        return contents

    async def _key(self, issuer: Issuer, header: Mapping[str, Json], now: int) -> VerificationKey:
        """Return the key that `header` names, if `issuer` may write such a header; raises as `KeySource.key`."""
        algorithm, kid = checked_header(header, issuer.types, issuer.algorithms, self._limits)
        return await self._keys.key(issuer, kid, algorithm, now=now)

    def _of_jwt(self, says: Mapping[str, Json], issuer: Issuer, token: str, now: int) -> AccessToken:
        claims = Claims(says)
        subject = claims.text("sub")
        # RFC 9068 requires `jti`, and OIDC does not. The id leaves the signature out: anybody can make a second valid ECDSA
        # signature, and a token whose id is revoked must not get a second id.
        token_id = claims.text("jti") if "jti" in claims or not issuer.workloads else _digest(token.rpartition(".")[0])
        return self._judged(claims, issuer, now, subject=subject, issued=claims.time("iat"), token_id=token_id)

    async def _answered(self, issuer: Issuer, at: IntrospectionEndpoint, token: str, now: int) -> AccessToken:
        """Return the contents of `token` by the answer of its issuer."""
        if self._introspection is None:
            raise KeysUnavailable("the issuer cannot be asked", retry_after=1)
        claims = Claims(await self._introspection.claims(issuer, at, token, now=now))
        if "iss" in claims and claims.text("iss") != issuer.issuer:
            raise TokenRefused("iss", code=Code.UNKNOWN_ISSUER)
        if "token_type" in claims and claims.text("token_type").lower() not in _TOKEN_TYPES:
            raise TokenRefused("token_type")
        issued = claims.time("iat") if "iat" in claims else now
        own = claims.text("jti") if "jti" in claims else _digest(token)
        # If a client acts for itself, `sub` of a JWT names the client (RFC 9068 section 2.2); RFC 7662 leaves it out.
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
    """Return the contents of verified `claims` of `issuer`, whose audience and times the caller has checked.

    Raises `TokenRefused` for a claim without the value that the row requires, or with another type.
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
    """Return the key of `cnf`; raise `TokenRefused` for a binding of another kind."""
    members = claims.members("cnf")
    if len(members) == 1:
        for kind in BindingKind:
            value = members.get(kind)
            if type(value) is str and _THUMBPRINT.fullmatch(value):
                return Binding(kind, value)
    raise TokenRefused("cnf")
