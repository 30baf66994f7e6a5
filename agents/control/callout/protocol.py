"""Requests of a NATS server to the auth callout, verified and typed, and the answers: a user JWT or a refusal.

The server signs its request with the nkey that is its ID. That key is new at every start of a server. So the way of a request
ties it to one of our servers: it comes on a connection to a server with the expected SPIFFE ID, on a subject that no client
may publish to, sealed for our curve key. Operators of servers with fixed nkeys can list them.

The user in the answer has no name: with a name, nats-server drops every client at each reload of its configuration, because
it looks for a user of this name there. Without a name it asks again for each client, and keeps the clients that are still
allowed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from sealbus.agents.control.callout.nkeys import NkeyError, Prefix, SigningKey, decode_jwt, decode_public, encode_jwt
from sealbus.agents.control.callout.permissions import Grants
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

AUDIENCE: Final = "nats-authorization-request"
LONGEST: Final = 120 * SECOND
"""Longest validity of a request, in microseconds: a request that is valid for longer could be stored and sent again."""
KIND: Final = "Client"
CHAINS: Final = 8
CERTIFICATES: Final = 8
"""Most verified chains of a connection, and most certificates of a chain."""

_CLAIMS_VERSION: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """One connection that a server asks about.

    `server` is the server's nkey and `server_xkey` its curve key, empty if it has none. `user` is the nkey that the
    server made for this attempt. `chains` are PEM certificates, each chain from the leaf to a root, as the server
    verified them: empty without a client certificate. `expires` is in seconds. `timeout` is the number of seconds that the
    server waits for an answer, 0 if it does not say since when.
    """

    server: str
    server_name: str
    server_xkey: str
    user: str
    expires: int
    timeout: int
    chains: tuple[tuple[str, ...], ...] = field(repr=False)


def verify_request(token: bytes, *, now: int, servers: Collection[str] = ()) -> AuthorizationRequest:
    """Return the request in `token`; `now` is in microseconds.

    It verifies the form, the signature by the server that the request names as its issuer, the audience, that the request is
    about a client, and the expiry, at most two minutes ahead, with the clock tolerance of SPEC.md section 7. Raises
    `ConnectRefused` with `bad_auth_request`, `unknown_server` if `servers` are given and do not include it, or
    `auth_request_expired`.
    """
    try:
        claims = decode_jwt(token, Prefix.SERVER)
    except NkeyError as error:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, str(error)) from error
    request = _object(claims, "nats")
    server = _object(request, "server_id")
    issuer = claims["iss"]
    if claims.get("aud") != AUDIENCE or request.get("type") != "authorization_request":
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "not an authorization request")
    if not isinstance(issuer, str) or server.get("id") != issuer:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "not signed by the server that it names")
    if servers and issuer not in servers:
        raise ConnectRefused(Code.UNKNOWN_SERVER, issuer)
    expires = claims.get("exp")
    if type(expires) is not int:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "without an expiry")
    if expires * SECOND < now - DEFAULT_LIMITS.clock_skew:
        raise ConnectRefused(Code.AUTH_REQUEST_EXPIRED)
    if expires * SECOND > now + LONGEST + DEFAULT_LIMITS.clock_skew:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "valid for too long")
    user = _text(request, "user_nkey")
    xkey = _text(server, "xkey")
    try:
        decode_public(user, Prefix.USER)
        if xkey:
            decode_public(xkey, Prefix.CURVE)
    except NkeyError as error:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "its keys are not nkeys") from error
    client = _object(request, "client_info")
    # A leaf node would admit all clients of a server under the name of one workload.
    if _text(client, "kind") != KIND:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "not about a client")
    return AuthorizationRequest(
        server=issuer,
        server_name=_text(server, "name"),
        server_xkey=xkey,
        user=user,
        expires=expires,
        timeout=_timeout(claims.get("iat"), expires),
        chains=_chains(request.get("client_tls")),
    )


def _timeout(issued: Json, expires: int) -> int:
    return max(0, min(expires - issued, LONGEST // SECOND)) if type(issued) is int else 0


def _chains(tls: Json) -> tuple[tuple[str, ...], ...]:
    chains = tls.get("verified_chains") if isinstance(tls, dict) else None
    if chains is None:
        return ()
    if not isinstance(chains, list) or len(chains) > CHAINS:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "its certificate chains are not a list, or too many")
    return tuple(_chain(chain) for chain in chains)


def _chain(chain: Json) -> tuple[str, ...]:
    if not isinstance(chain, list) or not 1 <= len(chain) <= CERTIFICATES:
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "a certificate chain is empty or too long")
    texts = tuple(certificate for certificate in chain if isinstance(certificate, str))
    if len(texts) != len(chain):
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, "a certificate is not a text")
    return texts


def _object(inside: dict[str, Json], name: str) -> dict[str, Json]:
    member = inside.get(name, {})
    if not isinstance(member, dict):
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, f"{name} is not an object")
    return member


def _text(inside: dict[str, Json], name: str) -> str:
    member = inside.get(name, "")
    if not isinstance(member, str):
        raise ConnectRefused(Code.BAD_AUTH_REQUEST, f"{name} is not a text")
    return member[: DEFAULT_LIMITS.text_bytes]


def user_jwt(grants: Grants, *, user: str, issuer: SigningKey, not_after: int, now: int) -> str:
    """Return the user JWT for the nkey `user`: `grants` in their account, until `not_after`, both in microseconds."""
    limits = grants.limits
    nats: dict[str, object] = {
        "type": "user",
        "version": _CLAIMS_VERSION,
        "pub": _permission(grants.publish, grants.publish_deny),
        "sub": _permission(grants.subscribe, grants.subscribe_deny),
        "subs": limits.subscriptions,
        "data": limits.data,
        "payload": limits.payload,
    }
    claims: Mapping[str, object] = {"sub": user, "aud": grants.account, "exp": not_after // SECOND, "nats": nats}
    return encode_jwt(claims, issuer, issued=now // SECOND)


def allowing(request: AuthorizationRequest, token: str, *, issuer: SigningKey, now: int) -> bytes:
    """Return the answer that admits the connection of `request` with the user JWT `token`."""
    return _answer(request, {"jwt": token}, issuer, now)


def refusing(request: AuthorizationRequest, code: Code, *, issuer: SigningKey, now: int) -> bytes:
    """Return the answer that refuses the connection of `request`; the server logs the code, and does not tell its client."""
    return _answer(request, {"error": str(code)}, issuer, now)


def _permission(allow: tuple[str, ...], deny: tuple[str, ...]) -> dict[str, list[str]]:
    return {"allow": list(allow), **({"deny": list(deny)} if deny else {})}


def _answer(request: AuthorizationRequest, content: Mapping[str, str], issuer: SigningKey, now: int) -> bytes:
    nats = {"type": "authorization_response", "version": _CLAIMS_VERSION, **content}
    claims: Mapping[str, object] = {"sub": request.user, "aud": request.server, "nats": nats}
    return encode_jwt(claims, issuer, issued=now // SECOND).encode()
