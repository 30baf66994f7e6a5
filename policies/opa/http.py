"""One question to an OPA over HTTP: a POST whose answer is bounded, whatever stands at the other end.

Which document is asked for, and what an answer must look like, is the caller's: see `wire.py`.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import aiohttp

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.policies.opa.wire import QUERY

__all__ = ["REPLY_BYTES", "Ask", "open_session", "post"]

REPLY_BYTES: Final = 1_048_576

T = TypeVar("T")


class Ask(Protocol):
    """A way to ask OPA."""

    def __call__(self, path: str, question: bytes, parse: Callable[[int, bytes], T], *, until: float) -> Awaitable[T]:
        """Ask the question `question` for the document at `path`, until `until` by the event loop's clock.

        Returns what `parse` makes of status and body. Raises what `parse` raises, and `PolicyUnavailable` where no
        answer came in time.
        """


def open_session(base_url: str, connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    """Return a session for questions to one OPA; the caller closes it, and sets each question's deadline."""
    return aiohttp.ClientSession(
        base_url=base_url,
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    )


async def post(
    session: aiohttp.ClientSession, path: str, question: bytes, *, kept: int, where: str
) -> tuple[int, bytes]:
    """Return status and body of one question; raise `PolicyUnavailable` where there is no whole answer.

    `where` names OPA in texts. Asks again, at most `kept` times, where a connection was closed that was kept from
    before OPA was restarted: there may be as many of those as there are connections. A question changes nothing, so
    that asking twice is safe.
    """
    left = kept
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
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > REPLY_BYTES:
                response.close()
                raise PolicyUnavailable(f"OPA's answer has over {REPLY_BYTES} bytes")
        return response.status, body


def _cause(error: aiohttp.ClientError) -> str:
    """Return what went wrong: aiohttp's word for it and, where TLS failed, OpenSSL's or ours."""
    name = type(error).__name__
    # What the server says to our certificate comes after the handshake: a broken connection, with TLS' reason behind it.
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
