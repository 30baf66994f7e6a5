"""Fetch documents of issuers over HTTP: bounded in size, and only from URLs that the issuer or the operator names."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import httpx2

from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.edge.oauth.issuers import Issuer, is_secure_url
from sealbus.agents.edge.oauth.keys.key_set import KeySet
from sealbus.envelopes.encoding.strict_json import Json, parse_object

_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,10})"?', re.IGNORECASE)
_UNCACHEABLE: Final = frozenset({"no-store", "no-cache"})
_HEADERS: Final = {
    "Accept": "application/json, application/jwk-set+json",
    # A compressed answer could grow without bound while it is decoded: none is requested or accepted.
    "Accept-Encoding": "identity",
    "User-Agent": "sealbus",
}
_NO_FIELDS: Final[Mapping[str, str]] = {}


class FetchFailed(Exception):
    """An issuer's document is not available or not valid. The text is for the operator's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedKeys:
    """A key set, and how many seconds it is fresh according to its response (None if the response does not say)."""

    keys: KeySet
    max_age: int | None


class Documents:
    """A reader of metadata, key sets and answers to forms. Use with `async with`; set a deadline around each read.

    `tls` verifies https, by default with the system's authorities. No redirect is followed: metadata and key sets have fixed
    addresses. Neither proxies nor credentials are taken from the environment. No cookie is kept: a cookie set for one user
    would be sent with another user's token, and the number of cookies has no bound.
    """

    def __init__(self, limits: EdgeLimits, tls: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        self._client = httpx2.AsyncClient(
            verify=tls if tls is not None else ssl.create_default_context(),
            headers=_HEADERS,
            timeout=limits.fetch_seconds,
            limits=httpx2.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=30.0),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def metadata(self, issuer: str) -> dict[str, Json]:
        """Return the metadata of `issuer`: that of OpenID Connect, or else that of RFC 8414.

        Raises `FetchFailed`, also if the metadata is of another issuer.
        """
        for url in _metadata_urls(issuer):
            status, document, _ = await self._get(url)
            if 400 <= status < 500:
                continue
            if status != 200:
                raise FetchFailed(f"metadata: status {status}")
            metadata = parsed_document(document, self._limits, "metadata")
            # Compared character by character. Otherwise one issuer could speak for another (RFC 8414 section 3.3).
            if metadata.get("issuer") != issuer:
                raise FetchFailed("metadata: of another issuer")
            return metadata
        raise FetchFailed("metadata: not found")

    async def jwks_uri(self, issuer: Issuer) -> str:
        """Return the URL of the keys of `issuer`, from its metadata.

        Raises `FetchFailed`, also if the metadata is of another issuer or points to a URL that is not https.
        """
        url = (await self.metadata(issuer.issuer)).get("jwks_uri")
        if type(url) is not str or not is_secure_url(url, plain=issuer.issuer.startswith("http:")):
            raise FetchFailed("metadata: jwks_uri is missing or not https")
        return url

    async def keys(self, url: str) -> FetchedKeys:
        """Return the key set at `url`; raise `FetchFailed`."""
        status, document, max_age = await self._get(url)
        if status != 200:
            raise FetchFailed(f"key set: status {status}")
        try:
            return FetchedKeys(keys=KeySet.parse(document, self._limits), max_age=max_age)
        except ValueError as error:
            raise FetchFailed(f"key set: {error}") from error

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
        """Return the answer of `url` to a form; raise `FetchFailed`."""
        status, document, _ = await self._read("POST", url, data=dict(form), headers=dict(headers))
        if status != 200:
            raise FetchFailed(f"status {status}")
        return document

    async def answer(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] = _NO_FIELDS
    ) -> tuple[int, bytes]:
        """Return status and body of the answer of `url` to a form, also of a refusal; raise `FetchFailed`.

        The connection is not used again: bytes beyond the answer would be taken for the answer to the next form.
        """
        fields = {**headers, "Connection": "close"}
        status, document, _ = await self._read("POST", url, refusals=True, data=dict(form), headers=fields)
        return status, document

    async def _get(self, url: str) -> tuple[int, bytes, int | None]:
        return await self._read("GET", url)

    async def _read(
        self, method: str, url: str, *, refusals: bool = False, **request: Any
    ) -> tuple[int, bytes, int | None]:
        """Return status, body (empty if the status is not 200, unless `refusals` is set) and `max-age`."""
        try:
            async with self._client.stream(method, url, **request) as response:
                if response.status_code != 200 and not refusals:
                    return response.status_code, b"", None
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise FetchFailed("compressed")
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > self._limits.document_bytes:
                        raise FetchFailed("too large")
                return response.status_code, bytes(body), _max_age(response.headers.get("cache-control", ""))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise FetchFailed(type(error).__name__) from error


async def end_all(flights: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `flights`, requests that several callers share, and return once they have ended."""
    ending = list(flights)
    for flight in ending:
        flight.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def parsed_document(document: bytes, limits: EdgeLimits, name: str) -> dict[str, Json]:
    """Return the JSON object in `document`. Raises `FetchFailed`, whose text begins with `name`, for anything else."""
    try:
        return parse_object(document, depth=limits.document_nesting)
    except ValueError:
        # The parser's own message could quote the document.
        raise FetchFailed(f"{name}: not a JSON object") from None


def _metadata_urls(issuer: str) -> tuple[str, str]:
    """Return both URLs of metadata: OpenID Connect appends its path, RFC 8414 section 3.1 puts its own in front."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        issuer.rstrip("/") + "/.well-known/openid-configuration",
        urlunsplit(parts._replace(path=f"/.well-known/oauth-authorization-server{path}")),
    )


def _max_age(cache_control: str) -> int | None:
    """Return the seconds that Cache-Control allows: 0 if it forbids caching, None if it names no time."""
    directives = [directive.strip() for directive in cache_control.split(",")]
    if not _UNCACHEABLE.isdisjoint(directive.lower() for directive in directives):
        return 0
    for directive in directives:
        match = _MAX_AGE.fullmatch(directive)
        if match is not None:
            return int(match[1])
    return None
