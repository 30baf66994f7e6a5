"""Keep the sessions of logged-in people in memory, each behind a cookie that only the console's own pages send.

A session has an access token for the edge, and a refresh token if the provider issues it. The edge is asked what the person
may see and do. Tokens leave this process only to the edge and the provider. A restart ends all sessions.

A login that has begun is not kept here: it is sealed in a cookie of its browser. Anybody can begin a login, so strangers
could fill any bounded store of begun logins.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealbus.agents.login.token_answer import Tokens

SESSION: Final = "sealbus_console"
LOGIN: Final = "sealbus_login"
SESSIONS: Final = 1_000
"""Sessions at a time. The person with the most sessions loses the one that was unused for longest."""
PENDING_LIFE: Final = 600 * 1_000_000
"""Microseconds that a login may take."""
_KEY_BITS: Final = 256
_NONCE_BYTES: Final = 12
_SEALED_FOR: Final = b"sealbus console login v1"
"""Associated data of a sealed login: no other text sealed under the key is accepted as a login."""


@dataclass(slots=True)
class Session:
    """One person's session in one browser. Renewing it replaces `tokens`."""

    tokens: Tokens = field(repr=False)
    name: str = ""
    idp: str = ""
    ended: bool = False
    """Whether the person has logged out, the session made room for others, or the provider refuses to renew it."""
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    """Held while the tokens are renewed: a provider may end a login whose refresh token is used twice."""
    renew_after: int = 0
    """Microseconds since 1970 before which no renewal is tried."""

    @property
    def person(self) -> tuple[str, str]:
        """The identity provider and name of the person, from the edge; empty before the edge was asked."""
        return self.idp, self.name

    def lives(self, now: int) -> bool:
        """Return whether the access token is valid at `now` (microseconds)."""
        return not self.ended and self.tokens.expires > now

    def may_live(self, now: int) -> bool:
        """Return whether the session is valid at `now`, or could be renewed."""
        return not self.ended and (self.tokens.expires > now or self.tokens.refresh_token is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingLogin:
    """A login that has begun: the page it leads to, and the secrets that tie an answer to it."""

    to: str
    verifier: str = field(repr=False)
    state: str = field(repr=False)
    begun: int


class LoginSeal:
    """Seals begun logins under a key that only this process has. A restart ends them."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(_KEY_BITS))

    def seal(self, login: PendingLogin) -> str:
        """Return the value of a cookie that holds `login`, encrypted and authenticated."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        content = json.dumps([login.to, login.verifier, login.state, login.begun]).encode()
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, content, _SEALED_FOR)).rstrip(b"=").decode()

    def open(self, value: str, state: str, *, now: int) -> PendingLogin | None:
        """Return the login in a cookie's `value` if `state` belongs to it and it is not too old; otherwise None.

        It can be opened again within `PENDING_LIFE`. The provider accepts the code of its answer only once.
        """
        try:
            sealed = urlsafe_b64decode(value + "=" * (-len(value) % 4))
            content = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _SEALED_FOR)
        except (InvalidTag, ValueError):
            return None
        to, verifier, expected, begun = json.loads(content)
        if not 0 <= now - begun <= PENDING_LIFE or not hmac.compare_digest(expected.encode(), state.encode()):
            return None
        return PendingLogin(to=to, verifier=verifier, state=expected, begun=begun)


class Sessions:
    """The sessions of one console. Values of cookies are kept as hashes only."""

    def __init__(self, *, most: int = SESSIONS) -> None:
        self._most = most
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, value: str, *, now: int) -> Session | None:
        """Return the session behind a cookie's `value`; None without a session, or if it has ended for good."""
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
        """Keep `session`, and return its cookie's value.

        If there are too many sessions, one of the person with the most ends, so that nobody can end another person's by many
        logins. Sessions whose person is not known yet count as one person's.
        """
        value = secrets.token_urlsafe(32)
        self._sessions[_hash(value)] = session
        if len(self._sessions) > self._most:
            counts = Counter(other.person for other in self._sessions.values())
            most = max(counts.values())
            key = next(key for key, other in self._sessions.items() if counts[other.person] == most)
            self._sessions.pop(key).ended = True
        return value

    def end(self, value: str) -> Session | None:
        """Forget the session behind `value`, and return it."""
        session = self._sessions.pop(_hash(value), None)
        if session is not None:
            session.ended = True
        return session


def cookie(name: str, value: str, *, secure: bool, same_site: str, seconds: int | None = None) -> str:
    """Return the value of a Set-Cookie field; `seconds` 0 removes the cookie."""
    parts = [f"{cookie_name(name, secure=secure)}={value}", "Path=/", "HttpOnly", f"SameSite={same_site}"]
    if secure:
        parts.append("Secure")
    if seconds is not None:
        parts.append(f"Max-Age={seconds}")
    return "; ".join(parts)


def cookie_value(header: str, name: str, *, secure: bool) -> str:
    """Return the value of a cookie in the Cookie field `header`; empty without the cookie."""
    try:
        morsel = SimpleCookie(header).get(cookie_name(name, secure=secure))
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def cookie_name(name: str, *, secure: bool) -> str:
    """Return the name of a cookie. With https it has the prefix by which browsers accept it from this host alone."""
    return f"__Host-{name}" if secure else name


def _hash(value: str) -> bytes:
    return sha256(value.encode()).digest()
