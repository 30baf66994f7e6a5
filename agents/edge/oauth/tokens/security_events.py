"""Verify reports of identity providers by the table of issuers: security event tokens (RFC 8417) and logout tokens.

Event tokens are those of the Shared Signals Framework 1.0, with the events of CAEP 1.0 and RISC 1.0 below; logout tokens
those of OpenID Connect Back-Channel Logout 1.0. Each leads to at most one revocation: of a session, or of a user's logins
until a time.

A token is handled once, by its `jti`, so that a captured token that is sent again causes no work and no record. All processes
of the edge remember a token for a day, from when it was handled, so that a report that failed can be sent again. A day is
enough, because handling a token twice does no harm: it names a session that its issuer has ended, or a time until which
logins do not count. For the same reason a token is handled if it is not known whether it was handled before: to leave out a
revocation would do harm.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from hashlib import sha256
from typing import Final, Literal

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS, EdgeLimits
from sealbus.agents.edge.http.problem import EdgeError, TokenRefused
from sealbus.agents.edge.oauth.issuers import Issuer
from sealbus.agents.edge.oauth.keys.jwks import KeySource
from sealbus.agents.edge.oauth.tokens.jwt import Claims, checked_header, is_signed, parsed
from sealbus.agents.runtime.policy.revocation import KEPT, Revocation
from sealbus.bus.work.idempotency.replay_guard import DIGEST_BYTES, ReplayGuard
from sealbus.envelopes.errors import BusUnavailable, Code, IdentityUnavailable, StateUnavailable
from sealbus.envelopes.limits import SECOND

EVENT_TOKEN_TYPE: Final = "secevent+jwt"
"""`typ` of an event token (RFC 8417 section 2.3), which SSF demands."""
LOGOUT_TOKEN_TYPE: Final = "logout+jwt"
"""`typ` of a logout token (Back-Channel Logout section 2.4). Recommended there, required here: nothing else distinguishes a
logout token from an ID token."""
BACKCHANNEL_LOGOUT: Final = "http://schemas.openid.net/event/backchannel-logout"

HANDLED_FOR: Final = 86_400 * SECOND
"""Microseconds for which a handled token is remembered: as long as STATE keeps a value, less five minutes."""

_logger: Final = logging.getLogger(__name__)

_CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
_SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"


class _Meaning(Enum):
    """The requests that are denied after an event."""

    SESSION = auto()
    """Those of the session that the subject names, or else of its user."""
    USER = auto()
    """Those of the user, until a new login."""
    CHANGED = auto()
    """Those of the user, if the change makes earlier logins doubtful."""
    NOBODY = auto()
    """None: a transmitter tests its stream, or an account can be used again."""


_EVENTS: Final[Mapping[str, _Meaning]] = {
    f"{_CAEP}session-revoked": _Meaning.SESSION,
    f"{_CAEP}credential-change": _Meaning.CHANGED,
    f"{_RISC}account-disabled": _Meaning.USER,
    f"{_RISC}account-purged": _Meaning.USER,
    f"{_RISC}sessions-revoked": _Meaning.USER,
    f"{_RISC}credential-compromise": _Meaning.USER,
    f"{_RISC}account-enabled": _Meaning.NOBODY,
    f"{_SSF}verification": _Meaning.NOBODY,
}
"""The events that are accepted."""

_CHANGES: Final = {"create": False, "revoke": True, "update": True, "delete": True}
"""Changes of a credential (CAEP 1.0 section 3.3), and whether they make earlier logins doubtful: adding one does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEvent:
    """A verified token: its issuer, its revocation if any, when it was made, and a digest that identifies it."""

    issuer: str
    revoked: Revocation | None
    made: int
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, claims: Claims, kind: str, issuer: str, revoked: Revocation | None, made: int) -> ReportedEvent:
        """Return the event of a token of the type `kind` with these claims.

        The digest is over issuer, `jti` and revocation: if an issuer uses an id twice, both tokens are handled.
        """
        says = [kind, issuer, claims.text("jti"), *((revoked.kind, revoked.id, revoked.at) if revoked else ())]
        digest = sha256(json.dumps(says).encode()).digest()[:DIGEST_BYTES]
        return cls(issuer=issuer, revoked=revoked, made=made, digest=digest)


class SecurityEventVerifier:
    """A verifier of reports of the `issuers`, with the keys from `keys`; `guard` remembers the tokens that were handled.

    Raises nothing but `EdgeError`: 400 with the word of RFC 8935 section 2.4 (`invalid_request`, `invalid_key`,
    `invalid_issuer`, `invalid_audience`), and `KeysUnavailable` (503) if the issuer's keys are not available.
    """

    def __init__(
        self, issuers: Sequence[Issuer], keys: KeySource, guard: ReplayGuard, limits: EdgeLimits = DEFAULT_EDGE_LIMITS
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = keys
        self._guard = guard
        self._limits = limits

    async def event(self, token: str, *, now: int) -> ReportedEvent:
        """Return the event that the security event token `token` reports.

        Verified: the header (as of an access token, but for `typ`), issuer, key, signature, audience (`event_audiences`),
        `iat`, `jti`; that there is neither `sub` nor `exp` (SSF 1.0), and exactly one event; and a subject that stands for an
        id of this issuer: `iss_sub`, `opaque`, or `complex` with one of these. `opaque` alone is a session to
        session-revoked, as in CAEP's examples, and a user to all else. Of a `complex` subject the session counts if the event
        is about sessions, else the user. Other parts only narrow the subject, so ignoring them revokes rather more.

        A subject that stands for no id, such as `email`, is refused. So is an event from before the time that the list of
        revocations covers: accepting it would confirm a revocation that has no effect.
        """
        with _refusing("invalid_request"):
            issuer, claims = await self._verified(token, EVENT_TOKEN_TYPE, lambda row: row.event_audiences, now)
            for name in ("sub", "exp"):
                if name in claims:
                    raise TokenRefused(f"{name}: not in a security event token")
            issued = self._issued(claims, now)
            subject = Claims(claims.members("sub_id"))
            kind, event = _one_event(claims)
            # The event was not after its token, whatever it says.
            at = min(issued, event.time("event_timestamp")) if "event_timestamp" in event else issued
            revoked = _revoked(issuer, kind, event, subject, at)
            if revoked is not None:
                _listable(at, now)
            return ReportedEvent.of(claims, EVENT_TOKEN_TYPE, issuer.issuer, revoked, issued)

    async def logout(self, token: str, *, now: int) -> ReportedEvent:
        """Return the logout that the logout token `token` reports: of the session `sid`, or else of its user until `iat`.

        Verified (Back-Channel Logout section 2.6): the header (as of an access token, but for `typ`), issuer, key, signature,
        audience (`logout_audiences`), `iat`, not longer ago than the list keeps, `exp`, `jti`; that it has the one event, an
        empty object, and `sub` or `sid` or both, and no `nonce`, with which it would be an ID token.
        """
        with _refusing("invalid_request"):
            issuer, claims = await self._verified(token, LOGOUT_TOKEN_TYPE, lambda row: row.logout_audiences, now)
            if "nonce" in claims:
                raise TokenRefused("nonce: not in a logout token")
            issued = self._issued(claims, now)
            if now >= claims.time("exp"):
                raise TokenRefused("exp", code=Code.TOKEN_EXPIRED)
            if claims.members("events") != {BACKCHANNEL_LOGOUT: {}}:
                raise TokenRefused("events")
            user = claims.text("sub") if "sub" in claims else ""
            session = claims.text("sid") if "sid" in claims else ""
            if not (user or session):
                raise TokenRefused("neither sub nor sid")
            _listable(issued, now)
            kind: Literal["session", "user"] = "session" if session else "user"
            revoked = Revocation(kind=kind, issuer=issuer.issuer, id=session or user, at=issued)
            return ReportedEvent.of(claims, LOGOUT_TOKEN_TYPE, issuer.issuer, revoked, issued)

    async def handled(self, event: ReportedEvent) -> bool:
        """Return whether a process of the edge is known to have handled `event`."""
        with suppress(StateUnavailable, BusUnavailable):
            return await self._guard.used(event.digest, made=event.made - self._limits.future_seconds * SECOND)
        return False

    async def remember(self, event: ReportedEvent, *, now: int) -> None:
        """Remember for `HANDLED_FOR` that `event` was handled; log a warning if that cannot be stored."""
        made = event.made - self._limits.future_seconds * SECOND
        try:
            await self._guard.use(event.digest, made=made, until=now + HANDLED_FOR)
        except (StateUnavailable, BusUnavailable, IdentityUnavailable) as error:
            _logger.warning("cannot remember that a report of %s was handled: %s", event.issuer, error.detail)

    async def _verified(
        self, token: str, kind: str, audiences: Callable[[Issuer], frozenset[str]], now: int
    ) -> tuple[Issuer, Claims]:
        """Return the row of the token's issuer and its claims, once its signature and audience are verified."""
        if len(token) > self._limits.token_bytes:
            raise TokenRefused("too long")
        parts = parsed(token, self._limits)
        if parts is None:
            raise TokenRefused("not a JWT in compact form")
        jws, header, says = parts
        name = says.get("iss")
        issuer = self._issuers.get(name) if type(name) is str else None
        if issuer is None or not audiences(issuer):
            raise EdgeError(Code.UNKNOWN_ISSUER, 400, "iss", error="invalid_issuer")
        algorithm, kid = checked_header(header, {kind}, issuer.algorithms, self._limits)
        with _refusing("invalid_key"):
            key = await self._keys.key(issuer, kid, algorithm, now=now)
            if not is_signed(jws, algorithm, key):
                raise TokenRefused("signature")
        claims = Claims(says)
        with _refusing("invalid_audience"):
            if audiences(issuer).isdisjoint(claims.audiences("aud")):
                raise TokenRefused("aud", code=Code.TOKEN_AUDIENCE)
        return issuer, claims

    def _issued(self, claims: Claims, now: int) -> int:
        issued = claims.time("iat")
        if issued > now + self._limits.future_seconds * SECOND:
            raise TokenRefused("iat is in the future")
        return issued


def _listable(at: int, now: int) -> None:
    """Refuse a time so long ago that the list of revocations would drop it at once, with no effect."""
    if at <= now - KEPT:
        raise TokenRefused("too long ago")


@contextmanager
def _refusing(word: str) -> Iterator[None]:
    """Turn refusals of tokens, which are 401, into 400 with `word`."""
    try:
        yield
    except TokenRefused as error:
        raise EdgeError(error.code, 400, error.detail, error=word) from error


def _one_event(claims: Claims) -> tuple[str, Claims]:
    """Return the kind and the payload of the one event (CAEP Interoperability Profile)."""
    events = claims.members("events")
    if len(events) != 1:
        raise TokenRefused("events: not exactly one")
    [(kind, payload)] = events.items()
    if type(payload) is not dict:
        raise TokenRefused("events: no object")
    return kind, Claims(payload)


def _revoked(issuer: Issuer, kind: str, event: Claims, subject: Claims, at: int) -> Revocation | None:
    means = _EVENTS.get(kind)
    if means is None:
        raise TokenRefused("events: of a kind that is not taken")
    form = subject.text("format")
    if means is _Meaning.NOBODY:
        return None
    of: Literal["session", "user"] = "user"
    if form == "complex":
        if means is _Meaning.SESSION and "session" in subject:
            of = "session"
        identifier, _ = _identified(issuer, Claims(subject.members(of)))
    else:
        identifier, opaque = _identified(issuer, subject)
        if means is _Meaning.SESSION and opaque:
            of = "session"
    if means is _Meaning.CHANGED and not _makes_doubtful(event):
        return None
    return Revocation(kind=of, issuer=issuer.issuer, id=identifier, at=at)


def _makes_doubtful(event: Claims) -> bool:
    """Return whether a change of a credential makes earlier logins doubtful."""
    event.text("credential_type")
    doubtful = _CHANGES.get(event.text("change_type"))
    if doubtful is None:
        raise TokenRefused("change_type")
    return doubtful


def _identified(issuer: Issuer, subject: Claims) -> tuple[str, bool]:
    """Return the id of a simple subject (RFC 9493 section 3.2) of this issuer, and whether its format is `opaque`."""
    form = subject.text("format")
    if form == "iss_sub":
        if subject.text("iss") != issuer.issuer:
            raise TokenRefused("sub_id: of another issuer")
        return subject.text("sub"), False
    if form == "opaque":
        return subject.text("id"), True
    raise TokenRefused("sub_id: of a format that stands for no id")
