"""Questions of operators to a running OPA over TCP: its health, its policies, and its decisions.

They use opa-python-client (`opa.client`), which is imported with the first question. Messages never use this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable

if TYPE_CHECKING:
    from sealbus.policies.opa.client import OpaClient

_DOCUMENT: Final = re.compile(r"data(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_PROVENANCE: Final = {"provenance": "true"}
_STRICT: Final = {"strict-builtin-errors": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaStatus:
    """The status of a running OPA; `revisions` by bundle name, empty if there are none.

    `policies` are the names of its Rego files, `<bundle>/<path>` for those of a bundle. `problems`, by bundle name, say why
    the newest bundle is not in force; `healthy` is still true then. Only an OPA with `status` in its configuration reports
    problems.
    """

    healthy: bool
    version: str = ""
    revisions: Mapping[str, str] = field(default_factory=dict)
    policies: tuple[str, ...] = ()
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
        self._host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self._port = port or 8181
        self._tls = parts.scheme == "https"
        self._token = token
        self._seconds = seconds

    @property
    def place(self) -> str:
        """The host and port that are asked."""
        return f"{self._host}:{self._port}"

    async def status(self) -> OpaStatus:
        """Return health, version and bundle revisions. If OPA does not answer, only `healthy` is set, to false."""
        try:
            async with self._client() as client:
                healthy = await client.check_health()
                answer = await client.query_rule({"batch": []}, "sealbus.authz.batch", query_params=_PROVENANCE)
        except (PolicyFailed, PolicyUnavailable):
            return OpaStatus(healthy=False)
        provenance = answer.get("provenance")
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
            policies=await self._policies(),
            problems=await self._problems(),
        )

    async def _policies(self) -> tuple[str, ...]:
        try:
            async with self._client() as client:
                return tuple(sorted(map(str, await client.get_policies_list())))
        except (PolicyFailed, PolicyUnavailable, AttributeError, TypeError):
            return ()  # OPA's guard may forbid this, and the client does not check the answer's form

    async def _problems(self) -> Mapping[str, str]:
        try:
            async with self._client() as client:
                status = (await client.get_status()).get("result")
        except (PolicyFailed, PolicyUnavailable):
            return {}  # OPA answers so without `status` in its configuration
        bundles = status.get("bundles") if isinstance(status, dict) else None
        return {
            str(name): f"{bundle['code']}: {bundle.get('message', '')}"
            for name, bundle in (bundles.items() if isinstance(bundles, dict) else ())
            if isinstance(bundle, dict) and bundle.get("code")
        }

    async def query(self, query: str, document: object = None) -> object:
        """Return OPA's answer to `query` with the input `document` (None for no input), as JSON values.

        A plain path such as `data.sealbus.authz.decision` gives that document, None if it is undefined; anything else is an
        ad-hoc query and gives its list of bindings. Raises `PolicyFailed` if OPA refuses the query or cannot evaluate it,
        `PolicyUnavailable` if it does not answer, `ConfigurationError` for an ad-hoc query with an empty input.
        """
        from sealbus.policies.opa.client import read_document

        path = query.removeprefix("data").removeprefix(".")
        plain = _DOCUMENT.fullmatch(query) is not None
        if not plain and document is not None and not document:
            raise ConfigurationError("an ad-hoc query cannot have an empty input: give an input with members, or none")
        async with self._client() as client:
            if not plain:
                answer = await client.ad_hoc_query(query, document, _STRICT)
            elif document is not None:
                answer = await client.query_rule(document, path, query_params=_STRICT)
            else:
                answer = await read_document(client, path.replace(".", "/"), _STRICT)
        return answer.get("result")

    def _client(self) -> AbstractAsyncContextManager[OpaClient]:
        from sealbus.policies.opa.client import open_client

        return open_client(self._host, self._port, tls=self._tls, token=self._token, seconds=self._seconds)
