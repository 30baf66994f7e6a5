"""The identity provider as its client sees it: the endpoints of its metadata, and bounded answers to forms.

Forms and answers hold codes and tokens, so an error shows neither of them, and is not chained to an error that holds them.
Nor does it show a provider's own texts: only the codes of RFC 6749 and RFC 8628 are shown.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self, TypeVar

from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.edge.oauth.keys.discovery import Documents, FetchFailed
from sealbus.agents.login.public_client import PublicClient
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code, SealbusError

SECONDS: Final = 10.0
"""Seconds for one request, from its first byte to the last byte of the answer."""

_NESTING: Final = 8
_CODE: Final = re.compile("[a-z][a-z_]{0,63}")
_LATER: Final = frozenset({"server_error", "temporarily_unavailable"})
_HELP: Final = MappingProxyType(
    {
        "access_denied": "you, or the provider for you, refused on its page",
        "invalid_client": "it does not know this client as a public one: check client.client_id",
        "unauthorized_client": "this client may not log in so: allow it at the provider, or try --browser or --device",
        "unsupported_grant_type": "the provider cannot do this: try --browser or --device",
        "invalid_scope": "it does not give these scopes: check client.scope",
        "invalid_target": "it gives no tokens for this resource: check client.resource",
        "invalid_grant": "the code has expired or was used: run `sealbus login` again",
    }
)

T = TypeVar("T")


class LoginFailed(SealbusError):
    """A login did not happen: the provider or its user refused, or an answer was malformed."""

    code = Code.LOGIN_FAILED


class ProviderUnavailable(LoginFailed):
    """The provider cannot be reached or cannot answer now; the same request may succeed later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The endpoints for a public client in an issuer's metadata: https, or http if the issuer itself is on loopback."""

    token: str
    authorization: str | None
    device_authorization: str | None
    revocation: str | None
    says_issuer: bool
    """Whether answers in a browser name the issuer (RFC 9207)."""
    s256: bool
    """Whether the metadata allows PKCE by S256; true if it names no methods."""

    @classmethod
    def parse(cls, metadata: Mapping[str, Json], issuer: str) -> Self:
        """Return the endpoints in the metadata of `issuer`; raise `LoginFailed` for a missing or insecure endpoint."""
        plain = issuer.startswith("http:")

        def endpoint(name: str) -> str | None:
            url = metadata.get(f"{name}_endpoint")
            if url is not None and (type(url) is not str or not is_secure_url(url, plain=plain)):
                raise LoginFailed(f"the metadata of {issuer} has a {name}_endpoint that is not an https URL")
            return url

        token = endpoint("token")
        if token is None:
            raise LoginFailed(f"the metadata of {issuer} has no token_endpoint")
        methods = metadata.get("code_challenge_methods_supported")
        return cls(
            token=token,
            authorization=endpoint("authorization"),
            device_authorization=endpoint("device_authorization"),
            revocation=endpoint("revocation"),
            says_issuer=metadata.get("authorization_response_iss_parameter_supported") is True,
            s256=methods is None or (type(methods) is list and "S256" in methods),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """An endpoint's answer: `error` is its code of RFC 6749 section 5.2 or alike, empty for success."""

    error: str
    members: Mapping[str, Json] = field(repr=False)


class Provider:
    """The endpoints of a client's issuer, open while `open_provider` is."""

    def __init__(self, client: PublicClient, endpoints: Endpoints, documents: Documents) -> None:
        self.client = client
        self.endpoints = endpoints
        self._documents = documents

    async def ask(self, url: str, form: Mapping[str, str]) -> Answer:
        """Return the answer of an endpoint to `form`, which is sent as the client.

        Raises `ProviderUnavailable` if it cannot answer now, `LoginFailed` for a malformed answer.
        """
        return self._answer(*await self._post(url, form))

    def _answer(self, status: int, body: bytes) -> Answer:
        members: Mapping[str, Json] | None
        try:
            members = parse_object(body, depth=_NESTING)
        except ValueError:
            members = None
        stated = None if members is None else members.get("error")
        error = stated if type(stated) is str and _CODE.fullmatch(stated) else ""
        if error in _LATER or (not error and (status >= 500 or status == 429)):
            raise ProviderUnavailable(f"{self.client.issuer} cannot answer now (status {status}): try again later")
        if status != 200 or stated is not None:
            return Answer(error or f"status {status}", {})
        if members is None:
            raise LoginFailed(f"{self.client.issuer} did not answer with a JSON object")
        return Answer("", members)

    async def revoke(self, token: str, kind: str) -> bool:
        """Revoke `token`, of a kind of RFC 7009 section 2.1; return false if the provider cannot revoke such tokens.

        Raises `ProviderUnavailable`, or `LoginFailed` if it refuses.
        """
        if self.endpoints.revocation is None:
            return False
        status, body = await self._post(self.endpoints.revocation, {"token": token, "token_type_hint": kind})
        if status == 200:
            # The body has no meaning (RFC 7009 section 2.2).
            return True
        answer = self._answer(status, body)
        if answer.error == "unsupported_token_type":
            return False
        raise refusal(answer, self.client.issuer)

    async def _post(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        asking = self._documents.answer(url, {**form, "client_id": self.client.client_id})
        return await _within(asking, self.client.issuer)


@asynccontextmanager
async def open_provider(client: PublicClient, *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Provider, None]:
    """Read the issuer's metadata and yield its endpoints; `tls` verifies https, by default with the system's authorities.

    No redirect is followed, and neither proxies nor credentials are taken from the environment. Raises `LoginFailed`.
    """
    async with Documents(DEFAULT_EDGE_LIMITS, tls) as documents:
        metadata = await _within(documents.metadata(client.issuer), client.issuer)
        yield Provider(client, Endpoints.parse(metadata, client.issuer), documents)


def refusal(answer: Answer, issuer: str) -> LoginFailed:
    """Return the error for a refusal, with a remedy if one is known."""
    return LoginFailed(f"{issuer} refused: {answer.error}{_help(answer.error)}")


def _help(error: str) -> str:
    return f"; {_HELP[error]}" if error in _HELP else ""


async def _within(asking: Awaitable[T], issuer: str) -> T:
    trouble = ""
    try:
        async with asyncio.timeout(SECONDS):
            return await asking
    except TimeoutError:
        trouble = f"no answer in {SECONDS:g} s"
    except FetchFailed as error:
        trouble = str(error)
    # Raised outside the handlers, because the cause holds the request with its form.
    raise ProviderUnavailable(f"{issuer}: {trouble}")
