"""The edge as a user sees it: HTTP with an access token, or without."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any, Final, Protocol, Self
from uuid import uuid4

import httpx2

_SECONDS = 20.0
_OK: Final = 200
_MCP: Final = "2026-07-28"
_DOORS: Final = {
    "mcp": "/.well-known/oauth-protected-resource/mcp",
    "a2a": "/a2a/inventory/.well-known/agent-card.json",
}
"""A public document of each door, which is missing without the door."""


class TokenSource(Protocol):
    """A source of people's access tokens: the shop's own identity provider, or another one."""

    def __call__(self, user: str, *, session: str, audience: str, expires_in: int) -> str:
        """Return an access token as a login of `user` would issue it; empty texts leave the choice to the provider.

        Another `session` is another login; `expires_in` below 0 is a token that has expired.
        """
        ...


def session_of(token: str) -> str:
    """Return the session in a JWT, which is not verified here: the edge verifies it."""
    claims = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return str(claims["sid"])


class Door:
    """A client of the edge at `resource` over HTTP, with the tokens of `tokens`; enter with `async with`.

    `domain` is the domain of their issuer in the edge's settings, empty for our own issuer.
    """

    def __init__(self, resource: str, tokens: TokenSource, *, domain: str = "") -> None:
        self._tokens = tokens
        self._domain = domain
        self._http = httpx2.AsyncClient(base_url=resource, timeout=_SECONDS, trust_env=False, follow_redirects=False)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def token(self, user: str, *, session: str = "", audience: str = "", expires_in: int = 300) -> str:
        """Return an access token as a login of `user` would issue it."""
        return self._tokens(user, session=session, audience=audience, expires_in=expires_in)

    def user_id(self, user: str) -> str:
        """Return the id of `user` in decisions: for a partner's user it has the domain."""
        return f"{user}@{self._domain}" if self._domain else user

    async def post(self, path: str, body: object, token: str = "") -> httpx2.Response:
        """Post JSON, with `token` as bearer if there is one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self._http.post(path, json=body, headers=headers)

    async def get(self, path: str, token: str) -> httpx2.Response:
        """Get a document."""
        return await self._http.get(path, headers={"Authorization": f"Bearer {token}"})

    async def speaks(self, protocol: str) -> bool:
        """Return whether the edge has a door for `protocol`; "" is HTTP."""
        return not protocol or (await self._http.get(_DOORS[protocol])).status_code == _OK

    async def tool(self, name: str, arguments: dict[str, Any], token: str) -> tuple[dict[str, Any], str]:
        """Call an MCP tool; return its result and the id of the request."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": _MCP,
            "io.modelcontextprotocol/clientInfo": {"name": "demo", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": name, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": _MCP,
            "Mcp-Method": "tools/call",
            "Mcp-Name": name,
        }
        response = await self._http.post("/mcp", json=message, headers=headers)
        answer: dict[str, Any] = response.json()["result"]
        return answer, response.headers["x-request-id"]

    async def message(self, skill: str, data: dict[str, Any], token: str) -> tuple[dict[str, Any], str]:
        """Send an A2A message that requests a skill; return the answer, and the id of the request."""
        message = {
            "messageId": uuid4().hex,
            "role": "ROLE_USER",
            "parts": [{"data": data}],
            "metadata": {"skillId": skill},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        headers = {"Authorization": f"Bearer {token}", "A2A-Version": "1.0"}
        response = await self._http.post(f"/a2a/{skill.partition('.')[0]}/rpc", json=body, headers=headers)
        answer: dict[str, Any] = response.json()
        return answer, response.headers["x-request-id"]

    async def cancel(self, task: str, reason: str, token: str) -> httpx2.Response:
        """Cancel a task."""
        headers = {"Authorization": f"Bearer {token}"}
        return await self._http.request("DELETE", f"/v1/tasks/{task}", json={"reason": reason}, headers=headers)

    async def state(self, task: str, token: str, *, until: str = "") -> dict[str, object]:
        """Follow a task's states and return the first that is `until`, or else the last."""
        url, headers = f"/v1/tasks/{task}/events", {"Authorization": f"Bearer {token}"}
        async with self._http.stream("GET", url, headers=headers) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    state: dict[str, object] = json.loads(line.removeprefix("data: "))
                    if state["final"] or state["state"] == until:
                        return state
        raise TimeoutError(f"task {task} has no end")
