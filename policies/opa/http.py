"""One question to an OPA over HTTP: a POST whose answer is bounded, whatever the server sends.

The caller chooses the document and checks the form of the answer (`wire.py`).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import aiohttp

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.policies.opa.wire import QUERY

REPLY_BYTES: Final = 1_048_576

T = TypeVar("T")


class Ask(Protocol):
    """A way to ask OPA."""

    def __call__(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> Awaitable[T]:
        """Ask `question` of the document at `path`, until `until` by the event loop's clock.

        Returns what `parse` returns for status and body. Raises what `parse` raises, and `PolicyUnavailable` if no answer
        comes in time.
        """


def open_session(base_url: str, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """Return a session for questions to one OPA; the caller closes it, and sets each question's deadline."""
    return aiohttp.ClientSession(
        base_url=base_url,
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
        response_class=_Response,
    )


class _Response(aiohttp.ClientResponse):
    """A response that ends its connection at once if it is left before its end.

    aiohttp's own close waits 30 s for a hanging server's end of TLS, and keeps the connection meanwhile.
    """

    def close(self) -> None:
        transport = self.connection.transport if self.connection is not None else None
        if transport is not None:
            transport.abort()
        super().close()


async def post(
    session: aiohttp.ClientSession, path: str, question: bytes, *, connections: int, where: str
) -> tuple[int, bytes]:
    """Return status and body of one question; raise `PolicyUnavailable` if there is no complete answer.

    `where` is OPA's name in errors. After a restart of OPA, idle connections are closed, at most `connections` of them. The
    question is then asked again, at most as many times. It changes nothing, so asking twice is safe.
    """
    left = connections
    while True:
        try:
            return await _exchange(session, path, question)
        except aiohttp.ClientError as error:
            again = isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError)
            if not left or not again or isinstance(error, aiohttp.ClientConnectorError) or session.closed:
                raise PolicyUnavailable(f"OPA at {where} does not answer: {_cause(error)}") from error
            left -= 1


async def _exchange(session: aiohttp.ClientSession, path: str, question: bytes) -> tuple[int, bytes]:
    async with session.post(
        path,
        params=QUERY,
        data=question,
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        allow_redirects=False,
    ) as response:
        body = b""
        try:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > REPLY_BYTES:
                    raise PolicyUnavailable(f"OPA's answer has over {REPLY_BYTES} bytes")
        finally:
            response.close()
        return response.status, body


def _cause(error: aiohttp.ClientError) -> str:
    """Return the cause: aiohttp's name of the error and, if TLS failed, OpenSSL's reason or ours."""
    name = type(error).__name__
    # The server refuses our certificate after the handshake, as a broken connection with a TLS error as its cause.
    inner = error.__cause__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"{name}, {_one_line(getattr(inner, 'verify_message', '') or inner.args[-1])}"
    if isinstance(inner, ssl.SSLError):
        return f"{name}, TLS failed ({_one_line(getattr(inner, 'reason', None) or inner)})"
    return name


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
