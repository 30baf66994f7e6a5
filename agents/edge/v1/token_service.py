"""`POST /token`: a workload exchanges a user's access token (RFC 8693) or an assertion (RFC 7523) for a user context.

The caller is identified by its X.509-SVID (mutual TLS, `peer.py`); there are no client secrets. The context starts a chain
only if that workload seals the message (`wkl`, SPEC.md section 6), so a copy is of no use to others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.application import Application, Methods
from sealbus.agents.edge.http.bodies import read_form
from sealbus.agents.edge.http.peer import PEER, Peer
from sealbus.agents.edge.http.problem import HEADERS, STATUS, EdgeError, TokenRefused, too_often
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.sdk.token_exchange import USER_CONTEXT_TYPE, context_token
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import parse_payload

TOKEN_PATH: Final = "/token"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
"""The type of an assertion that is the `subject_token` of an exchange."""


def token_app(front: Front) -> Application:
    """Return the application of the token service; to be served by `PeerProtocol` only."""
    limits = front.limits
    workloads = front.buckets(limits.workload_rate, limits.workload_burst)

    async def exchange(request: Request) -> Response:
        peer = _peer(request, front.node.clock())
        wait = workloads.take(peer.spiffe_id)
        if wait:
            raise too_often(wait)
        form = await read_form(request, limits)
        grant = _checked(form, front.node.own.trust_domain.name)
        now = front.node.clock()
        try:
            assertion = await front.asserted(grant.token, presenter=peer.spiffe_id, now=now) if grant.asserts else None
            token = assertion.contents if assertion is not None else await _unbound(front, grant.token, now)
            statement = front.context(_narrowed(token, form.get("scope")), request, peer.spiffe_id)
            if assertion is not None:
                # Last, so that the assertion can be sent again after any other refusal.
                await front.assertions.use(assertion)
            else:
                await front.keep(grant.token, token, now=now)
        except TokenRefused as error:
            # A refused token gives `invalid_request` (RFC 8693 section 2.2.2) or `invalid_grant` (RFC 7523 section 3.1),
            # never `invalid_client`.
            raise EdgeError(error.code, 400, error.detail, error=grant.error) from error
        return _json(
            {
                "access_token": context_token(statement),
                "issued_token_type": USER_CONTEXT_TYPE,
                "token_type": "N_A",
                "expires_in": max(0, (parse_payload(statement.payload).exp - now) // SECOND),
            },
            200,
        )

    node = front.node
    routes = [Route(TOKEN_PATH, Methods(POST=exchange))]
    return Application(routes, answer_of=_refusal, counters=node.counters, tracer=node.tracer)


def _peer(request: Request, now: int) -> Peer:
    peer = request.scope.get(PEER)
    if not isinstance(peer, Peer) or peer.expires <= now:
        # A connection may outlive its client's certificate. Then nothing more can be requested over it.
        raise EdgeError(Code.CREDENTIAL_EXPIRED, 401, "the client's X.509-SVID has expired", error="invalid_client")
    return peer


@dataclass(frozen=True, slots=True)
class _Grant:
    """The token that is exchanged, whether it is an assertion, and the OAuth error if it is refused."""

    token: str = field(repr=False)
    asserts: bool
    error: str


async def _unbound(front: Front, text: str, now: int) -> AccessToken:
    token = await front.verified(text, now=now)
    if token.bound is not None:
        # The workload that exchanges it does not hold that key.
        raise TokenRefused("cnf: the token is bound to a key")
    return token


def _checked(form: Mapping[str, str], trust_domain: str) -> _Grant:
    """Return the grant of a request for a user context; raise for any other request."""
    grant = form.get("grant_type")
    if grant not in (GRANT_TYPE, ASSERTION_GRANT):
        raise EdgeError(
            Code.MALFORMED, 400, f"grant_type must be {GRANT_TYPE} or {ASSERTION_GRANT}", error="unsupported_grant_type"
        )
    if "resource" in form or form.get("audience", trust_domain) != trust_domain:
        raise EdgeError(Code.MALFORMED, 400, f"contexts are for {trust_domain} only", error="invalid_target")
    if form.get("requested_token_type", USER_CONTEXT_TYPE) != USER_CONTEXT_TYPE:
        raise _invalid(f"requested_token_type must be {USER_CONTEXT_TYPE}")
    if "actor_token" in form or "actor_token_type" in form:
        raise _invalid("the actor is the workload in the client's certificate")
    name, other = ("assertion", "subject_token") if grant == ASSERTION_GRANT else ("subject_token", "assertion")
    if not form.get(name) or other in form:
        raise _invalid(f"{name} is missing, or {other} is there")
    if grant == ASSERTION_GRANT:
        return _Grant(form[name], asserts=True, error="invalid_grant")
    if form.get("subject_token_type") not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
        raise _invalid(f"subject_token_type must be {ACCESS_TOKEN_TYPE}, or {JWT_TYPE} for an assertion")
    return _Grant(form[name], asserts=form["subject_token_type"] == JWT_TYPE, error="invalid_request")


def _narrowed(token: AccessToken, scope: str | None) -> AccessToken:
    """Return `token` with the requested scope, which must be a part of its own."""
    if scope is None:
        return token
    scopes = tuple(dict.fromkeys(scope.split(" ")))
    if not set(scopes) <= set(token.scope):
        raise EdgeError(Code.MALFORMED, 400, "scope goes beyond the token's", error="invalid_scope")
    return replace(token, scope=scopes)


def _refusal(error: SealbusError, scope: Scope) -> Response:
    """Return the error response of RFC 6749 section 5.2, with the code of sealbus."""
    del scope
    status = error.status if isinstance(error, EdgeError) else STATUS.get(error.code, 500)
    word = error.error if isinstance(error, EdgeError) and error.error else ""
    if not word:
        word = "invalid_request" if status < 500 else "temporarily_unavailable" if status == 503 else "server_error"
    answer = _json(
        {
            "error": word,
            "error_description": error.detail if isinstance(error, EdgeError) else str(error.code),
            "code": str(error.code),
        },
        status,
    )
    if isinstance(error, EdgeError) and error.retry_after is not None:
        answer.headers["retry-after"] = str(error.retry_after)
    return answer


def _invalid(detail: str) -> EdgeError:
    return EdgeError(Code.MALFORMED, 400, detail, error="invalid_request")


def _json(document: Mapping[str, object], status: int) -> Response:
    return Response(json.dumps(document), status, HEADERS, "application/json")
