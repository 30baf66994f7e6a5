"""The listener on loopback to which a browser brings the provider's answer (RFC 8252 section 7.3)."""

from __future__ import annotations

import asyncio
from typing import Final, Self
from urllib.parse import urlsplit

import h11

from sealbus.agents.login.provider import LoginFailed

_HEAD_BYTES: Final = 16_384
_HEAD_SECONDS: Final = 5.0
_CONNECTIONS: Final = 16
"""Most at a time: a browser opens some ahead, and other programs on this machine can open any number."""

_PAGE: Final = (
    b'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>sealbus</title></head><body>'
    b"<h1>Go back to the terminal</h1><p>It says whether the login has worked. You may close this page.</p></body></html>"
)
_HEADERS: Final = (
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Content-Security-Policy: default-src 'none'; frame-ancestors 'none'; base-uri 'none'\r\n"
    b"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
)


class Loopback:
    """A listener at `redirect_uri`, on a free port if that names none, while entered by `async with`.

    The first request for its path is the answer, with any query; then the port is closed. Any other request gets 404 and
    changes nothing.
    """

    def __init__(self, redirect_uri: str) -> None:
        parts = urlsplit(redirect_uri)
        self._name = parts.hostname or ""
        self._port = parts.port or 0
        self._path = parts.path
        self._server: asyncio.Server | None = None
        self._query_future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def uri(self) -> str:
        """The redirect URI with its port, once entered."""
        return f"http://{self._host}{self._path}"

    @property
    def _host(self) -> str:
        return f"{f'[{self._name}]' if ':' in self._name else self._name}:{self._port}"

    async def __aenter__(self) -> Self:
        """Listen; raises `LoginFailed` if the port cannot be used."""
        address = "127.0.0.1" if self._name == "localhost" else self._name
        try:
            self._server = await asyncio.start_server(self._accept, address, self._port, limit=_HEAD_BYTES)
        except OSError as error:
            raise LoginFailed(
                f"nothing can listen on port {self._port} of {address}: {error.strerror}; try another client.redirect_uri"
            ) from error
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()
        for serving in self._serving:
            serving.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def answer(self) -> str:
        """Return the query of the browser's request, once there is one."""
        return await asyncio.shield(self._query_future)

    def _close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio runs this as a task
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            if len(self._serving) <= _CONNECTIONS:
                async with asyncio.timeout(_HEAD_SECONDS):
                    await self._serve(await reader.readuntil(b"\r\n\r\n"), writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _serve(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        query = self._query(head)
        if query is None or self._query_future.done():
            writer.write(b"HTTP/1.1 404 Not Found\r\n" + _HEADERS + b"Content-Length: 0\r\n\r\n")
            await writer.drain()
            return
        self._close()
        self._query_future.set_result(query)
        length = b"Content-Length: %d\r\n\r\n" % len(_PAGE)
        writer.write(b"HTTP/1.1 200 OK\r\n" + _HEADERS + length + _PAGE)
        await writer.drain()

    def _query(self, head: bytes) -> str | None:
        """Return the query of a request that a browser sent here; `None` for any other request."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)
        try:
            connection.receive_data(head)
            request = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if not isinstance(request, h11.Request) or request.method != b"GET":
            return None
        # With another host name, a page elsewhere may have sent the browser here (DNS rebinding).
        if dict(request.headers).get(b"host") != self._host.encode():
            return None
        path, _, query = request.target.decode("ascii").partition("?")
        return query if path == (self._path or "/") else None
