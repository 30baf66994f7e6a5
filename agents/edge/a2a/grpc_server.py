"""A2A over gRPC, at a port of its own, with the same handlers and the same admission as over HTTP.

The tenant of a request names its agent, as the agent's card says. The token alone decides what the caller may do.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

import grpc  # type: ignore[import-untyped]  # grpc has no types
import grpc.aio  # type: ignore[import-untyped]  # grpc has no types
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import GrpcHandler, RequestHandler
from a2a.server.request_handlers.grpc_handler import GrpcServerCallContextBuilder
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from a2a.utils.errors import A2AError, InvalidParamsError
from starlette.requests import Request

from sealbus.agents.edge.a2a.principal import DOOR_NAME, Principal
from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.front import DOOR
from sealbus.agents.edge.http.application import REQUEST_ID
from sealbus.agents.edge.http.problem import EdgeError, explanation_of, problem_of, too_often
from sealbus.agents.edge.http.rate_limits import address_key
from sealbus.agents.files import file_errors
from sealbus.agents.runtime.health import parse_address
from sealbus.envelopes.errors import Code, ConfigurationError, SealbusError

_logger: Final = logging.getLogger(__name__)

_SLACK: Final = 16_384
"""Bytes of a message beside the body: its ids and metadata."""
_STOP_SECONDS: Final = 1.0
_IDLE_MS: Final = 300_000
"""A connection without requests for so long is closed."""
_KEEPALIVE_MS: Final = 30_000
_KEEPALIVE_ANSWER_MS: Final = 10_000

_CODES: Final[Mapping[int, grpc.StatusCode]] = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
_PROBLEM: Final = "sealbus-problem-bin"
"""Key of the trailing metadata that holds the problem as `/v1` would answer it."""

_principal: ContextVar[Principal] = ContextVar("sealbus.a2a.principal")

Method = Callable[[Any, grpc.aio.ServicerContext], Any]


class _CallContexts(GrpcServerCallContextBuilder):
    """Gives handlers the principal of a request."""

    def build(self, context: grpc.aio.ServicerContext) -> ServerCallContext:
        del context
        return _principal.get().context()


class _ByTenant:
    """One handler that forwards to the handler of the tenant."""

    def __init__(self, handlers: Mapping[str, RequestHandler]) -> None:
        self._handlers = handlers

    def __getattr__(self, name: str) -> Callable[[Any, ServerCallContext], Any]:
        def called(params: Any, context: ServerCallContext) -> Any:
            handler = self._handlers.get(context.tenant)
            if handler is None:
                raise InvalidParamsError("the tenant must be that of an agent's card")
            return getattr(handler, name)(params, context)

        return called


class _Servicer(GrpcHandler):
    """The methods of the service."""

    async def abort_context(self, error: A2AError, context: grpc.aio.ServicerContext) -> None:
        """End a failed request, with a status of gRPC if the request itself was refused."""
        refused = _principal.get().refused
        if refused is not None:
            await _refuse(context, refused)
        await super().abort_context(error, context)


class _Admission(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Admits every request before its handler sees it, and bounds the time to wait for a slow reader."""

    def __init__(self, actions: Actions, write_seconds: float) -> None:
        limits = actions.front.limits
        self._front = actions.front
        self._streams = actions.streams
        self._write_seconds = write_seconds
        self._addresses = self._front.buckets(limits.address_rate, limits.address_burst)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a method, behind our admission.

        It is a handler of streams that reads one message: for a unary method grpc reads the message before it calls us.
        """
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._streaming(handler.unary_stream, method)
            if handler.response_streaming
            else self._unary(handler.unary_unary, method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, inner: Method, method: str) -> Method:
        async def called(_: object, context: grpc.aio.ServicerContext) -> None:
            async with self._admitted(context, method) as (request, _):
                await self._write(context, await inner(request, context))

        return called

    def _streaming(self, inner: Method, method: str) -> Method:
        async def called(_: object, context: grpc.aio.ServicerContext) -> None:
            async with self._admitted(context, method) as (request, principal):
                self._streams.enter(principal.token)
                events = inner(request, context)
                try:
                    async for event in events:
                        await self._write(context, event)
                finally:
                    self._streams.leave(principal.token)
                    await events.aclose()

        return called

    async def _write(self, context: grpc.aio.ServicerContext, message: Any) -> None:
        async with asyncio.timeout(self._write_seconds):
            await context.write(message)

    @asynccontextmanager
    async def _admitted(
        self, context: grpc.aio.ServicerContext, method: str
    ) -> AsyncGenerator[tuple[Any, Principal], None]:
        """Admit a request and give its message to the block; answer in every case."""
        front = self._front
        try:
            self._check_address(context)
            http = _as_http(method, context)
            token = await front.admitted(http)
            request = await self._message(context)
            front.charge(token, request.ByteSize() / front.limits.charged_bytes)
            principal = Principal(http, token, watched=False)
            _principal.set(principal)
            yield request, principal
        except SealbusError as error:
            await _refuse(context, error)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the client is too slow")
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  outermost boundary: grpc would answer with the text of the error
            _logger.error("%s in %s", type(error).__name__, method)  # noqa: TRY400  a traceback could hold a client's text
            await context.abort(grpc.StatusCode.INTERNAL, "The edge failed.")
        finally:
            front.node.counters.add("sealbus_edge_requests_total", route=method, status=_status(context))

    async def _message(self, context: grpc.aio.ServicerContext) -> Any:
        """Return the one message of a request; raise `TimeoutError` if it takes too long, 400 if it is missing."""
        async with asyncio.timeout(self._front.limits.body_seconds):
            message = await context.read()
        if message is grpc.aio.EOF:
            raise EdgeError(Code.MALFORMED, 400, "a request has a message")
        return message

    def _check_address(self, context: grpc.aio.ServicerContext) -> None:
        if wait := self._addresses.take(address_key(_address(context))):
            raise too_often(wait)


def _as_http(method: str, context: grpc.aio.ServicerContext) -> Request:
    """Return the HTTP POST that carries a gRPC request, with the parts that admission reads."""
    fields = [
        (key.encode(), value.encode() if isinstance(value, str) else value)
        for key, value in context.invocation_metadata() or ()
    ]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": method,
            "headers": fields,
            REQUEST_ID: os.urandom(16),
            DOOR: DOOR_NAME,
        }
    )


def _address(context: grpc.aio.ServicerContext) -> str:
    """Return the address of the client: `ipv4:192.0.2.1:50` or `ipv6:[2001:db8::1]:50`, percent-encoded."""
    peer: str = unquote(context.peer())
    return peer.partition(":")[2].rpartition(":")[0].strip("[]")


def _status(context: grpc.aio.ServicerContext) -> str:
    code = context.code()
    names: dict[object, str] = {code.value[0]: code.name for code in grpc.StatusCode}
    return names.get(code.value[0] if isinstance(code, grpc.StatusCode) else code, "OK")


async def _refuse(context: grpc.aio.ServicerContext, error: SealbusError) -> None:
    answer = problem_of(error)
    code = _CODES.get(answer.status_code, grpc.StatusCode.INTERNAL)
    details = f"{error.code}" if not explanation_of(error).reasons else f"{error.code}: {explanation_of(error).reasons}"
    await context.abort(code, details, trailing_metadata=((_PROBLEM, bytes(answer.body)),))


class Certificate:
    """The files of a certificate and its key, read again after a change; raises `ConfigurationError` if unreadable."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._read = self._stamped()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files; while the files cannot be read, the last good credentials stay in use."""
        return grpc.dynamic_ssl_server_credentials(_configuration(self._read[1]), self._changed)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            changed = self._stamped()
        except ConfigurationError as error:
            _logger.warning("edge: the last good certificate stays in use: %s", error.detail)
            return None
        if changed[0] == self._read[0]:
            return None
        self._read = changed
        return _configuration(changed[1])

    def _stamped(self) -> tuple[tuple[int, ...], tuple[bytes, bytes]]:
        certificate, key = self._files
        with file_errors("edge.certificate and edge.key cannot be read"):
            stamps = tuple(path.stat().st_mtime_ns for path in self._files)
            return stamps, (certificate.read_bytes(), key.read_bytes())


def _configuration(read: tuple[bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    certificate, key = read
    return grpc.ssl_server_certificate_configuration([(key, certificate)])


class Grpc(NamedTuple):
    """The gRPC listener: its `address`, its name in cards (`shown`), and its certificate, if it has one.

    It serves at most `requests` requests at a time, and waits `write_seconds` for a client that does not read.
    """

    address: str
    shown: str
    certificate: Certificate | None
    requests: int
    write_seconds: float


@asynccontextmanager
async def serving_grpc(
    actions: Actions,
    handlers: Mapping[str, RequestHandler],
    listener: Grpc,
) -> AsyncGenerator[int, None]:
    """Serve the agents of `handlers`, and yield the port. Raises `ConfigurationError` if the address cannot be used."""
    host, port = parse_address(listener.address, "edge.a2a.grpc")
    server = grpc.aio.server(
        interceptors=[_Admission(actions, listener.write_seconds)],
        options=[
            ("grpc.max_receive_message_length", actions.front.limits.body_bytes + _SLACK),
            ("grpc.max_metadata_size", actions.front.limits.token_bytes + _SLACK),
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_idle_ms", _IDLE_MS),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_ANSWER_MS),
        ],
        maximum_concurrent_rpcs=listener.requests,
    )
    servicer = _Servicer(cast("RequestHandler", _ByTenant(handlers)), _CallContexts())
    add_A2AServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # it has no types
    at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if listener.certificate is not None:
            bound = server.add_secure_port(at, listener.certificate.credentials())
        else:
            bound = server.add_insecure_port(at)
    except RuntimeError as error:
        raise ConfigurationError(f"edge.a2a.grpc {listener.address} cannot be used") from error
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(_STOP_SECONDS)
