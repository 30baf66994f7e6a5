"""nats-py's client, hardened against hostile peers: no message of a peer can silence, stall or downgrade it.

This overrides private parts of nats-py, so its version is pinned. nats-py still does INFO, CONNECT and authentication, PING
and PONG, and closing. One client is one connection to one server and never reconnects; `Connection` makes new clients, for
lost links and for rotations alike.

nats-py continues in clear text if the server does not ask for TLS. Here the handshake comes before the server's first line,
so that no server can cause a fallback to clear text.

The responder of the auth callout logs in with an nkey in addition to its certificate. It decides the permissions of all
users, so that it cannot wait for its own answer. Nor can the server map the certificate to a user by itself, because it
would not check which authority may vouch for which trust domain.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import ParseResult

from nats import errors
from nats.aio.client import Client
from nats.aio.transport import TcpTransport

from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.bus.nats.connection.parser import ProtocolParser, Sink
from sealbus.bus.routing.timers import being_cancelled, cancellations, raise_if_cancelled_since

_logger = logging.getLogger(__name__)

READ_BYTES = 262_144
"""Most bytes read from the connection at a time, and the most that CPython's `ssl` holds."""

MAX_OUTSTANDING_PINGS = 2

UNASKED = 9
"""Intervals in a row without a PING to a server that was heard meanwhile."""

CLOSE_SECONDS = 2.0
"""Seconds that the peer has to answer the end of TLS before the connection is cut."""


class SafeClient(Client):
    """A NATS client whose raw subscriptions call a `Sink` for each message, straight from the read loop.

    `on_lost` is called once, with the reason, if the connection ends other than by `close()`; `on_violation` with the
    server's text when it refuses a subject; `on_dropped` when a message could not be processed.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        options: ConnectionOptions,
        *,
        on_lost: Callable[[Exception], None],
        on_violation: Callable[[str], None],
        on_dropped: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._connect_options = options
        if options.login is not None:
            # nats-py accepts a public nkey only with its seed, and signs with a separate package.
            self._public_nkey = options.login.public
        self._sinks: dict[int, Sink] = {}
        self._ps = ProtocolParser(self, self._sinks)
        self._stream = TlsStream(context, options.connect)
        self._on_lost = on_lost
        self._on_violation = on_violation
        self._on_dropped = on_dropped
        self._reported = False
        self._heard = False
        """Whether the server has sent anything since the last interval between PINGs."""

    async def open(self, url: str, on_lame_duck: Callable[[], Awaitable[None]] | None = None) -> None:
        """Connect to `url` once. Raises `OSError`, `TimeoutError` or nats-py's `Error`, with nothing left open."""
        options = self._connect_options
        before = cancellations()
        try:
            async with asyncio.timeout(options.connect + options.admission):
                await self.connect(
                    servers=[url],
                    name=options.name,
                    error_cb=self._note,
                    allow_reconnect=False,
                    connect_timeout=max(1, int(options.admission)),
                    tls=self._stream._context,  # nats-py wants one; the stream uses it
                    tls_handshake_first=True,
                    ping_interval=options.ping,  # type: ignore[arg-type]  # only passed to sleep, fractions are fine
                    max_outstanding_pings=MAX_OUTSTANDING_PINGS,
                    lame_duck_mode_cb=on_lame_duck,
                    signature_cb=options.login.signature if options.login is not None else None,
                )
            # nats-py awaits with `asyncio.wait_for`. Before Python 3.12 that loses a cancellation in the same turn as the
            # server's line, and a task that awaits the cancelled task would then wait forever.
            raise_if_cancelled_since(before)
            if not self.is_connected:
                # nats-py takes the end of the connection for an answer to its first PING.
                raise errors.UnexpectedEOF  # noqa: TRY301  closed below like every failure
        except BaseException:
            self._reported = True
            await self._cut_and_close()
            raise
        if self._reading_task is not None:
            self._reading_task.add_done_callback(self._reading_ended)

    def subscribe_raw(self, subject: str, queue: str, sink: Sink) -> int:
        """Subscribe and return the subscription's number. The frame is written, but the server may not have seen it yet."""
        self._sid += 1
        self._sinks[self._sid] = sink
        self.write(f"SUB {subject} {queue + ' ' if queue else ''}{self._sid}\r\n".encode())
        return self._sid

    def unsubscribe_raw(self, sid: int) -> None:
        """End a subscription. Its sink still gets messages that are on their way, until `forget_raw`."""
        if self.is_connected:
            self.write(b"UNSUB %d\r\n" % sid)

    def forget_raw(self, sid: int) -> None:
        """Drop messages that still arrive for a subscription that was ended."""
        self._sinks.pop(sid, None)

    def write(self, data: bytes) -> None:
        """Write frames in order, past nats-py's queue: a PING written after them is a barrier for them."""
        self._stream.write(data)

    def buffered(self) -> int:
        """Return how many bytes wait for the network."""
        return self._stream.buffered()

    async def drained(self) -> None:
        """Wait until few bytes wait for the network."""
        await self._stream.drain()

    def ping(self) -> asyncio.Future[bool]:
        """Write a PING; the future is done once the server has handled everything written before it."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self.write(b"PING\r\n")
        return future

    def cut(self) -> None:
        """Cut the connection without waiting for the server."""
        self._stream.abort()

    def sink_failed(self, error: Exception) -> None:
        """Report a message that its sink failed to process."""
        self._on_dropped(error)

    async def _select_next_server(self) -> None:
        # nats-py's version cycles through its pool forever if a port is closed. Here: one server, one attempt.
        server = self._server_pool[0]
        self._transport = self._stream
        await self._stream.connect(server.uri, READ_BYTES, self._connect_options.connect)
        self._current_server = server

    async def _read_loop(self) -> None:
        try:
            while True:
                data = await self._stream.read(READ_BYTES)
                if not data:
                    break
                self._heard = True
                await self._ps.parse(data)
            error: Exception = errors.UnexpectedEOF()
        except Exception as failure:  # noqa: BLE001 - or the connection would silently receive nothing
            error = failure
        await self._process_op_err(error)

    async def _ping_interval(self) -> None:
        # nats-py's version sends a PING each time. A server that was heard is there, and an idle agent hears it every 2 s.
        unasked = 0
        while True:
            await asyncio.sleep(self._connect_options.ping)
            heard, self._heard = self._heard, False
            if heard and unasked < UNASKED:
                unasked += 1
                continue
            unasked = 0
            self._pings_outstanding += 1
            if self._pings_outstanding > MAX_OUTSTANDING_PINGS:
                await self._process_op_err(errors.StaleConnectionError())
                return
            with contextlib.suppress(RuntimeError, AttributeError):
                await self._send_ping()

    def _reading_ended(self, _: asyncio.Task[None]) -> None:
        # Also if the task was cancelled from outside; otherwise the connection looks alive and receives nothing.
        self._report(errors.UnexpectedEOF())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except Exception as error:  # noqa: BLE001 - a malformed header block costs its own message only
            self._on_dropped(error)

    async def _process_err(self, err_msg: str) -> None:
        # nats-py never reconnects after an expired user JWT or an unknown error. Here every error but a refused subject
        # ends this connection, and the next connection uses the certificate that is current then.
        text = err_msg.strip().strip("'")
        if text.lower().startswith("permissions violation"):
            self._on_violation(text)
            return
        await self._process_op_err(errors.Error(text))

    async def _process_pong(self) -> None:
        # nats-py's version sets the result of a future that may have been cancelled, and so ends its read loop.
        self._pings_outstanding = 0
        self._pongs_received += 1
        if self._pongs:
            waiting = self._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)

    async def _process_op_err(self, e: Exception) -> None:
        self._report(e)
        if not self.is_closed:
            self._err = e
            await self._cut_and_close()

    async def close(self) -> None:
        """Close the connection in an orderly way; `on_lost` is not called."""
        self._reported = True
        await super().close()

    async def _cut_and_close(self) -> None:
        # Frames that nats-py has queued would be written to a closed connection, and raise.
        self._pending = []
        self._pending_data_size = 0
        self._stream.abort()
        await self._close(Client.CLOSED, do_cbs=False)

    def _report(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            self._on_lost(error)

    async def _note(self, error: Exception) -> None:
        _logger.debug("nats: %s", error)


class TlsStream(TcpTransport):
    """nats-py's transport, with the handshake as part of `connect`."""

    def __init__(self, context: ssl.SSLContext, handshake_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py leaves its constructor untyped
        self._context = context
        self._handshake_seconds = handshake_seconds
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Connect and do the handshake in `connect_timeout` seconds. Raises `OSError` (`ssl.SSLError`), `TimeoutError`."""
        async with asyncio.timeout(connect_timeout):
            reader, writer = await asyncio.open_connection(
                uri.hostname,
                uri.port,
                limit=buffer_size,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_seconds,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        """Check that TLS is in use; `connect` has done the handshake."""
        writer = self._io_writer
        if writer is None or writer.get_extra_info("ssl_object") is None:
            raise ConnectionError("the connection is not encrypted")

    async def readline(self) -> bytes:
        """Return the server's next line that is no PING; nats-py reads lines until it is connected.

        A server sends its first PING after 2 s, also while it asks its auth callout. nats-py would take it for the answer to
        its own.
        """
        while True:
            line: bytes = await super().readline()  # type: ignore[no-untyped-call]  # untyped in nats-py
            if not line.startswith(b"PING"):
                return line
            self.write(b"PONG\r\n")
            await self.drain()

    def write(self, payload: bytes) -> None:
        """Write `payload` in order, as one piece with all writes of this turn of the loop.

        Writes of many tasks then cost one TLS record and one system call.
        """
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._send)
        self._unsent.append(payload)
        self._unsent_bytes += len(payload)

    def writelines(self, payload: Iterable[bytes]) -> None:
        """Write each piece, as `write` does."""
        for piece in payload:
            self.write(piece)

    async def drain(self) -> None:
        """Wait until few bytes wait for the network."""
        self._send()
        await super().drain()  # type: ignore[no-untyped-call]  # untyped in nats-py

    def close(self) -> None:
        """Close the connection after all writes."""
        self._send()
        super().close()  # type: ignore[no-untyped-call]  # untyped in nats-py

    def buffered(self) -> int:
        """Return how many written bytes the operating system has not taken yet."""
        writer = self._io_writer
        return self._unsent_bytes + (0 if writer is None else writer.transport.get_write_buffer_size())

    def _send(self) -> None:
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        if unsent and self._io_writer is not None:
            self._io_writer.write(b"".join(unsent))

    def abort(self) -> None:
        """Cut the connection without waiting for the peer; unsent bytes are dropped."""
        self._unsent, self._unsent_bytes = [], 0
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, or cut it; errors at this point are ignored."""
        try:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS + 1.0):
                    await super().wait_closed()  # type: ignore[no-untyped-call]  # untyped in nats-py
                    return
        except asyncio.CancelledError:
            # All tasks that close the connection await one future, and a cancelled task cancels it for the others.
            if being_cancelled():
                raise
        self.abort()
