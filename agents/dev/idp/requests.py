"""Checks of requests before they are handled: the host, and few and plain parameters without repetition."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_FIELDS: Final = 24
"""Most parameters of a query or a form."""
MOST_BYTES: Final = 8_192
"""Most bytes of a query or a form."""
BODY_SECONDS: Final = 10.0

_NAME: Final = re.compile(r"[a-z_]{1,40}")
# The characters that an OAuth error may repeat (RFC 6749 section 4.1.2.1); our parameters need no others.
_VALUE: Final = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{0,2048}")
_FORM: Final = "application/x-www-form-urlencoded"


class MalformedRequest(Exception):
    """Parameters that no honest client sends; the text names the broken rule, and never a value."""


class LoopbackHostOnly:
    """Middleware that answers only to names of loopback, and not to another site's name that resolves to this server.

    Without it, any web site could read our pages and answers by DNS rebinding, because the browser sees one origin.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (RFC 9110 section 15.5.20)."""
        if scope["type"] == "http":
            named = [value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"]
            if len(named) != 1 or named[0] not in self.hosts:
                await PlainTextResponse("misdirected: use the loopback address\n", 421)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def parameters(text: str) -> dict[str, str]:
    """Return the fields of a query or form; raise `MalformedRequest` if one is repeated or not plain.

    An empty value counts as absent (RFC 6749 section 3.1).
    """
    if len(text) > MOST_BYTES:
        raise MalformedRequest("too long")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise MalformedRequest("not a query") from error
    fields: dict[str, str] = {}
    for name, value in pairs:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise MalformedRequest("a parameter has characters that are not allowed")
        if name in fields:
            raise MalformedRequest("a parameter is repeated")
        fields[name] = value
    return {name: value for name, value in fields.items() if value}


async def form_of(request: Request) -> dict[str, str]:
    """Read a small form and return its fields; raise `MalformedRequest`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise MalformedRequest(f"the body must be {_FORM}")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise MalformedRequest("too long")
    except TimeoutError as error:
        raise MalformedRequest("too slow") from error
    except ClientDisconnect as error:
        raise MalformedRequest("it ended early") from error
    try:
        return parameters(body.decode("ascii"))
    except UnicodeDecodeError as error:
        raise MalformedRequest("not a query") from error
