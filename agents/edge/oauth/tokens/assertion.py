"""Assertions: a partner's authorization server says who its user is, once, to our token service (RFC 7523 section 3).

Also the last step of identity chaining (draft-ietf-oauth-identity-chaining): a service there exchanged its user's token for
an assertion that is for us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken, Parties, contents_of
from sealbus.agents.edge.oauth.tokens.jwt import Claims, checked_header, is_signed, parsed
from sealbus.bus.work.idempotency.replay_guard import DIGEST_BYTES, ReplayGuard
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ASSERTION_TYPES: Final = frozenset({"authorization-grant+jwt", "jwt"})
"""Values of `typ`: the one of draft-ietf-oauth-rfc7523bis, and what servers from before it write. What else is signed as a
`JWT` has another audience.
"""


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion: its contents, and what it is known by (16 bytes)."""

    contents: AccessToken
    digest: bytes = field(repr=False)


class Assertions:
    """The assertions that an edge accepts: of the rows of `issuers` that have an audience for them.

    `guard` knows those that any of its processes used.
    """

    def __init__(
        self, issuers: Sequence[Issuer], keys: KeySource, guard: ReplayGuard, limits: EdgeLimits = DEFAULT_EDGE_LIMITS
    ) -> None:
        self._issuers: Final = {row.issuer: row for row in issuers if row.assertion_audience is not None}
        self._keys: Final = keys
        self._guard: Final = guard
        self._limits: Final = limits

    async def verify(self, assertion: str, *, presenter: SpiffeId, now: int) -> Assertion:
        """Return `assertion`, verified at `now` (microseconds since the Unix epoch), with `presenter` as its client.

        In this order: length, form, issuer, header, key, signature, audience (ours alone), times, claims. It must have `sub`,
        `jti`, and an `exp` that is not over `assertion_seconds` ahead. Whether it was used before, `use` says.

        Raises `TokenRefused`, or `KeysUnavailable` if its issuer's keys are not available.
        """
        if len(assertion) > self._limits.token_bytes:
            raise TokenRefused("too long")
        parts = parsed(assertion, self._limits)
        if parts is None:
            raise TokenRefused("not a JWT in compact form")
        jws, header, says = parts
        name = says.get("iss")
        issuer = self._issuers.get(name) if type(name) is str else None
        if issuer is None:
            raise TokenRefused("iss", code=Code.UNKNOWN_ISSUER)
        algorithm, kid = checked_header(header, ASSERTION_TYPES, issuer.algorithms, self._limits)
        key = await self._keys.key(issuer, kid, algorithm, now=now)
        if not is_signed(jws, algorithm, key):
            raise TokenRefused("signature")
        claims = Claims(says)
        if claims.audiences("aud") != {issuer.assertion_audience}:
            # Who else it is for could use it here.
            raise TokenRefused("aud", code=Code.TOKEN_AUDIENCE)
        expires, ahead = claims.time("exp"), self._limits.future_seconds * SECOND
        if now >= expires:
            raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
        if expires > now + self._limits.assertion_seconds * SECOND + ahead:
            raise TokenRefused("exp is too far in the future")
        for claim in ("iat", "nbf"):
            if claim in claims and claims.time(claim) > now + ahead:
                raise TokenRefused(f"{claim} is in the future")
        if "cnf" in claims:
            raise TokenRefused("cnf: the assertion is bound to a key")
        token_id = claims.text("jti")
        contents = contents_of(
            claims,
            issuer,
            Parties(claims.text("sub"), presenter.value, None),
            token_id=token_id,
            issued=claims.time("iat") if "iat" in claims else now,
            expires=expires,
        )
        known_by = sha256(f"{issuer.issuer} {token_id}".encode()).digest()[:DIGEST_BYTES]
        return Assertion(contents, known_by)

    async def use(self, assertion: Assertion) -> None:
        """Use `assertion`, for all processes of the edge; raise `TokenRefused` if it was used before.

        Raises `StateUnavailable`, `BusUnavailable` or `IdentityUnavailable` if that cannot be known.
        """
        expires, ahead = assertion.contents.expires, self._limits.future_seconds * SECOND
        # Before that it would have been too far ahead, and another process's clock may be ahead or behind.
        made = expires - self._limits.assertion_seconds * SECOND - 2 * ahead
        if not await self._guard.use(assertion.digest, made=made, until=expires + 2 * ahead):
            raise TokenRefused("jti: used before")
