"""The tasks that wait for a person's approval, over HTTP at the edge, with the person's own access token.

The edge shows facts that it has proved, and takes the person's verdict. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

import httpx2

from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.envelopes.denial import NOTHING_TOLD, Explanation, remedies_of
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, Denied, SealbusError

_SECONDS: Final = 30.0
"""Most seconds for one request: the edge waits for the agent."""
_PAGES: Final = 1_000
_WHOLE: Final = re.compile("[0-9]{1,5}")
_OK: Final = 200
_NEEDS: Final = frozenset({401, 403})


class Refused(SealbusError):
    """The edge refused, with its own `code`; another try makes sense after `retry_after` seconds, if that is not 0."""

    def __init__(self, code: str, detail: str, retry_after: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.retry_after = retry_after


class Approvals:
    """The approvals that wait at the edge with the URL `edge` for the holder of `token`. Use with `async with`.

    Raises `ConfigurationError` for a URL that would let others read the token.
    """

    def __init__(self, edge: str, token: str, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        if not is_secure_url(edge):
            raise ConfigurationError(
                "the edge is named by an https URL, or http on a loopback address: your token goes there"
            )
        self._pause = pause
        self._http = httpx2.AsyncClient(
            base_url=edge,
            timeout=_SECONDS,
            trust_env=False,
            follow_redirects=False,
            headers={"Authorization": f"Bearer {token}"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def waiting(self, queue: str) -> list[dict[str, Any]]:
        """Return the visible approvals in `queue`, as fast as the edge's rate limit allows. Raises as `submit_verdict`."""
        approvals: list[dict[str, Any]] = []
        after = 0
        for _ in range(_PAGES):
            try:
                page = await self._request("GET", f"/v1/approvals?{urlencode({'queue': queue, 'after': after})}")
            except Refused as error:
                if error.code != Code.RATE_LIMITED or not 0 < error.retry_after <= _SECONDS:
                    raise
                await self._pause(error.retry_after)
                continue
            approvals += page.get("approvals", [])
            if not (after := page.get("after", 0)):
                break
        return approvals

    async def approval(self, task: str) -> dict[str, Any]:
        """Return the approval with the id `task`. Raises as `submit_verdict`."""
        return await self._request("GET", _path(task))

    async def submit_verdict(self, task: str, verdict: str, *, decision: str, note: str = "") -> None:
        """Give `verdict` on the task that was shown with the denial `decision`; return once it is counted.

        Raises `Denied` if another login, scope or person is needed, `Refused` for every other refusal, `BusUnavailable` if
        the edge does not answer.
        """
        await self._request("POST", _path(task), {"decision": decision, "verdict": verdict, "note": note})

    async def _request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, path, json=body)
            document = answer.json()
        except httpx2.HTTPError as error:
            raise BusUnavailable(
                f"the edge at {self._http.base_url} does not answer: {type(error).__name__}"
            ) from error
        except ValueError as error:
            raise ConfigurationError(f"{self._http.base_url} is not an edge: it does not answer in JSON") from error
        if not isinstance(document, dict):
            raise ConfigurationError(f"{self._http.base_url} is not an edge")
        if answer.status_code == _OK:
            return document
        remedies = remedies_of(document.get("remedy"))
        explanation = Explanation(remedies=remedies) if remedies else NOTHING_TOLD
        if answer.status_code in _NEEDS:
            raise Denied(str(document.get("detail", "not allowed")), *explanation)
        after = answer.headers.get("retry-after", "")
        retry_after = int(after) if _WHOLE.fullmatch(after) else 0
        raise Refused(str(document.get("code", answer.status_code)), str(document.get("detail", "")), retry_after)


def _path(task: str) -> str:
    return f"/v1/approvals/{quote(task, safe='')}"
