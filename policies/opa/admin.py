"""Questions to a running OPA over TCP, for operators: is it healthy, which policy is in force, how would it decide.

Never used on the path of a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable

__all__ = ["OpaAdmin", "OpaStatus"]

ANSWER_BYTES: Final = 16_777_216
"""Longest answer that is read."""
_DOCUMENT: Final = re.compile(r"data(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_PROVENANCE: Final = {"provenance": "true"}
_STRICT: Final = {"strict-builtin-errors": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaStatus:
    """The status of a running OPA; `revisions` by bundle name, empty if there are none.

    `problems`, by bundle name, say why the newest bundle is not in force: `healthy` stays true then. Only an OPA whose
    configuration has `status` knows them.
    """

    healthy: bool
    version: str = ""
    revisions: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


class OpaAdmin:
    """Asks the OPA at `url`, such as `http://127.0.0.1:8181` or `https://opa.example.org:8443`.

    `token` is a bearer token; certificates are checked against the system's, or SSL_CERT_FILE's. Each question has
    `seconds` and is asked once. Construction raises `ConfigurationError` for any other URL.
    """

    def __init__(self, url: str, *, token: str = "", seconds: float = 5.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{url!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigurationError(f"{url!r} is not http://HOST:PORT or https://HOST:PORT")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._place = f"{host}:{port or 8181}"
        self._url = f"{parts.scheme}://{self._place}"
        self._token = token
        self._seconds = seconds

    async def status(self) -> OpaStatus:
        """Return health, version and bundle revisions; only `healthy` false if OPA does not answer."""
        try:
            healthy = await self._is_healthy()
            said = await self._asked("POST", "/v1/data/sealbus/authz/batch", _PROVENANCE, {"input": {"batch": []}})
        except (PolicyFailed, PolicyUnavailable):
            return OpaStatus(healthy=False)
        provenance = said.get("provenance")
        known = provenance if isinstance(provenance, dict) else {}
        bundles = known.get("bundles")
        return OpaStatus(
            healthy=healthy,
            version=str(known.get("version", "")),
            revisions={
                str(name): str(bundle.get("revision", ""))
                for name, bundle in (bundles.items() if isinstance(bundles, dict) else ())
                if isinstance(bundle, dict)
            },
            problems=await self._problems(),
        )

    async def _is_healthy(self) -> bool:
        try:
            await self._asked("GET", "/health")
        except PolicyFailed:
            return False
        return True

    async def _problems(self) -> Mapping[str, str]:
        try:
            said = (await self._asked("GET", "/v1/status")).get("result")
        except (PolicyFailed, PolicyUnavailable):
            return {}  # OPA's answer where nobody configured it
        bundles = said.get("bundles") if isinstance(said, dict) else None
        return {
            str(name): f"{bundle['code']}: {bundle.get('message', '')}"
            for name, bundle in (bundles.items() if isinstance(bundles, dict) else ())
            if isinstance(bundle, dict) and bundle.get("code")
        }

    async def query(self, query: str, document: object = None) -> object:
        """Return OPA's answer to `query` with the input `document` (None for no input), as JSON values.

        A plain path such as `data.sealbus.authz.decision` gives that document, None if it is undefined; anything else is an
        ad-hoc query and gives its list of bindings. Raises `PolicyFailed` if OPA refuses the query or cannot evaluate it,
        `PolicyUnavailable` if it does not answer.
        """
        given = {"input": document} if document is not None else {}
        if _DOCUMENT.fullmatch(query):
            path = query.removeprefix("data").replace(".", "/")
            said = await self._asked("POST", f"/v1/data{path}", _STRICT, given)
        else:
            said = await self._asked("POST", "/v1/query", _STRICT, {"query": query, **given})
        return said.get("result")

    async def _asked(
        self, method: str, path: str, parameters: Mapping[str, str] = _NONE, body: Mapping[str, object] | None = None
    ) -> dict[str, object]:
        """Return OPA's answer, a JSON object; of what is none, nothing. Raises as `query`."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        limit = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=limit) as session,
                session.request(
                    method, f"{self._url}{path}", params=parameters, json=body, allow_redirects=False
                ) as answer,
            ):
                raw = await _read(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"OPA at {self._place} does not answer: {type(error).__name__}"
            raise PolicyUnavailable(text) from error
        if answer.status in (400, 500):
            raise PolicyFailed(f"OPA refuses the query or cannot evaluate it: status {answer.status}")
        if answer.status != HTTPStatus.OK:
            raise PolicyUnavailable(f"OPA answered with status {answer.status}")
        try:
            said = json.loads(raw or b"{}")
        except ValueError as error:
            raise PolicyUnavailable("OPA's answer is not JSON") from error
        return said if isinstance(said, dict) else {}


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer; raise `PolicyUnavailable` for one beyond `ANSWER_BYTES`."""
    raw = bytearray()
    async for part in answer.content.iter_any():
        raw += part
        if len(raw) > ANSWER_BYTES:
            raise PolicyUnavailable("OPA's answer is too long")
    return bytes(raw)
