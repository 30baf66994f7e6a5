"""An MCP server outside, as the exit sees it: which tool a request calls, and what the server said of that tool.

What a server says of its tools steers the language models that read it, and it may say something else tomorrow. So each tool
has a manifest hash, over all that was said of it, and the policy is asked with it: a tool that changed is another resource.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final

from sealbus.agents.sdk.http import ApiAnswer, ApiRequest
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import ResourceNotFound
from sealbus.envelopes.limits import SECOND

HEADERS: Final = frozenset({"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name"})
"""Fields of the protocol's own, which pass in both directions."""
_LIST: Final = "tools/list"
_CALL: Final = "tools/call"
_PLAIN: Final = frozenset(
    {"initialize", "notifications/initialized", "notifications/cancelled", "ping", "server/discover"}
)
"""Methods that ask for nothing. All others are refused: resources and prompts are no tools, and nobody answers questions."""
_MOST: Final = 1_000
"""Tools of one server whose manifests are kept; a longer list is cut off there, so that the rest is unknown."""
_FRESH: Final = 3_600 * SECOND
"""How long a list counts: what a server says now is not what it said yesterday."""
_NAME: Final = 128
_DEPTH: Final = 32
"""Levels of a message: schemas of tools are nested."""


class ToolRequests:
    """What is known of one server's tools. `tools` are patterns of those that may be called; `clock` gives microseconds."""

    def __init__(self, tools: Sequence[str], clock: Callable[[], int]) -> None:
        self._tools = tuple(tools)
        self._clock = clock
        self._listed: dict[str, tuple[str, int]] = {}

    def properties(self, request: ApiRequest) -> Mapping[str, str]:
        """Return the properties of what a request asks for: `call`, its method, `tool` and `manifest`, the hash.

        The last two are empty for what is no call of a tool; the hash is empty for a tool that was not listed in the last
        hour. Raises `ResourceNotFound` for a tool or method that nobody may ask for, and for several messages at once.
        """
        if request.method == "DELETE":
            return {"call": "", "tool": "", "manifest": ""}
        message = message_of(request.body)
        method = message.get("method")
        if isinstance(method, str) and method in _PLAIN | {_LIST}:
            return {"call": method, "tool": "", "manifest": ""}
        params = message.get("params")
        tool = params.get("name") if method == _CALL and isinstance(params, Mapping) else None
        if not isinstance(tool, str) or not any(fnmatchcase(tool, pattern) for pattern in self._tools):
            raise ResourceNotFound("no such tool")
        return {"call": _CALL, "tool": tool, "manifest": self._manifest(tool)}

    def answered(self, request: ApiRequest, answer: ApiAnswer) -> None:
        """Learn what the server says of its tools, if that was asked."""
        if request.method != "POST" or answer.status != 200 or message_of(request.body).get("method") != _LIST:
            return
        for message in _messages(answer):
            result = message.get("result")
            tools = result.get("tools") if isinstance(result, Mapping) else None
            for tool in tools if isinstance(tools, list) else ():
                self._learn(tool)

    def _learn(self, tool: object) -> None:
        name = tool.get("name") if isinstance(tool, Mapping) else None
        if not isinstance(name, str) or not is_text(name, _NAME):
            return
        if name in self._listed or len(self._listed) < _MOST:
            self._listed[name] = (manifest_of(tool), self._clock())

    def _manifest(self, tool: str) -> str:
        manifest, at = self._listed.get(tool, ("", 0))
        return manifest if self._clock() - at < _FRESH else ""


def manifest_of(description: object) -> str:
    """Return the hash, in hexadecimal digits, of all that is said of a tool or an agent, in whatever order."""
    return sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def message_of(text: bytes) -> Mapping[str, Any]:
    """Return the one JSON object in `text`; raise `ResourceNotFound` for anything else."""
    try:
        # Strictly: of two members with one name the policy could see another than the server does.
        return parse_object(text, depth=_DEPTH)
    except ValueError as error:
        raise ResourceNotFound("one message of the protocol at a time") from error


def _messages(answer: ApiAnswer) -> list[Mapping[str, Any]]:
    """Return the messages of an answer that is one, or a stream of them."""
    kind = dict(answer.headers).get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind != "text/event-stream":
            return [message_of(answer.body)]
        lines = [line.removeprefix(b"data:") for line in answer.body.splitlines() if line.startswith(b"data:")]
        return [message_of(line) for line in lines if line.strip()]
    except ResourceNotFound:
        return []
