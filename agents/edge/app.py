"""The edge's HTTP application: its routes, one answer for every error, and one line of access log per request."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Message, Receive, Scope, Send

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.approval_routes import APPROVALS_PATH, ApprovalRoutes
from sealbus.agents.edge.front import NONCE, REQUEST_ID, RESOURCE, SCHEME, Front, NamedResource, too_often
from sealbus.agents.edge.http.cors import PREFLIGHT, Cors, preflight_answer
from sealbus.agents.edge.http.forwarded import client_address
from sealbus.agents.edge.http.problem import EdgeError, explanation_of, problem, problem_of
from sealbus.agents.edge.http.protocol import HSTS
from sealbus.agents.edge.http.rate_limits import TokenBuckets, address_key
from sealbus.agents.edge.oauth.bearer import WELL_KNOWN, Scheme, challenge, metadata_answer, metadata_path, needed
from sealbus.agents.edge.openapi import OPENAPI_PATH, openapi_answer
from sealbus.agents.edge.revocation_routes import LOGOUT_PATH, SECURITY_EVENTS_PATH, RevocationRoutes
from sealbus.agents.edge.schedule_routes import SCHEDULES_PATH, ScheduleRoutes
from sealbus.agents.edge.standing_grants import EdgeGrants
from sealbus.agents.edge.task_routes import TaskEvents, Tasks
from sealbus.bus.telemetry import FIELDS, Counters
from sealbus.envelopes.denial import RemedyKind
from sealbus.envelopes.errors import Code, SealbusError

if TYPE_CHECKING:
    from sealbus.bus.telemetry.spans import HttpRequest
    from sealbus.bus.telemetry.tracing import Tracer

__all__ = ["Application", "Methods", "edge_app"]

_log: Final = logging.getLogger(__name__)

_ROUTE: Final = "sealbus.route"
"""Key of the scope that marks a path as one of our routes: other paths are a stranger's text."""

_PATTERN: Final = "sealbus.pattern"
"""Key of the scope that holds the pattern of a path, where that of its route stands for several."""

_STOPPING: Final = "The edge is stopping. Whether the request was done is not known."

Handler = Callable[[Request], Awaitable[Response]]


class Methods:
    """One resource: a handler for each of its methods, and for preflights of these; 405 for others."""

    def __init__(self, **handlers: Handler) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[_ROUTE] = scope["path"]
        handler = self._handlers.get(_method(scope))
        if handler is None:
            answer = problem(Code.METHOD_NOT_ALLOWED)
            answer.headers["allow"] = ", ".join(sorted(self._handlers))
        elif PREFLIGHT in scope:
            answer = preflight_answer(Headers(scope=scope), self._handlers)
        else:
            answer = await handler(Request(scope, receive))
        await answer(scope, receive, send)


class Application:
    """The ASGI application of `routes`. `answer_of` turns errors into answers; `addresses` limits requests per address.

    `secure` is for access by https: browsers are told to use nothing else. `cors` names the origins whose pages may read
    answers. Behind `proxies` a client's address is what they say.
    """

    def __init__(
        self,
        routes: Sequence[BaseRoute],
        *,
        answer_of: Callable[[SealbusError, Scope], Response],
        counters: Counters,
        tracer: Tracer | None = None,
        addresses: TokenBuckets | None = None,
        secure: bool = False,
        cors: Cors | None = None,
        proxies: int = 0,
    ) -> None:
        self._router = Router(routes, redirect_slashes=False, default=_not_found)
        self._answer_of = answer_of
        self._counters = counters
        self._tracer = tracer
        self._patterns = {route.endpoint: route.path for route in routes if isinstance(route, Route)}
        self._took = counters.histogram("sealbus_edge_request_seconds", ("route",))
        self._addresses = addresses
        self._secure = secure
        self._cors = cors
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request in every case, and log it."""
        if self._tracer is None:
            await self._serve(scope, receive, send, None)
        else:
            with self._tracer.request(Headers(scope=scope).get("traceparent", "")) as span:
                await self._serve(scope, receive, send, span)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, span: HttpRequest | None) -> None:
        started, status = time.perf_counter(), 0
        code = ""
        request_id = scope[REQUEST_ID] = os.urandom(16)
        client: Mapping[int, object] | None = scope.get("client")
        address = str(client[0]) if client else ""
        headers = Headers(scope=scope)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                added = [(b"x-request-id", request_id.hex().encode())]
                if NONCE in scope:
                    added.append((b"dpop-nonce", scope[NONCE].encode()))
                if self._secure:
                    added.append(HSTS)
                if self._cors is not None:
                    added += self._cors.fields(headers)
                message["headers"] = [*message["headers"], *added]
            await send(message)

        # The raw path: our paths need no escapes, and a proxy in front may judge paths before or after unescaping them.
        scope["path"] = scope["raw_path"].decode("latin-1")
        try:
            try:
                if self._proxies:
                    address = client_address(headers, self._proxies)
                self._admit(address)
                if self._cors is not None and (asked := self._cors.preflight(scope["method"], headers)) is not None:
                    scope[PREFLIGHT] = asked
                await self._router(scope, receive, noting)
            except SealbusError as error:
                code = str(error.code)
                if status:
                    raise
                await self._answer_of(error, scope)(scope, receive, noting)
        except asyncio.CancelledError:
            # The edge is stopping, and waited for this request as long as it may.
            if not status:
                await self._answer_of(EdgeError(Code.BUS_UNAVAILABLE, 503, _STOPPING), scope)(scope, receive, noting)
            raise
        except Exception as error:  # noqa: BLE001  outermost boundary: nothing of an unforeseen error gets into the answer
            _log.error("%s at %s", type(error).__name__, _place(error))
            if not status:
                await problem(Code.INTERNAL, status=HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, noting)
        finally:
            taken = (time.perf_counter() - started) * 1e3
            route = scope.get(_PATTERN) or self._patterns.get(scope.get("endpoint", _not_found), "none")
            self._counters.add("sealbus_edge_requests_total", route=route, status=str(status))
            self._took.observe(taken / 1e3, route)
            # Neither query nor fields: tokens have been seen in both.
            method, path = scope["method"][:16], _shown(scope)
            told = (address, method, path, status, taken, request_id.hex())
            fields = {
                "event": "request",
                "code": code,
                "address": address,
                "method": method,
                "path": path,
                "status": status,
                "ms": round(taken, 1),
                "request_id": request_id.hex(),
                "trace_id": span.trace_id if span is not None else "",
            }
            if span is not None:
                span.answered(method, route, status, request_id.hex())
            _log.info(
                "%s %s %s %d %.1f ms %s", *told, extra={FIELDS: {name: one for name, one in fields.items() if one}}
            )

    def _admit(self, address: str) -> None:
        if self._addresses is not None:
            wait = self._addresses.take(address_key(address))
            if wait:
                raise too_often(wait)


def _method(scope: Scope) -> str:
    """Return the method of a request, or that which a preflight asks for."""
    method: str = scope.get(PREFLIGHT, scope["method"])
    return method


def edge_app(
    actions: Actions,
    *,
    grants: EdgeGrants | None = None,
    document: Mapping[str, object] | None = None,
    cors: Cors | None = None,
    proxies: int = 0,
    doors: Sequence[BaseRoute] = (),
) -> Application:
    """Return the public application of an edge; `document` is shown to everybody, if there is one.

    With `grants` users may have things done later. `doors` are the routes of other protocols to the same actions.
    """
    front, limits = actions.front, actions.front.limits
    tasks, calls = actions.tasks, actions.calls
    events = TaskEvents(front, tasks, actions.streams)
    approvals = ApprovalRoutes(front, actions.waiting)

    async def metadata(request: Request) -> Response:
        del request
        return metadata_answer(front.resource, front.issuers, certificates=front.shows_certificates)

    def answer_of(error: SealbusError, scope: Scope) -> Response:
        schemes = [scope[SCHEME]] if SCHEME in scope else list(Scheme)
        resource: NamedResource = scope.get(RESOURCE, NamedResource(front.resource))
        if not isinstance(error, EdgeError):
            return _answer(error, resource.url, schemes[0])
        answer = problem_of(error)
        if error.status == HTTPStatus.UNAUTHORIZED or error.error == "invalid_request":
            for scheme in schemes:
                challenge(answer, resource.url, scheme, error=error.error, scope=resource.scopes)
        return answer

    async def openapi(request: Request) -> Response:
        del request
        return openapi_answer(document or {})

    described = Methods(GET=metadata)
    paths = {WELL_KNOWN, metadata_path(front.resource)}
    return Application(
        [
            Route("/v1/calls/{agent}/{verb}", Methods(POST=calls.call)),
            Route("/v1/tasks/{agent}/{verb}", _TaskPaths(tasks, events)),
            Route("/v1/tasks/{task}", Methods(GET=tasks.status, DELETE=tasks.cancel)),
            *(Route(path, described) for path in sorted(paths)),
            *([Route(OPENAPI_PATH, Methods(GET=openapi))] if document is not None else []),
            Route(APPROVALS_PATH, Methods(GET=approvals.list)),
            Route(APPROVALS_PATH + "/{task}", Methods(GET=approvals.show, POST=approvals.decide)),
            *(_schedule_routes(front, grants) if grants is not None else []),
            *_revocation_routes(front),
            *doors,
        ],
        answer_of=answer_of,
        counters=front.node.counters,
        tracer=front.node.tracer,
        addresses=TokenBuckets(rate=limits.address_rate, burst=limits.address_burst, entries=limits.rate_entries),
        secure=front.resource.startswith("https://"),
        cors=cors,
        proxies=proxies,
    )


def _schedule_routes(front: Front, grants: EdgeGrants) -> list[Route]:
    schedules = ScheduleRoutes(front, grants)
    return [
        Route(SCHEDULES_PATH, Methods(GET=schedules.list, POST=schedules.grant)),
        Route(SCHEDULES_PATH + "/{name}", Methods(DELETE=schedules.remove)),
    ]


def _revocation_routes(front: Front) -> list[Route]:
    """Return the routes by which identity providers report, each only if there is an issuer that may."""
    routes = RevocationRoutes(front)
    events = [Route(SECURITY_EVENTS_PATH, Methods(POST=routes.security_event))]
    logouts = [Route(LOGOUT_PATH, Methods(POST=routes.logout))]
    return [
        *(events if any(issuer.event_audiences for issuer in front.issuers) else []),
        *(logouts if any(issuer.logout_audiences for issuer in front.issuers) else []),
    ]


def _answer(error: SealbusError, resource: str, scheme: Scheme) -> Response:
    """Return the answer to a request that ended with `error`, and what a denial's remedies ask of the next such request.

    The first remedy that asks for another token is the challenge; if it is a login, the status is 401.
    """
    remedies = explanation_of(error).remedies
    token = next((one for one in remedies if one.kind in (RemedyKind.LOGIN, RemedyKind.SCOPE)), None)
    after = next((one.after for one in remedies if one.kind is RemedyKind.LATER), None)
    login = token is not None and token.kind is RemedyKind.LOGIN
    answer = problem_of(error, status=HTTPStatus.UNAUTHORIZED if login else None, retry_after=after)
    if token is not None:
        needed(answer, token, resource, scheme)
    return answer


class _TaskPaths:
    """`/v1/tasks/{a}/{b}`: an action to POST to, or a part of a task to GET. An agent's name may look like an id."""

    def __init__(self, tasks: Tasks, events: TaskEvents) -> None:
        self._submit = Methods(POST=tasks.submit)
        self._parts = {"result": Methods(GET=tasks.result), "events": Methods(GET=events.follow)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parameters = scope["path_params"]
        part = self._parts.get(parameters["verb"])
        if part is not None and _method(scope) != "POST":
            scope["path_params"] = {"task": parameters["agent"]}
            scope[_PATTERN] = f"/v1/tasks/{{task}}/{parameters['verb']}"
            await part(scope, receive, send)
        else:
            await self._submit(scope, receive, send)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await problem(Code.NOT_FOUND)(scope, receive, send)


def _shown(scope: Scope) -> str:
    return scope["raw_path"].decode("ascii", "replace")[:256] if _ROUTE in scope else "(no such path)"


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
