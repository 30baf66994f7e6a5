"""Who looks at the console: people's logins, kept in memory, each behind a cookie that only the console's own pages send.

A session is an access token for the edge, and what renews it where the provider gives that: what its user may see and do is
asked at the edge. No token leaves this process but to the edge and the provider; a restart ends all sessions.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final

from sealbus.agents.login.token_answer import Tokens

__all__ = ["LOGIN", "SESSION", "PendingLogin", "Session", "Sessions", "cookie", "cookie_value"]

SESSION: Final = "sealbus_console"
LOGIN: Final = "sealbus_login"
SESSIONS: Final = 1_000
"""Sessions at a time; the one that was used longest ago makes room."""
PENDING: Final = 1_000
"""Logins that have begun and not ended."""
PENDING_LIFE: Final = 600 * 1_000_000
"""Microseconds for which a login may take."""


@dataclass(slots=True)
class Session:
    """One person in one browser. `tokens` are replaced when the access token is renewed."""

    tokens: Tokens = field(repr=False)
    name: str = ""
    idp: str = ""
    ended: bool = False
    """Whether its person has left, it made room for others, or its provider renews it no longer."""
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held while it is renewed: a provider may end a login whose refresh token is used twice."""
    renew_after: int = 0
    """Microseconds since 1970 before which it is not tried again."""

    def lives(self, now: int) -> bool:
        """Return whether its access token counts at `now` (microseconds)."""
        return not self.ended and self.tokens.expires > now

    def may_live(self, now: int) -> bool:
        """Return whether it counts at `now`, or would if it were renewed."""
        return not self.ended and (self.tokens.expires > now or self.tokens.refresh_token is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingLogin:
    """A login that has begun: where it is to end, and what proves that an answer belongs to it."""

    to: str
    verifier: str = field(repr=False)
    state: str = field(repr=False)
    begun: int
    acr: str | None = None


class Sessions:
    """The sessions and the logins under way of one console. Values of cookies are kept as hashes only."""

    def __init__(self, *, most: int = SESSIONS) -> None:
        self._most = most
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._pending: OrderedDict[bytes, PendingLogin] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, value: str, *, now: int) -> Session | None:
        """Return the session behind a cookie's `value`; None if there is none, or it has ended for good."""
        key = _hash(value)
        session = self._sessions.get(key)
        if session is None:
            return None
        if not session.may_live(now):
            del self._sessions[key]
            return None
        self._sessions.move_to_end(key)
        return session

    def begin(self, session: Session) -> str:
        """Keep `session`, and return its cookie's value."""
        value = secrets.token_urlsafe(32)
        self._sessions[_hash(value)] = session
        if len(self._sessions) > self._most:
            _, longest = self._sessions.popitem(last=False)
            longest.ended = True
        return value

    def end(self, value: str) -> Session | None:
        """Forget the session behind `value`, and return it."""
        session = self._sessions.pop(_hash(value), None)
        if session is not None:
            session.ended = True
        return session

    def begin_login(self, login: PendingLogin) -> str:
        """Keep a login that begins, and return its cookie's value."""
        value = secrets.token_urlsafe(32)
        self._pending[_hash(value)] = login
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)
        return value

    def end_login(self, value: str, state: str, *, now: int) -> PendingLogin | None:
        """Return the login behind `value` that `state` belongs to, once; None if there is none."""
        login = self._pending.pop(_hash(value), None)
        if login is None or now - login.begun > PENDING_LIFE:
            return None
        return login if hmac.compare_digest(login.state.encode(), state.encode()) else None


def cookie(name: str, value: str, *, secure: bool, same_site: str, seconds: int | None = None) -> str:
    """Return the value of a Set-Cookie field; `seconds` 0 removes it."""
    said = [f"{cookie_name(name, secure=secure)}={value}", "Path=/", "HttpOnly", f"SameSite={same_site}"]
    if secure:
        said.append("Secure")
    if seconds is not None:
        said.append(f"Max-Age={seconds}")
    return "; ".join(said)


def cookie_value(header: str, name: str, *, secure: bool) -> str:
    """Return the value of a cookie in the Cookie field `header`; empty if it is not there."""
    try:
        found = SimpleCookie(header).get(cookie_name(name, secure=secure))
    except CookieError:
        return ""
    return found.value if found is not None else ""


def cookie_name(name: str, *, secure: bool) -> str:
    """Return the name with the prefix that makes browsers take it from this host alone, which needs https."""
    return f"__Host-{name}" if secure else name


def _hash(value: str) -> bytes:
    return sha256(value.encode()).digest()
