"""APIs outside, as an agent reaches them: an httpx2 client whose requests are calls of the exit, which alone holds tokens.

A request is a sealed call `<exit>.<api>`, or a task for what takes longer, with the user and the chain of the message that is
being handled. The exit's policy decides about method, host and path, and what happens is recorded, as of any action. Nothing
of an agent's own network is used: it needs no route to the API, and sees neither its address nor a token.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Final, TypeAlias

import httpx2
from pydantic import BaseModel, ConfigDict, Field

from sealbus.envelopes.errors import SealError
from sealbus.envelopes.trust.names import is_token

__all__ = [
    "API_URL",
    "EXIT",
    "MOST_FIELDS",
    "ApiAnswer",
    "ApiRequest",
    "SendRequest",
    "api_action",
    "api_client",
    "api_request",
    "of_others",
]

EXIT: Final = "exit"
"""The agent that calls APIs, unless another is named."""

MOST_FIELDS: Final = 64

Fields = Annotated[tuple[tuple[str, str], ...], Field(max_length=MOST_FIELDS)]
"""Header fields in their order."""

_HOST: Final = "api.invalid"
API_URL: Final = f"https://{_HOST}"
"""Where a client seems to send to; RFC 6761 section 6.4 keeps the name from ever being a host."""


class _Content(BaseModel):
    """Bytes are base64url in JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_bytes="base64", val_json_bytes="base64")


class ApiRequest(_Content):
    """A request to an API: `path` begins with `/` and stands below the API's own URL; `query` is without its `?`."""

    method: str
    path: str
    query: str = ""
    headers: Fields = ()
    body: bytes = Field(default=b"", repr=False)


class ApiAnswer(_Content):
    """What the API answered, whatever its status; only header fields that say how to read or repeat it are passed on."""

    status: int
    headers: Fields = ()
    body: bytes = Field(default=b"", repr=False)


SendRequest: TypeAlias = Callable[[ApiRequest], Awaitable[ApiAnswer]]
"""Sends a request to the exit, as a call or as a task."""


def api_request(method: str, address: str, headers: Iterable[tuple[str, str]], body: bytes) -> ApiRequest:
    """Return a client's request as the exit takes it. Raises `SealError` for another host than that of `API_URL`."""
    url = httpx2.URL(address)
    if url.host != _HOST or url.scheme != "https":
        raise SealError("this client reaches one API only: give paths, not URLs")
    return ApiRequest(
        method=method,
        path=url.raw_path.decode("ascii").partition("?")[0],
        query=url.query.decode("ascii"),
        headers=tuple((name, value) for name, value in headers if name not in _CONNECTION),
        body=body,
    )


class _Calls(httpx2.AsyncBaseTransport):
    """Sends requests by `send` in place of a network."""

    def __init__(self, send: SendRequest) -> None:
        self._send = send

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the API's answer to a request of this client; raise as the call does, or as `api_request`."""
        asked = api_request(request.method, str(request.url), request.headers.items(), await request.aread())
        answer = await self._send(asked)
        return httpx2.Response(answer.status, headers=list(answer.headers), content=answer.body, request=request)


def of_others(record: logging.LogRecord) -> bool:
    """Return whether a line of an HTTP client is not of these: it shows the whole URL, and here that is what a call says."""
    return _HOST not in record.getMessage()


logging.getLogger("httpx2").addFilter(of_others)

_CONNECTION: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "transfer-encoding", "user-agent"}
)
"""Fields about a connection to the API, which is the exit's."""


def api_action(api: str) -> str:
    """Return the action by which `api` is reached: of the agent `exit`, or of the one named before a dot.

    Raises `SealError` for a text that is no name.
    """
    exit_name, _, name = api.rpartition(".")
    if not is_token(name) or (exit_name and not is_token(exit_name)):
        raise SealError(f"{api[:255]!r} is not the name of an API")
    return f"{exit_name or EXIT}.{name}"


def api_client(send: SendRequest) -> httpx2.AsyncClient:
    """Return a client that sends its requests by `send`; its base URL stands for the API's.

    It holds nothing open, so that it need not be closed. No redirect is followed unless that is asked for, and then through
    `send`, too. How long a request may take is the call's to say.
    """
    return httpx2.AsyncClient(transport=_Calls(send), base_url=API_URL, trust_env=False, timeout=None)
