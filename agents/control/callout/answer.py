"""What the server is answered: a user JWT that says what a connection may do, or that there is none; both signed by us.

The user has no name: with one, nats-server drops every client at every reload of its configuration, for it looks for a
user of this name there. Without one it asks again for each client, and keeps those that are still allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sealbus.agents.control.callout.grants import Grants
from sealbus.agents.control.callout.jwts import encode_jwt
from sealbus.agents.control.callout.nkeys import SigningKey
from sealbus.agents.control.callout.request import AuthorizationRequest
from sealbus.envelopes.errors import Code
from sealbus.envelopes.limits import SECOND

__all__ = ["allowing", "refusing", "user_jwt"]

_VERSION: Final = 2


def user_jwt(grants: Grants, *, user: str, issuer: SigningKey, not_after: int, now: int) -> str:
    """Return the user JWT for the nkey `user`: `grants` in their account, until `not_after`, both in microseconds."""
    limits = grants.limits
    nats: dict[str, object] = {
        "type": "user",
        "version": _VERSION,
        "pub": _permission(grants.publish, grants.publish_deny),
        "sub": _permission(grants.subscribe, grants.subscribe_deny),
        "subs": limits.subscriptions,
        "data": limits.data,
        "payload": limits.payload,
    }
    claims: Mapping[str, object] = {"sub": user, "aud": grants.account, "exp": not_after // SECOND, "nats": nats}
    return encode_jwt(claims, issuer, issued=now // SECOND)


def allowing(request: AuthorizationRequest, token: str, *, issuer: SigningKey, now: int) -> bytes:
    """Return the answer that lets the connection of `request` in with the user JWT `token`."""
    return _answer(request, {"jwt": token}, issuer, now)


def refusing(request: AuthorizationRequest, code: Code, *, issuer: SigningKey, now: int) -> bytes:
    """Return the answer that refuses the connection of `request`; the server logs the code, its client hears nothing."""
    return _answer(request, {"error": str(code)}, issuer, now)


def _permission(allow: tuple[str, ...], deny: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(allow), **({"deny": list(deny)} if deny else {})}


def _answer(request: AuthorizationRequest, content: Mapping[str, str], issuer: SigningKey, now: int) -> bytes:
    nats = {"type": "authorization_response", "version": _VERSION, **content}
    claims: Mapping[str, object] = {"sub": request.user, "aud": request.server, "nats": nats}
    return encode_jwt(claims, issuer, issued=now // SECOND).encode()
