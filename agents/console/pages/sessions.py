"""Who looks at the console: people's logins, kept in memory, each behind a cookie that only the console's own pages send.

A session is an access token for the edge, and what renews it where the provider gives that: what its user may see and do is
asked at the edge. No token leaves this process but to the edge and the provider; a restart ends all sessions.

A login that has begun is not kept: it is sealed in its browser's cookie. Anybody can begin one, so whatever bound the console
had on those that it keeps, strangers could fill.
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
"""Sessions at a time. Of those of the person who has most, the one that was used longest ago makes room."""
PENDING_LIFE: Final = 600 * 1_000_000
"""Microseconds for which a login may take."""
_KEY_BITS: Final = 256
_NONCE_BYTES: Final = 12
_SEALED_FOR: Final = b"sealbus console login v1"
"""What a sealed login is bound to: nothing else under a key of ours is taken for one."""


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

    @property
    def person(self) -> tuple[str, str]:
        """Whose it is, as the edge has said; empty before it was asked."""
        return self.idp, self.name

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


class LoginSeal:
    """Seals logins under a key that this process alone has: a restart ends those that have begun."""

    def __init__(self) -> None:
        self._cipher = AESGCM(AESGCM.generate_key(_KEY_BITS))

    def seal(self, login: PendingLogin) -> str:
        """Return the value of a cookie that holds `login`; nobody else can read it or make one."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        content = json.dumps([login.to, login.verifier, login.state, login.begun]).encode()
        return urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, content, _SEALED_FOR)).rstrip(b"=").decode()

    def open(self, value: str, state: str, *, now: int) -> PendingLogin | None:
        """Return the login in a cookie's `value` that `state` belongs to; None for any other, or one that is too old.

        It can be opened again within `PENDING_LIFE`: the provider takes the code of its answer once.
        """
        try:
            sealed = urlsafe_b64decode(value + "=" * (-len(value) % 4))
            content = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _SEALED_FOR)
        except (InvalidTag, ValueError):
            return None
        to, verifier, kept, begun = json.loads(content)
        if not 0 <= now - begun <= PENDING_LIFE or not hmac.compare_digest(kept.encode(), state.encode()):
            return None
        return PendingLogin(to=to, verifier=verifier, state=kept, begun=begun)


class Sessions:
    """The sessions of one console. Values of cookies are kept as hashes only."""

    def __init__(self, *, most: int = SESSIONS) -> None:
        self._most = most
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

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
        """Keep `session`, and return its cookie's value.

        If there are too many, one of whoever has most ends: nobody who logs in again and again ends another's. Those of whom
        nobody has asked yet who they are count as one person's.
        """
        value = secrets.token_urlsafe(32)
        self._sessions[_hash(value)] = session
        if len(self._sessions) > self._most:
            counts = Counter(one.person for one in self._sessions.values())
            most = max(counts.values())
            key = next(key for key, one in self._sessions.items() if counts[one.person] == most)
            self._sessions.pop(key).ended = True
        return value

    def end(self, value: str) -> Session | None:
        """Forget the session behind `value`, and return it."""
        session = self._sessions.pop(_hash(value), None)
        if session is not None:
            session.ended = True
        return session


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
