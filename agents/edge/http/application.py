"""The ASGI application of a listener: routes, an answer for every error, and one access log line per request."""

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

from sealbus.agents.edge.http.cors import PREFLIGHT, Cors, preflight_answer
from sealbus.agents.edge.http.forwarded import client_address
from sealbus.agents.edge.http.problem import EdgeError, problem, too_often
from sealbus.agents.edge.http.protocol import HSTS
from sealbus.agents.edge.http.rate_limits import TokenBuckets, address_key
from sealbus.bus.telemetry import FIELDS, Counters
from sealbus.envelopes.errors import Code, SealbusError

if TYPE_CHECKING:
    from sealbus.bus.telemetry.spans import HttpRequest
    from sealbus.bus.telemetry.tracing import Tracer

_logger: Final = logging.getLogger(__name__)

REQUEST_ID: Final = "sealbus.request_id"
"""Key of the request's scope that holds its id, 16 random bytes: the transaction (`txn`) of the messages it causes."""
NONCE: Final = "sealbus.nonce"
"""Key of the request's scope that holds the nonce for the client's next proof."""
PATTERN: Final = "sealbus.pattern"
"""Key of the scope that holds the pattern of a path, where one route serves several patterns."""
_ROUTE: Final = "sealbus.route"
"""Key of the scope that marks a path as one of our routes. Any other path is text of a stranger and is not logged."""

_STOPPING: Final = "The edge is stopping. Whether the request was done is not known."

Handler = Callable[[Request], Awaitable[Response]]


class Methods:
    """One resource: a handler for each of its methods, and for preflights of these; 405 for others."""

    def __init__(self, **handlers: Handler) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[_ROUTE] = scope["path"]
        handler = self._handlers.get(requested_method(scope))
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
    answers. Behind `proxies` proxies the client's address is taken from `X-Forwarded-For`.
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
        self._seconds = counters.histogram("sealbus_edge_request_seconds", ("route",))
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
                if self._cors is not None and (method := self._cors.preflight(scope["method"], headers)) is not None:
                    scope[PREFLIGHT] = method
                await self._router(scope, receive, noting)
            except SealbusError as error:
                code = str(error.code)
                if status:
                    raise
                await self._answer_of(error, scope)(scope, receive, noting)
        except asyncio.CancelledError:
            # The edge is stopping, and waited for this request as long as it may wait.
            if not status:
                await self._answer_of(EdgeError(Code.BUS_UNAVAILABLE, 503, _STOPPING), scope)(scope, receive, noting)
            raise
        except Exception as error:  # noqa: BLE001  outermost boundary: nothing of an unforeseen error gets into the answer
            _logger.error("%s at %s", type(error).__name__, _place(error))  # noqa: TRY400  a traceback could hold a client's text
            if not status:
                await problem(Code.INTERNAL, status=HTTPStatus.INTERNAL_SERVER_ERROR)(scope, receive, noting)
        finally:
            seconds = time.perf_counter() - started
            route = scope.get(PATTERN) or self._patterns.get(scope.get("endpoint", _not_found), "none")
            self._counters.add("sealbus_edge_requests_total", route=route, status=str(status))
            self._seconds.observe(seconds, route)
            # Neither query nor fields: tokens have been seen in both.
            fields = {
                "event": "request",
                "code": code,
                "address": address,
                "method": scope["method"][:16],
                "path": scope["raw_path"].decode("ascii", "replace")[:256] if _ROUTE in scope else "(no such path)",
                "status": status,
                "ms": round(seconds * 1e3, 1),
                "request_id": request_id.hex(),
                "trace_id": span.trace_id if span is not None else "",
            }
            if span is not None:
                span.answered(str(fields["method"]), route, status, request_id.hex())
            _logger.info(
                "%(address)s %(method)s %(path)s %(status)d %(ms).1f ms %(request_id)s",
                fields,
                extra={FIELDS: {name: value for name, value in fields.items() if value}},
            )

    def _admit(self, address: str) -> None:
        if self._addresses is not None and (wait := self._addresses.take(address_key(address))):
            raise too_often(wait)


def requested_method(scope: Scope) -> str:
    """Return the method of a request, or the method that a preflight asks for."""
    method: str = scope.get(PREFLIGHT, scope["method"])
    return method


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await problem(Code.NOT_FOUND)(scope, receive, send)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"
