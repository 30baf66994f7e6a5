"""Security event tokens and logout tokens of a `LoopbackIssuer`, and an agent in the revoker's place that remembers.

::

    told = Told()
    async with door(told.agent, row=REPORTS) as edge:
        answer = await report(edge, event_token(edge.issuer, SESSION_REVOKED, opaque("session-1")))
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx2
from joserfc.jwk import Key
from support.edge import Door
from support.issuer import LoopbackIssuer, compact, signed

from sealbus import Agent, Context
from sealbus.agents.runtime.policy.revocation import Revocation

__all__ = [
    "ACCOUNT_DISABLED",
    "CLIENT_ID",
    "CREDENTIAL_CHANGE",
    "EVENTS_URL",
    "LOGOUT",
    "LOGOUT_URL",
    "RECEIVER",
    "REPORTS",
    "SESSION_REVOKED",
    "VERIFICATION",
    "Told",
    "event_token",
    "iss_sub",
    "log_out",
    "logout_token",
    "opaque",
    "report",
]

RECEIVER = "https://edge.example/events"
CLIENT_ID = "shop-web"
REPORTS: Mapping[str, Any] = {"event_audiences": (RECEIVER,), "logout_audiences": (CLIENT_ID,)}
"""What a row says of an issuer that reports both."""

EVENTS_URL, LOGOUT_URL = "/v1/security-events", "/v1/backchannel-logout"

_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SESSION_REVOKED = f"{_CAEP}session-revoked"
CREDENTIAL_CHANGE = f"{_CAEP}credential-change"
ACCOUNT_DISABLED = f"{_RISC}account-disabled"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


class Told:
    """An agent `revoker` that publishes nothing, and remembers what it was told."""

    def __init__(self) -> None:
        self.agent = Agent("revoker")
        self.of: list[Revocation] = []

        @self.agent.call("revoke", facts=["kind", "issuer", "at"])
        async def revoke(body: Revocation, ctx: Context) -> None:
            del ctx
            self.of.append(body)


def opaque(one: str) -> dict[str, str]:
    return {"format": "opaque", "id": one}


def iss_sub(issuer: LoopbackIssuer, user: str) -> dict[str, str]:
    return {"format": "iss_sub", "iss": issuer.issuer, "sub": user}


def event_token(
    issuer: LoopbackIssuer,
    kind: str = SESSION_REVOKED,
    subject: object = None,
    payload: object = None,
    *,
    header: Mapping[str, Any] | None = None,
    key: Key | None = None,
    **claims: Any,
) -> str:
    """Return a good event token of session-1; `header` and `claims` replace, None removes."""
    said = {
        "iss": issuer.issuer,
        "jti": "event-1",
        "iat": int(time.time()),
        "aud": RECEIVER,
        "sub_id": opaque("session-1") if subject is None else subject,
        "events": {kind: {} if payload is None else payload},
        **claims,
    }
    return _signed(issuer, said, {"typ": "secevent+jwt", **(header or {})}, key)


def logout_token(
    issuer: LoopbackIssuer, *, header: Mapping[str, Any] | None = None, key: Key | None = None, **claims: Any
) -> str:
    """Return a good logout token of session-1; `header` and `claims` replace, None removes."""
    second = int(time.time())
    said = {
        "iss": issuer.issuer,
        "jti": "logout-1",
        "iat": second,
        "exp": second + 120,
        "aud": CLIENT_ID,
        "sub": "alice",
        "sid": "session-1",
        "events": {LOGOUT: {}},
        **claims,
    }
    return _signed(issuer, said, {"typ": "logout+jwt", **(header or {})}, key)


def _signed(issuer: LoopbackIssuer, claims: Mapping[str, Any], header: Mapping[str, Any], key: Key | None) -> str:
    kept = {name: value for name, value in claims.items() if value is not None}
    return compact(issuer.header(**header), kept, signed(issuer.algorithm, key or next(iter(issuer.keys.values()))))


async def report(edge: Door, token: str | bytes, *, content_type: str = "application/secevent+jwt") -> httpx2.Response:
    """POST an event token."""
    return await edge.http.post(EVENTS_URL, content=token, headers={"Content-Type": content_type})


async def log_out(edge: Door, token: str) -> httpx2.Response:
    """POST a logout token."""
    return await edge.http.post(LOGOUT_URL, data={"logout_token": token})
