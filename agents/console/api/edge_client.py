"""A client of the edge, which the console calls with a person's access token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import httpx2

from sealbus.agents.console.agent import CONSOLE
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.envelopes.encoding.strict_json import deeper_than
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, SealbusError

_SECONDS: Final = 30.0
"""Time limit of one request. The edge waits for the agent meanwhile."""
_ANSWER_BYTES: Final = 8 << 20
_NESTING: Final = 80
"""Deeper than the body of a task within its document."""
_REQUEST_ID: Final = "x-request-id"
_OK: Final = frozenset({200, 202, 204})


class EdgeRefused(SealbusError):
    """The edge answered with an error. `body` is its problem document, `request` the id in the record of the decision."""

    def __init__(self, status: int, body: Mapping[str, Any], request: str) -> None:
        super().__init__(str(body.get("detail", "")))
        self.code = str(body.get("code", Code.INTERNAL))
        self.status = status
        self.body = body
        self.request = request


class EdgeClient:
    """Sends requests to the edge at `url`. Use with `async with`. Raises `ConfigurationError` for HTTP over a network."""

    def __init__(self, url: str) -> None:
        if not is_secure_url(url):
            raise ConfigurationError(
                "console.edge must be an https URL, or http on a loopback address: tokens go there"
            )
        self._http = httpx2.AsyncClient(base_url=url, timeout=_SECONDS, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, token: str, verb: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        """Return the answer of the console's own agent. Raises `EdgeRefused`, or `BusUnavailable` without an answer."""
        return await self.asked(token, "POST", f"/v1/calls/{CONSOLE}/{verb}", body)

    async def asked(
        self,
        token: str,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """Return the edge's answer to a request. Raises as `call`."""
        try:
            async with self._http.stream(
                method, path, json=body, params=query, headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                data = b""
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > _ANSWER_BYTES:
                        raise BusUnavailable("the edge answers with more than 8 MiB")
        except httpx2.HTTPError as error:
            raise BusUnavailable(f"the edge does not answer: {type(error).__name__}") from error
        document = _object(data)
        if answer.status_code not in _OK:
            raise EdgeRefused(answer.status_code, document, answer.headers.get(_REQUEST_ID, ""))
        return document


def _object(data: bytes) -> Mapping[str, Any]:
    if not data:
        return {}
    try:
        text = data.decode()
        if deeper_than(text, _NESTING):
            raise BusUnavailable("the edge does not answer in JSON that can be read")
        document = json.loads(text)
    except ValueError as error:
        raise BusUnavailable("the edge does not answer in JSON") from error
    return document if isinstance(document, dict) else {}


def quoted(text: str) -> str:
    """Return `text` as one segment of a path."""
    return quote(text, safe="")
