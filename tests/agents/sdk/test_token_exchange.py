"""The client's side of the token service: whatever comes back is a context of ours, or a refusal that says which."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from support.envelopes import NOW, TRUST_DOMAIN, Issuer, agent
from support.identity import StaticIdentity
from support.x509 import ThrowawayCa

from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.sdk.token_exchange import (
    CONTEXT_TOKEN_BYTES,
    USER_CONTEXT_TYPE,
    ExchangeRefused,
    TokenExchange,
    TokenServiceUnavailable,
    context_token,
)
from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId

WEB, EDGE = agent("web"), agent("edge")
SECRET = "a-token-that-must-not-be-seen"
Handler = Callable[[httpx2.Request], httpx2.Response]


def minted(workload: SpiffeId | None = WEB, edge: SpiffeId = EDGE) -> Statement:
    return mint_user(Issuer().sealer(edge), DevUser("alice", workload=workload), trust_domain=TRUST_DOMAIN, now=NOW)


def said(statement: Statement, **changes: Any) -> dict[str, Any]:
    answer = {
        "access_token": context_token(statement),
        "issued_token_type": USER_CONTEXT_TYPE,
        "token_type": "N_A",
        "expires_in": 900,
    }
    return {**answer, **changes}


def exchange(url: str = "https://127.0.0.1:8444") -> TokenExchange:
    identity = StaticIdentity(ThrowawayCa(WEB.trust_domain.name), WEB.value)
    return TokenExchange(url, identity=identity, edges=frozenset({EDGE}))


async def asked(handler: Handler, monkeypatch: pytest.MonkeyPatch, url: str = "https://127.0.0.1:8444") -> Statement:
    """Ask a token service that answers as `handler` does."""
    made = exchange(url)

    @asynccontextmanager
    async def client() -> AsyncGenerator[httpx2.AsyncClient, None]:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as one:
            yield one

    monkeypatch.setattr(made, "_client", client)
    return await made.user_context(SECRET)


def answering(status: int, content: object) -> Handler:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda _: httpx2.Response(status, content=body)


async def test_the_token_goes_out_in_the_form_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[httpx2.Request] = []
    statement = minted()

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=said(statement))

    assert await asked(handler, monkeypatch) == statement
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://127.0.0.1:8444/token")
    assert parse_qs(request.content.decode())["subject_token"] == [SECRET]
    assert SECRET not in f"{request.url} {request.headers}"


async def test_a_path_of_its_own_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        urls.append(str(request.url))
        return httpx2.Response(200, json=said(minted()))

    await asked(handler, monkeypatch, "https://127.0.0.1:8444/sts/exchange")
    assert urls == ["https://127.0.0.1:8444/sts/exchange"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 20_000,
        said(minted(), token_type="Bearer"),
        said(minted(), issued_token_type="urn:ietf:params:oauth:token-type:access_token"),
        said(minted(), access_token=None),
        said(minted(), access_token="abc"),
        said(minted(workload=agent("other"))),
        said(minted(workload=None)),
        said(minted(edge=agent("not-the-edge"))),
    ],
)
async def test_what_is_not_a_context_of_ours_is_never_used(content: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenServiceUnavailable) as raised:
        await asked(answering(200, content), monkeypatch)
    assert SECRET not in repr(raised.value)


async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    async def endless() -> AsyncGenerator[bytes, None]:
        nonlocal read
        while True:
            read += 1_024
            yield b" " * 1_024

    with pytest.raises(TokenServiceUnavailable, match="too long"):
        await asked(lambda _: httpx2.Response(200, content=endless()), monkeypatch)
    assert read < 2 * CONTEXT_TOKEN_BYTES


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (401, {"code": "token_expired", "error": "invalid_grant", "error_description": "old"}, Code.TOKEN_EXPIRED),
        (400, {"code": "bad_token"}, Code.BAD_TOKEN),
        (429, {"code": "rate_limited"}, Code.RATE_LIMITED),
    ],
)
async def test_a_refusal_has_the_code_of_the_edge(
    status: int, content: dict[str, str], code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExchangeRefused) as raised:
        await asked(answering(status, content), monkeypatch)
    assert raised.value.code is code


@pytest.mark.parametrize(
    ("status", "content"),
    [(503, {"code": "keys_unavailable"}), (500, {}), (404, b"<html>"), (302, b""), (204, b""), (400, {"code": "no"})],
)
async def test_a_service_that_cannot_is_unavailable(
    status: int, content: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TokenServiceUnavailable):
        await asked(answering(status, content), monkeypatch)


async def test_no_redirect_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        urls.append(str(request.url))
        return httpx2.Response(307, headers={"location": "https://127.0.0.1:9/token"})

    with pytest.raises(TokenServiceUnavailable, match="307"):
        await asked(handler, monkeypatch)
    assert len(urls) == 1


async def test_a_failure_of_the_connection_keeps_the_token_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route", request=request)

    with pytest.raises(TokenServiceUnavailable, match="no route") as raised:
        await asked(handler, monkeypatch)
    # The request, which holds the form, must not hang on the error that operators log.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8444",
        "http://127.0.0.1:8444",
        "https://",
        "https://127.0.0.1/token?x=1",
        "https://127.0.0.1/#x",
        "https://user@127.0.0.1/",
    ],
)
def test_the_address_is_https_and_plain(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https URL"):
        exchange(url)
