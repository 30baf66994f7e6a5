"""One listener of the edge: uvicorn inside our task group, on a socket of ours, without its signal handlers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from sealbus.agents.edge.http.admission import Admission
from sealbus.agents.edge.http.protocol import ConnectionLimits, EdgeProtocol
from sealbus.agents.runtime.health import parse_address
from sealbus.bus.background import Background
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

ProtocolFactory = Callable[[uvicorn.Config, ServerState, ConnectionLimits], EdgeProtocol]

BACKLOG: Final = 128
_ACCEPT_PAUSE_SECONDS: Final = 0.1

_logger: Final = logging.getLogger(__name__)


@asynccontextmanager
async def listening(
    app: ASGIApp,
    address: str,
    *,
    setting: str,
    limits: ConnectionLimits,
    counters: Counters,
    tls: ssl.SSLContext | None = None,
    protocol: ProtocolFactory = EdgeProtocol,
) -> AsyncGenerator[int, None]:
    """Serve `app` on `address` (`parse_address`) and yield the port; at the end, finish open requests.

    Raises `ConfigurationError`, one line that names `setting`, if the address cannot be used.
    """
    listener = _bound(address, setting)
    port: int = listener.getsockname()[1]
    admission = Admission(
        whole=limits.connections,
        of_network=limits.connections_of_network,
        of_address=limits.connections_of_address,
        counters=counters,
        listener=setting,
    )
    server = _HttpServer(_config(app, limits), listener, admission, limits, tls, protocol)
    try:
        async with Background() as group:
            group.create_task(server.serve(), name=f"listener-{setting}")
            await server.live.wait()
            try:
                yield port
            finally:
                server.should_exit = True
                server.ending.set()
    finally:
        await server.cut()


def _config(app: ASGIApp, limits: ConnectionLimits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=EdgeProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        # uvicorn would log each start, stop and malformed request: the first two are logged here, the last is caused by a
        # peer. `application.py` logs requests.
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        # A peer's claim to forward for another is not believed, and answers do not name the server.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=limits.stop_seconds,
        h11_max_incomplete_event_size=limits.head_bytes,
    )


class _HttpServer(uvicorn.Server):
    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        admission: Admission,
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None,
        protocol: ProtocolFactory,
    ) -> None:
        super().__init__(config)
        # uvicorn closes these; the one listener is ours.
        self.servers: list[asyncio.base_events.Server] = []
        self.live = asyncio.Event()
        self.ending = asyncio.Event()
        self._listener = listener
        self._admission = admission
        self._limits = limits
        self._tls = tls
        self._protocol = protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command that runs this."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. uvicorn's own has no deadline for TLS handshakes and ends the process if it fails."""
        del sockets
        self._listener.listen(BACKLOG)
        self.started = True
        self.live.set()

    async def main_loop(self) -> None:
        """Accept connections until told to end, which uvicorn checks ten times a second; keep the Date header right."""
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(self._accept(), name="accept")
            while not await self.on_tick(0):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self.ending.wait()
            accepting.cancel()

    async def _accept(self) -> None:
        # Not by `create_server`, which reports a connection after its TLS handshake: until then it would not be counted. Nor
        # by `sock_accept`, which loses a connection that comes together with the end.
        async with asyncio.TaskGroup() as welcomes:
            while True:
                try:
                    connection, peer = self._listener.accept()
                except (BlockingIOError, InterruptedError):
                    await _readable(self._listener)
                    continue
                except OSError as error:
                    # No file descriptors left, or the connection was gone before it was accepted.
                    _logger.warning("edge: cannot accept a connection: %s", error.strerror)
                    await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                    continue
                connection.setblocking(False)
                leave = self._admission.enter(str(peer[0]))
                if leave is None:
                    connection.close()
                else:
                    welcomes.create_task(self._welcome(connection, leave), name="welcome")

    async def _welcome(self, connection: socket.socket, leave: Callable[[], None]) -> None:
        def protocol() -> EdgeProtocol:
            connection_protocol = self._protocol(self.config, self.server_state, self._limits)
            connection_protocol.lost = leave
            return connection_protocol

        loop, handshake = asyncio.get_running_loop(), self._limits.handshake_seconds if self._tls is not None else None
        try:
            await loop.connect_accepted_socket(protocol, connection, ssl=self._tls, ssl_handshake_timeout=handshake)
        except OSError:
            # A failed or slow handshake is caused by its peer.
            leave()
        except BaseException:
            leave()
            connection.close()
            raise

    async def cut(self) -> None:
        """End whatever is left after the graceful end."""
        self._listener.close()
        for connection in tuple(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        remaining = tuple(self.server_state.tasks)
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)


async def _readable(listener: socket.socket) -> None:
    """Wait until a connection can be accepted."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(listener, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(listener)


def _bound(address: str, setting: str) -> socket.socket:
    host, port = parse_address(address, setting)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With the protocol named, or asyncio would leave Nagle's algorithm on: 40 ms for an answer of two writes.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"{setting} {host}:{port} cannot be used: {error.strerror}; choose another, or port 0 for any free one"
        ) from error
    listener.setblocking(False)
    return listener
