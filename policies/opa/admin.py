"""Questions to a running OPA over TCP, for operators: is it healthy, which policy is in force, how would it decide.

Built on opa-python-client, which is imported only when something is asked. Never used on the path of a message.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import aiohttp

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable

__all__ = ["OpaAdmin", "OpaStatus"]

_DOCUMENT: Final = re.compile(r"data(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_PROVENANCE: Final = {"provenance": True}
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


class _Client(Protocol):
    """The used part of `opa_client.AsyncOpaClient`, which is untyped."""

    async def check_health(self) -> bool: ...
    async def get_status(self) -> dict[str, object]: ...
    async def query_rule(
        self, input_data: object, package_path: str, *, query_params: Mapping[str, object]
    ) -> dict[str, object]: ...
    async def ad_hoc_query(
        self, query: str, input_data: object, query_params: Mapping[str, object]
    ) -> dict[str, object]: ...


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
        self._host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._tls = parts.scheme == "https"
        self._port = port or 8181
        self._token = token
        self._seconds = seconds

    async def status(self) -> OpaStatus:
        """Return health, version and bundle revisions; only `healthy` false if OPA does not answer."""
        try:
            async with self._client() as client:
                healthy = await client.check_health()
                said = await client.query_rule({"batch": []}, "sealbus.authz.batch", query_params=_PROVENANCE)
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

    async def _problems(self) -> Mapping[str, str]:
        try:
            async with self._client() as client:
                said = (await client.get_status()).get("result")
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
        async with self._client() as client:
            if _DOCUMENT.fullmatch(query):
                path = query.removeprefix("data").removeprefix(".")
                said = await client.query_rule(document, path, query_params=_STRICT)
            else:
                said = await client.ad_hoc_query(query, document, _STRICT)
        return said.get("result")

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[_Client, None]:
        from opa_client import AsyncOpaClient  # type: ignore[import-untyped]  # it has no types

        try:
            async with AsyncOpaClient(
                host=self._host,
                port=self._port,
                ssl=self._tls,
                token=self._token or None,
                retries=0,
                timeout=self._seconds,
            ) as client:
                yield cast("_Client", client)
        except aiohttp.ClientResponseError as error:
            if error.status in (400, 500):
                raise PolicyFailed(f"OPA refuses the query or cannot evaluate it: status {error.status}") from error
            raise PolicyUnavailable(f"OPA answered with status {error.status}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            text = f"OPA at {self._host}:{self._port} does not answer: {type(error).__name__}"
            raise PolicyUnavailable(text) from error
