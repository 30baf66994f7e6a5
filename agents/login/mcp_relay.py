"""Carries an MCP client's messages between its standard streams and the edge, under the login of the person who runs it.

The client starts a program and exchanges JSON lines with it; the edge speaks HTTP. The relay only matches answers to their
requests: the edge handles tools, questions and tasks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.bus.background import Background
from sealbus.envelopes.errors import ConfigurationError, SealbusError

LINE_BYTES: Final = 1 << 22
"""Most bytes of one message of the client: more than the edge takes."""
_AT_A_TIME: Final = 32
"""Requests of the client that are open at once."""
_TIMES: Final = httpx2.Timeout(30.0, read=1_000.0)
"""In seconds. An answer may wait for a person as long as the edge lets it (`EdgeLimits.event_seconds`), and a little more."""
_BRIEF: Final = 30.0
"""Seconds for a message without an answer."""
_ACCEPTED: Final = "application/json, text/event-stream"
_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"
_META_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_PARSE_ERROR: Final = -32700
_FAILED: Final = -32000

Message = dict[str, Any]


class McpRelay:
    """The relay of one client to the MCP server of the edge with the URL `edge`. `token` returns a valid access token.

    Raises `ConfigurationError` for a URL that would let others read the token.
    """

    def __init__(
        self, edge: str, token: Callable[[], Awaitable[str]], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        if not is_secure_url(edge):
            raise ConfigurationError(
                "the edge is named by an https URL, or http on a loopback address: your token goes there"
            )
        parts = urlsplit(edge)
        self._url = f"{parts.scheme}://{parts.netloc}/mcp"
        self._token = token
        self._write = write
        self._writing = asyncio.Lock()
        self._open: dict[str, tuple[asyncio.Task[None], bool]] = {}
        """The open requests, and whether closing the connection cancels each."""
        self._session: str | None = None
        self._version: str | None = None

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Carry messages until the client's stream ends, and then cancel the open requests.

        `reader` needs a limit of `LINE_BYTES`; raises `ConfigurationError` for a longer line.
        """
        async with httpx2.AsyncClient(timeout=_TIMES, trust_env=False, follow_redirects=False) as http:
            async with Background() as group:
                while line := await _line(reader):
                    await self._take_line(group, http, line)
                for task, _ in self._open.values():
                    task.cancel()
            if self._session is not None:
                await self._end_session(http)

    async def _take_line(self, group: asyncio.TaskGroup, http: httpx2.AsyncClient, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            await self._write_error(None, "this line is no message", code=_PARSE_ERROR)
        elif "method" not in message or "id" not in message:
            if not self._cancel_request(message):
                await self._forward_notification(http, message)
        elif len(self._open) >= _AT_A_TIME:
            await self._write_error(message["id"], f"{_AT_A_TIME} requests are open")
        else:
            name = json.dumps(message["id"])
            task = group.create_task(self._forward_request(http, message), name="mcp request")
            self._open[name] = task, _version_of(message) is not None
            task.add_done_callback(lambda _: self._open.pop(name, None))

    def _cancel_request(self, message: Message) -> bool:
        """Close the connection of a request that a newer client cancels; return whether that is how to cancel it."""
        if message.get("method") != "notifications/cancelled":
            return False
        params = message.get("params")
        task, closes = self._open.get(
            json.dumps(params.get("requestId") if isinstance(params, Mapping) else None), (None, False)
        )
        if task is not None and closes:
            task.cancel()
        return closes

    async def _forward_notification(self, http: httpx2.AsyncClient, message: Message) -> None:
        """Carry a message without an answer: a notification, or the answer to a question of the edge."""
        try:
            async with asyncio.timeout(_BRIEF):
                await http.post(self._url, json=message, headers=await self._fields(message))
        except (httpx2.HTTPError, TimeoutError, SealbusError):
            # The client expects no answer to this message; its open requests fail on their own.
            return

    async def _forward_request(self, http: httpx2.AsyncClient, message: Message) -> None:
        """Carry a request, and the messages that come back up to its answer."""
        request = message["id"]
        try:
            fields = await self._fields(message)
            async with http.stream("POST", self._url, json=message, headers=fields) as answer:
                await self._forward_answer(request, answer)
        except SealbusError as error:
            await self._write_error(request, f"{error.detail} ({error.code})")
        except (httpx2.HTTPError, httpx2.SSEError) as error:
            await self._write_error(request, f"the edge does not answer: {type(error).__name__}")

    async def _forward_answer(self, request: object, answer: httpx2.Response) -> None:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream" and answer.is_success:
            async for event in httpx2.EventSource(answer, max_event_size=LINE_BYTES):
                if event.data and await self._write_answer(request, event.data.encode(), answer):
                    return
            await self._write_error(request, "the connection was lost before there was an answer")
            return
        body = await answer.aread()
        if kind == "application/json" and await self._write_answer(request, body, answer):
            return
        await self._write_error(request, *_problem(answer.status_code, body))

    async def _write_answer(self, request: object, text: bytes, answer: httpx2.Response) -> bool:
        """Write one message to the client; return whether it is the answer to `request`. Other texts are dropped."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return False
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return False
        answers = "method" not in message
        if answers:
            message["id"] = request
            self._keep_session(message.get("result"), answer)
        await self._write_message(message)
        return answers

    def _keep_session(self, result: object, answer: httpx2.Response) -> None:
        """Keep the session and the protocol version of an older client."""
        session = answer.headers.get(_SESSION)
        if session is not None and isinstance(result, Mapping) and "protocolVersion" in result:
            self._session, self._version = session, str(result["protocolVersion"])

    async def _fields(self, message: Message) -> dict[str, str]:
        fields = {"accept": _ACCEPTED, "authorization": f"Bearer {await self._token()}"}
        if (version := _version_of(message)) is not None:
            fields |= {_VERSION: version, "mcp-method": str(message.get("method"))}
            name = message["params"].get("name")
            if isinstance(name, str) and name.isascii() and name.isprintable():
                fields["mcp-name"] = name
        elif self._session is not None and self._version is not None and message.get("method") != "initialize":
            fields |= {_SESSION: self._session, _VERSION: self._version}
        return fields

    async def _end_session(self, http: httpx2.AsyncClient) -> None:
        try:
            async with asyncio.timeout(_BRIEF):
                await http.delete(self._url, headers=await self._fields({}))
        except (httpx2.HTTPError, TimeoutError, SealbusError):
            # The session ends by itself after a while.
            return

    async def _write_error(
        self, request: object, text: str, data: Mapping[str, Any] | None = None, *, code: int = _FAILED
    ) -> None:
        error = {"code": code, "message": text, **({"data": data} if data is not None else {})}
        await self._write_message({"jsonrpc": "2.0", "id": request, "error": error})

    async def _write_message(self, message: Message) -> None:
        async with self._writing:
            await self._write(json.dumps(message, ensure_ascii=False).encode(errors="replace") + b"\n")


def _version_of(message: Message) -> str | None:
    """Return the version in a newer client's request; older clients agree on a version at the beginning."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, Mapping) else None
    version = meta.get(_META_VERSION) if isinstance(meta, Mapping) else None
    return version if isinstance(version, str) and version.isascii() and version.isprintable() else None


def _problem(status: int, body: bytes) -> tuple[str, dict[str, Any] | None]:
    """Return the edge's reason for a refusal, as a text and as data (RFC 9457)."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        return f"the edge answered with {status}", None
    return f"{problem.get('detail') or problem.get('title')} ({problem['code']})", {"problem": problem}


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ValueError as error:
        raise ConfigurationError(f"the client wrote a line of over {LINE_BYTES} bytes") from error
