"""One API outside: its allowed operations, its addresses, and requests to it, bounded in size and time."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Self
from urllib.parse import urlsplit

import httpx2

from sealbus.agents.edge.egress import outside_agents, outside_tools
from sealbus.agents.edge.egress.credential import Credential
from sealbus.agents.edge.egress.operation import Operation
from sealbus.agents.edge.egress.outside_agents import AgentRequests
from sealbus.agents.edge.egress.outside_tools import ToolRequests
from sealbus.agents.edge.http.reachable import AddressRefused, Network, Resolve, address_of, resolve
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.runtime.tracing import traceparent_fields
from sealbus.agents.sdk.http import MOST_FIELDS, ApiAnswer, ApiRequest
from sealbus.agents.sdk.resource import Resource
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.bus.routing.retry import Reject
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import ConfigurationError, ResourceNotFound
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.trust.names import is_token

_logger: Final = logging.getLogger(__name__)

ANSWER_BYTES: Final = 524_288
"""The longest body of an answer; its base64 has to fit an envelope (SPEC.md section 2)."""
SECONDS: Final = 10.0
MOST_SECONDS: Final = 3_600.0
_RESOLVING: Final = 4
"""Threads of an API that resolve its name."""

ADDRESS_REFUSED: Final = "address_refused"
API_UNREACHABLE: Final = "api_unreachable"
API_TIMEOUT: Final = "api_timeout"
FIELD_REFUSED: Final = "field_refused"
ANSWER_REFUSED: Final = "answer_refused"

_SENT: Final = frozenset(
    {
        "accept",
        "accept-language",
        "content-language",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-unmodified-since",
        "prefer",
    }
)
"""Fields that an agent may send. Others are refused, so that no agent believes that they arrived."""
_ANSWERED: Final = frozenset(
    {
        "content-language",
        "content-type",
        "date",
        "deprecation",
        "etag",
        "last-modified",
        "link",
        "preference-applied",
        "retry-after",
        "sunset",
    }
)
"""Fields of an answer that are passed on: no cookies, no challenges, no addresses of the API."""
_FIELD: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_VALUE: Final = re.compile(r"[\t -~]{0,4096}")
_QUERY: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,4096}")
_BODILESS: Final = frozenset({"GET", "HEAD", "DELETE"})
"""Methods whose body has no meaning: a server that ignores it may read it as the next request (RFC 9110 section 9.3.1)."""
_FORBIDDEN: Final = frozenset(
    {
        *("authorization", "proxy-authorization", "cookie", "set-cookie", "www-authenticate", "proxy-authenticate"),
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect"),
        *("accept-encoding", "content-encoding", "user-agent"),
    }
)
"""Fields that no setting may let through: the exit alone states the caller and the framing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """An API by its settings. Raises `ConfigurationError` for values that cannot be right.

    `url` is the base URL, to which paths are appended: https, or http on a loopback address. Only `operations` may be
    requested. The API's addresses must lie in `networks`; if that is empty, they must be public. `headers` are fields that
    may pass in both directions beside the usual fields. With `tools`, patterns of names, the API is an MCP server; with
    `card`, the path of its card, it is an A2A agent. `seconds` bounds one request. `tls` verifies the API's certificate.
    """

    name: str
    url: str
    operations: tuple[Operation, ...]
    credential: Credential
    networks: tuple[Network, ...] = ()
    headers: frozenset[str] = frozenset()
    tools: tuple[str, ...] = ()
    card: str = ""
    seconds: float = SECONDS
    tls: ssl.SSLContext = field(repr=False)

    def __post_init__(self) -> None:
        if not is_token(self.name):
            raise ConfigurationError(f"egress.apis {self.name[:64]!r}: letters, digits, - and _ only")
        if not is_secure_url(self.url) or "?" in self.url or "%" in self.url:
            raise ConfigurationError(f"url of {self.name}: must be an https URL, or http on a loopback address")
        shapes = {(operation.method, operation.shape) for operation in self.operations}
        if not shapes or len(shapes) != len(self.operations):
            raise ConfigurationError(f"operations of {self.name}: at least one, and each once")
        credential_fields = frozenset(name.lower() for name in self.credential.fields(""))
        if not all(map(_FIELD.fullmatch, self.headers)) or not (_FORBIDDEN | credential_fields).isdisjoint(
            self.headers
        ):
            raise ConfigurationError(
                f"headers of {self.name}: names in lower case, and none that authenticates or frames a request"
            )
        # If an agent sent a field of the same name, the API could read either.
        if not credential_fields.isdisjoint(_SENT | _FORBIDDEN - {"authorization", "cookie"}):
            raise ConfigurationError(f"key_header of {self.name}: a field that has no other purpose")
        if self.tools and self.card:
            raise ConfigurationError(f"tools and card of {self.name}: it is an MCP server or an A2A agent")
        if self.card and not any(operation.match("GET", self.card) is not None for operation in self.operations):
            raise ConfigurationError(f"card of {self.name}: GET {self.card} is none of its operations")
        if not 0 < self.seconds <= MOST_SECONDS:
            raise ConfigurationError(f"seconds of {self.name}: over 0 and at most {MOST_SECONDS:.0f}")

    @property
    def passed(self) -> frozenset[str]:
        """Fields that pass beside the usual fields."""
        own = outside_tools.HEADERS if self.tools else outside_agents.HEADERS if self.card else frozenset()
        return self.headers | own

    @property
    def host(self) -> str:
        """The host of `url`, in lower case."""
        return urlsplit(self.url).hostname or ""

    def resource(self, request: ApiRequest, **more: str) -> Resource:
        """Return the resource for the policy: the operation, the values of its variables by name, and `more`.

        If several operations match, the more specific one is taken, in any order of the settings: `/users/me` before
        `/users/{user}`. Raises `ResourceNotFound` if none matches.
        """
        matching = [
            (operation.shape, operation, values)
            for operation in self.operations
            if (values := operation.match(request.method, request.path)) is not None
        ]
        if not matching:
            raise ResourceNotFound(f"{self.name} has no such operation")
        _, operation, values = min(matching)
        properties = {"api": self.name, "host": self.host, "method": operation.method, "template": operation.template}
        if self.tools:
            name = " ".join(filter(None, (self.name, more["call"], more["tool"])))
            return Resource("mcp", name, **{**properties, **values, **more})
        if self.card:
            return Resource("a2a", f"{self.name} {more['call']}", **{**properties, **values, **more})
        return Resource("http", f"{self.name} {operation}", **{**properties, **values})


class OpenApi:
    """An API with its connections. Use with `async with`.

    Neither proxies nor credentials are taken from the environment. No redirect is followed: it would be a request that no
    policy has decided. Each request has a connection of its own. On a shared connection, bytes beyond an answer would become
    the answer to the next request, and an unread part of a body the beginning of the next request.
    """

    def __init__(self, api: Api, *, resolving: Resolve | None = None, clock: Clock = wall_clock) -> None:
        self.api: Final = api
        self._outside: ToolRequests | AgentRequests | None = None
        if api.tools:
            self._outside = ToolRequests(api.tools, clock)
        elif api.card:
            self._outside = AgentRequests(api.card, clock)
        # Threads of its own: a name whose servers do not answer occupies a thread after its request has timed out.
        self._threads = ThreadPoolExecutor(_RESOLVING, thread_name_prefix=f"names of {api.name}")
        self._resolving = resolving or partial(resolve, threads=self._threads)
        parts = urlsplit(api.url)
        self._scheme, self._netloc, self._base = parts.scheme, parts.netloc, parts.path.rstrip("/")
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        # A transport and not a client: a client would send cookies of one user with requests of another. A transport for each
        # API, because its pool treats two hosts at one address as one.
        self._transport = httpx2.AsyncHTTPTransport(
            verify=api.tls,
            limits=httpx2.Limits(max_connections=64),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.api.credential.close()
        await self._transport.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def resource(self, request: ApiRequest) -> Resource:
        """Return the resource for the policy (`Api.resource`), of MCP servers and A2A agents with the manifest."""
        return self.api.resource(request, **(self._outside.properties(request) if self._outside is not None else {}))

    async def request(self, request: ApiRequest, user: UserContext | None) -> ApiAnswer:
        """Return the API's answer to an allowed `request` on behalf of `user`; raise `Reject`.

        If the API does not accept a token (401), the request is repeated once with a new token.
        """
        fields = self._sent(request)
        try:
            async with asyncio.timeout(self.api.seconds):
                secret = await self.api.credential.secret(user)
                answer = await self._request(request, fields, secret)
                if answer.status == httpx2.codes.UNAUTHORIZED and self.api.credential.forget(user, secret):
                    answer = await self._request(request, fields, await self.api.credential.secret(user))
        except AddressRefused as error:
            _logger.error("API %s: %s", self.api.name, error)  # noqa: TRY400  the operator needs no traceback
            raise Reject(ADDRESS_REFUSED) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            _logger.warning("API %s has not answered in %g s", self.api.name, self.api.seconds)
            raise Reject(API_TIMEOUT) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            # The texts of these errors hold parts of the request.
            _logger.warning("API %s: %s", self.api.name, type(error).__name__)
            raise Reject(API_UNREACHABLE) from None
        if self._outside is not None:
            self._outside.answered(request, answer)
        return answer

    def _sent(self, request: ApiRequest) -> dict[str, str]:
        fields: dict[str, str] = {}
        for name, value in request.headers:
            small = name.lower()
            if small not in _SENT | self.api.passed or small in fields or not _VALUE.fullmatch(value):
                raise Reject(FIELD_REFUSED, note=f"header field {small}"[:200] if _FIELD.fullmatch(small) else "")
            fields[small] = value
        if _QUERY.fullmatch(request.query) is None:
            raise Reject(FIELD_REFUSED, note="query")
        if request.body and request.method in _BODILESS:
            raise Reject(FIELD_REFUSED, note="body")
        return fields

    async def _request(self, request: ApiRequest, fields: Mapping[str, str], secret: str) -> ApiAnswer:
        address = await address_of(self.api.host, self._port, self.api.networks, resolving=self._resolving)
        at = f"[{address}]" if ":" in address else address
        query = f"?{request.query}" if request.query else ""
        sending = httpx2.Request(
            request.method,
            f"{self._scheme}://{at}:{self._port}{self._base}{request.path}{query}",
            headers={
                **traceparent_fields(),
                **fields,
                "host": self._netloc,
                "connection": "close",
                # A compressed answer could grow without bound while it is decoded.
                "accept-encoding": "identity",
                "user-agent": "sealbus",
                **self.api.credential.fields(secret),
            },
            content=request.body or None,
            # The certificate is verified for the name, not the address.
            extensions={"sni_hostname": self.api.host, "timeout": httpx2.Timeout(self.api.seconds).as_dict()},
        )
        response = await self._transport.handle_async_request(sending)
        try:
            return self._answered(response, await _body(response), secret)
        finally:
            await response.aclose()

    def _answered(self, response: httpx2.Response, body: bytes, secret: str) -> ApiAnswer:
        passed = _ANSWERED | self.api.passed
        fields = [(name, value) for name, value in response.headers.multi_items() if name in passed]
        location = self._relative(response.headers.get("location", ""))
        if location:
            fields.append(("location", location))
        parts = [body, *(value.encode() for _, value in fields)]
        if any(secret.encode() in part for part in parts):
            _logger.error("API %s answers with the credential that it got: the answer is dropped", self.api.name)
            raise Reject(ANSWER_REFUSED)
        if len(fields) > MOST_FIELDS or not all(is_text(value, 4_096) for _, value in fields):
            raise Reject(ANSWER_REFUSED)
        return ApiAnswer(status=response.status_code, headers=tuple(fields), body=body)

    def _relative(self, location: str) -> str:
        """Return the path of a `Location` below the API's URL, as agents request it; empty for any other location."""
        for start in (self.api.url.rstrip("/"), self._base):
            path = location.removeprefix(start)
            if len(path) == len(location) - len(start) and path.startswith("/") and not path.startswith("//"):
                return path
        return ""


async def _body(response: httpx2.Response) -> bytes:
    """Return the body of an answer; raise `Reject` if it is compressed or too long."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise Reject(ANSWER_REFUSED, note="compressed")
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > ANSWER_BYTES:
            raise Reject(ANSWER_REFUSED, note="too large")
        # Thousands of pieces of one byte may arrive at once. Between them other tasks, and the deadline, get their turn.
        await asyncio.sleep(0)
    return bytes(body)
