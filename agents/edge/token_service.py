"""`POST /token`: a workload that holds a user's access token gets a user context minted for itself (RFC 8693).

The caller is identified by its X.509-SVID (mutual TLS, `peer.py`); there are no client secrets. The context starts a chain
only when sealed by that workload (`wkl`, SPEC.md section 6), so a copy is of no use to anyone else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from sealbus.agents.edge.app import Application, Methods
from sealbus.agents.edge.front import Front, too_often
from sealbus.agents.edge.http.bodies import read_form
from sealbus.agents.edge.http.peer import PEER, Peer
from sealbus.agents.edge.http.problem import HEADERS, STATUS, EdgeError
from sealbus.agents.edge.http.rate_limits import TokenBuckets
from sealbus.agents.edge.oauth.access_token import AccessToken
from sealbus.agents.sdk.token_exchange import USER_CONTEXT_TYPE, context_token
from sealbus.envelopes.errors import Code, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import parse_payload

__all__ = ["ACCESS_TOKEN_TYPE", "GRANT_TYPE", "TOKEN_PATH", "token_app"]

TOKEN_PATH: Final = "/token"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"


def token_app(front: Front) -> Application:
    """Return the application of the token service; to be served by `PeerProtocol` only."""
    limits = front.limits
    workloads = TokenBuckets(rate=limits.workload_rate, burst=limits.workload_burst, entries=limits.rate_entries)

    async def exchange(request: Request) -> Response:
        peer = _peer(request, front.node.clock())
        wait = workloads.take(peer.spiffe_id)
        if wait:
            raise too_often(wait)
        form = await read_form(request, limits)
        subject_token = _checked(form, front.node.own.trust_domain.name)
        now = front.node.clock()
        try:
            token = await front.verified(subject_token, now=now)
        except EdgeError as error:
            # RFC 8693 section 2.2.2: a token that is not accepted makes the request invalid, not the client.
            status = 400 if error.status == 401 else error.status
            raise EdgeError(
                error.code, status, error.detail, error="invalid_request", retry_after=error.retry_after
            ) from error
        if token.bound is not None:
            # Who exchanges it is not who it is bound to.
            raise EdgeError(Code.BAD_TOKEN, 400, "cnf: the token is bound to a key", error="invalid_request")
        statement = front.context(_narrowed(token, form.get("scope")), request, peer.spiffe_id)
        return _json(
            {
                "access_token": context_token(statement),
                "issued_token_type": USER_CONTEXT_TYPE,
                "token_type": "N_A",
                "expires_in": max(0, (parse_payload(statement.payload).exp - now) // SECOND),
            },
            200,
        )

    return Application([Route(TOKEN_PATH, Methods(POST=exchange))], answer_of=_refusal)


def _peer(request: Request, now: int) -> Peer:
    peer = request.scope.get(PEER)
    if not isinstance(peer, Peer) or peer.expires <= now:
        # A connection may outlive the certificate that it was made with: then nothing more can be requested over it.
        raise EdgeError(Code.CREDENTIAL_EXPIRED, 401, "the client's X.509-SVID has expired", error="invalid_client")
    return peer


def _checked(form: Mapping[str, str], trust_domain: str) -> str:
    """Return the subject token of a request for a user context; raise for any other request."""
    if form.get("grant_type") != GRANT_TYPE:
        raise EdgeError(Code.MALFORMED, 400, f"grant_type must be {GRANT_TYPE}", error="unsupported_grant_type")
    if "resource" in form or form.get("audience", trust_domain) != trust_domain:
        raise EdgeError(Code.MALFORMED, 400, f"contexts are for {trust_domain} only", error="invalid_target")
    if form.get("subject_token_type") != ACCESS_TOKEN_TYPE:
        raise _invalid(f"subject_token_type must be {ACCESS_TOKEN_TYPE}")
    if form.get("requested_token_type", USER_CONTEXT_TYPE) != USER_CONTEXT_TYPE:
        raise _invalid(f"requested_token_type must be {USER_CONTEXT_TYPE}")
    if "actor_token" in form or "actor_token_type" in form:
        raise _invalid("the actor is the workload in the client's certificate")
    if not form.get("subject_token"):
        raise _invalid("subject_token is missing")
    return form["subject_token"]


def _narrowed(token: AccessToken, scope: str | None) -> AccessToken:
    """Return `token` with the requested scope, which can only be a part of its own."""
    if scope is None:
        return token
    wanted = tuple(dict.fromkeys(scope.split(" ")))
    if not set(wanted) <= set(token.scope):
        raise EdgeError(Code.MALFORMED, 400, "scope goes beyond the token's", error="invalid_scope")
    return replace(token, scope=wanted)


def _refusal(error: SealbusError, scope: Scope) -> Response:
    """Return the JSON of RFC 6749 section 5.2, with the code of sealbus."""
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
