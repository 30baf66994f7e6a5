"""`POST /v1/security-events` and `POST /v1/backchannel-logout`: hand reports of identity providers to the revoker.

The edge verifies a report, but holds no key that could publish a revocation. It calls the agent `revoker`. The call is
decided and recorded like any other. The edge answers the reporter after the revoker: then the revocation is published.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from sealbus.agents.edge.front import Front
from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.http.bodies import media_type, read_bytes, read_form
from sealbus.agents.edge.http.problem import HEADERS, EdgeError, too_often
from sealbus.agents.edge.oauth.tokens.security_events import ReportedEvent
from sealbus.agents.runtime.policy.revocation import REVOKE, Revocation
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.messages import Origin, call_message
from sealbus.agents.sdk.options import CallOptions
from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import Code, SealbusError

SECURITY_EVENTS_PATH: Final = "/v1/security-events"
LOGOUT_PATH: Final = "/v1/backchannel-logout"

_EVENT_TOKEN: Final = "application/secevent+jwt"

_logger: Final = logging.getLogger(__name__)


class RevocationRoutes:
    """The two resources. A refused token is 400 in the form of its standard; other errors are answered as everywhere."""

    def __init__(self, front: Front) -> None:
        limits = front.limits
        self._front = front
        # One bucket for each issuer that the settings name.
        self._issuers = front.buckets(limits.event_rate, limits.event_burst)

    async def security_event(self, request: Request) -> Response:
        """Accept a security event token (RFC 8935): 202 once it is published, or 400 with `err` and `description`."""
        limits = self._front.limits
        media_type(request, (_EVENT_TOKEN,))
        body = await read_bytes(request, limits.token_bytes, limits.body_seconds)
        try:
            token = _ascii(body)
            event = await self._front.events.event(token, now=self._front.node.clock())
            revoked = await self._named(event.revoked) if event.revoked is not None else None
        except EdgeError as error:
            return _refusal(error, {"err": error.error, "description": error.detail})
        await self._handle(event, revoked, request)
        return Response(status_code=HTTPStatus.ACCEPTED, headers=HEADERS)

    async def logout(self, request: Request) -> Response:
        """Accept a logout token (Back-Channel Logout section 2.5): 204 once it is published, or 400 with `error`."""
        try:
            form = await read_form(request, self._front.limits)
            token = form.get("logout_token", "")
            event = await self._front.events.logout(token, now=self._front.node.clock())
            revoked = await self._named(event.revoked) if event.revoked is not None else None
        except EdgeError as error:
            # The one error of OAuth for all faults; `error.error` has the words of RFC 8935.
            return _refusal(error, {"error": "invalid_request", "error_description": error.detail})
        await self._handle(event, revoked, request)
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=HEADERS)

    async def _handle(self, event: ReportedEvent, revoked: Revocation | None, request: Request) -> None:
        """Return once `revoked` is published, now or earlier by the same token; raise 429 or 503 otherwise."""
        events = self._front.events
        if await events.handled(event):
            return
        # Only after its signature is verified, so that nobody else uses up the rate of an issuer.
        if wait := self._issuers.take(event.issuer):
            raise too_often(wait)
        if revoked is not None:
            await self._revoke(revoked, request)
        # Only now, so that a report whose revocation was not published can be sent again.
        await events.remember(event, now=self._front.node.clock())

    async def _named(self, revocation: Revocation) -> Revocation:
        """Return `revocation` with the user's name in contexts; raise 400 for a name that no context can hold, or 503."""
        if revocation.kind != "user":
            return revocation
        name = await self._front.user_id(revocation.issuer, revocation.id)
        if not is_text(name):
            raise EdgeError(Code.BAD_TOKEN, 400, "the user's id is too long", error="invalid_request")
        return revocation.model_copy(update={"id": name})

    async def _revoke(self, revocation: Revocation, request: Request) -> None:
        """Return once `revocation` is published; raise 503 otherwise, so that its sender tries again."""
        front = self._front
        requests, within = front.node.requests, front.limits.revoke_seconds
        message = call_message(
            REVOKE,
            Content(body=revocation.model_dump_json().encode(), typ=JSON),
            names=front.node.deployment.names,
            origin=Origin(tid=request.scope[REQUEST_ID]),
            reply_to=requests.address(),
            options=CallOptions(timeout=within),
            own=front.node.deployment.own_subjects,
        )
        try:
            await requests.call(message, action=REVOKE, within=within)
        except SealbusError as error:
            _logger.error(  # noqa: TRY400  the operator needs no traceback
                "a revocation by %s is not published: %s answered %s", revocation.issuer, REVOKE, error.code
            )
            code = Code.NO_LISTENER if error.code == Code.NO_LISTENER else Code.BUS_UNAVAILABLE
            detail = "The revocation is not published; report it again."
            raise EdgeError(code, 503, detail, retry_after=front.limits.revoke_again_seconds) from error


def _ascii(body: bytes) -> str:
    try:
        return body.decode("ascii")
    except UnicodeDecodeError as error:
        raise EdgeError(Code.BAD_TOKEN, 400, "not a JWT in compact form", error="invalid_request") from error


def _refusal(error: EdgeError, document: Mapping[str, str]) -> Response:
    """Return the answer to a refused token; raise `error` again if it has another cause."""
    if error.status != HTTPStatus.BAD_REQUEST:
        raise error
    headers = {**HEADERS, "content-language": "en"}
    return Response(json.dumps(document), HTTPStatus.BAD_REQUEST, headers, JSON)
