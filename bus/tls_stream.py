"""The byte stream of one connection to NATS: TLS from the first byte, or nothing.

nats-py alone goes on in the clear when the server does not ask for TLS. Here the handshake comes before the server's
first line, so that there is no clear text to be tricked into.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

__all__ = ["READ_BYTES", "TlsStream"]

READ_BYTES = 262_144
"""Most bytes taken from the connection at a time, and what `ssl` of CPython holds at most."""

CLOSE_SECONDS = 2.0
"""How long the peer may take to answer the end of TLS before the connection is cut."""


class TlsStream(TcpTransport):
    """nats-py's transport, with the handshake as part of `connect`."""

    def __init__(self, context: ssl.SSLContext, handshake_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py leaves its constructor untyped
        self._context = context
        self._handshake_seconds = handshake_seconds

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Connect and shake hands in `connect_timeout` seconds. Raises `OSError` (`ssl.SSLError`), `TimeoutError`."""
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
        """Only make sure that TLS is there; `connect` has done the handshake."""
        writer = self._io_writer
        if writer is None or writer.get_extra_info("ssl_object") is None:
            raise ConnectionError("the connection is not encrypted")

    def buffered(self) -> int:
        """Return how many bytes were written and not yet taken by the operating system."""
        writer = self._io_writer
        return 0 if writer is None else writer.transport.get_write_buffer_size()

    def abort(self) -> None:
        """Cut the connection without waiting for the peer."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, or cut it; how it ended is of no interest any more."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS + 1.0):
                await super().wait_closed()  # type: ignore[no-untyped-call]  # untyped in nats-py
                return
        self.abort()
