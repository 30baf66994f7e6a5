"""One question over HTTP: what a fault is called, and which are asked again."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from support.central_opa import OPA_ID, WORKER, tls_of
from support.identity import StaticIdentity
from support.opa_faults import Handler, always, serving_tls
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.agents.runtime.policy.opa_tls import OpaTls
from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.opa import http as opa_http
from sealbus.policies.opa.http import open_session, post

CA = ThrowawayCa("example.org")


@asynccontextmanager
async def session_to(url: str, context: ssl.SSLContext | None = None) -> AsyncGenerator[aiohttp.ClientSession, None]:
    session = open_session(url, aiohttp.TCPConnector(ssl=context or tls_of(CA).current().context))
    try:
        yield session
    finally:
        await session.close()


async def ask(url: str, context: ssl.SSLContext | None = None, *, connections: int = 0) -> tuple[int, bytes]:
    async with session_to(url, context) as session:
        return await post(session, "/v1/data/x", b'{"input":1}', connections=connections, where="here")


async def test_path_body_and_parameters_arrive_and_status_and_body_come_back() -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.path, dict(request.query), await request.read()))
        return web.Response(body=b"{}", status=418)

    async with serving_tls(CA, handler) as url:
        assert await ask(url) == (418, b"{}")
    assert seen == [
        ("POST", "/v1/data/x", {"provenance": "true", "strict-builtin-errors": "true"}, b'{"input":1}'),
    ]


async def test_an_answer_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opa_http, "REPLY_BYTES", 10)
    async with serving_tls(CA, always(b"x" * 10)) as url:
        assert await ask(url) == (200, b"x" * 10)
    async with serving_tls(CA, always(b"x" * 11)) as url:
        with pytest.raises(PolicyUnavailable, match="over 10 bytes"):
            await ask(url)


def breaking(times: int) -> tuple[list[int], Handler]:
    """Return a handler that ends the connection `times` times before it answers, and a count of its calls."""
    calls: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        calls.append(1)
        if len(calls) <= times:
            assert request.transport is not None
            request.transport.abort()
        return web.Response()

    return calls, handler


async def test_connections_that_end_are_asked_again_as_often_as_there_may_be_old_ones() -> None:
    calls, handler = breaking(2)
    async with serving_tls(CA, handler) as url:
        assert (await ask(url, connections=2))[0] == 200
    assert len(calls) == 3
    calls, handler = breaking(3)
    async with serving_tls(CA, handler) as url:
        with pytest.raises(PolicyUnavailable, match="OPA at here does not answer: ServerDisconnectedError"):
            await ask(url, connections=2)
    assert len(calls) == 3


async def test_a_session_that_was_closed_meanwhile_is_not_asked_again() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        await session.close()
        return web.Response()

    async with serving_tls(CA, handler) as url, session_to(url) as session:
        with pytest.raises(PolicyUnavailable, match="does not answer"):
            await post(session, "/", b"", connections=2, where="here")


async def test_nobody_listens() -> None:
    with pytest.raises(PolicyUnavailable, match=r"OPA at here does not answer: ClientConnectorError$"):
        await ask(f"https://127.0.0.1:{held_port()}", connections=2)


async def test_a_server_of_another_id_is_told_apart_from_one_of_another_authority() -> None:
    async with serving_tls(CA, always(b"{}"), spiffe_id="spiffe://example.org/nats") as url:
        with pytest.raises(PolicyUnavailable, match=r"the server is spiffe://example\.org/nats, expected spiffe:"):
            await ask(url)
    other = ThrowawayCa("example.org")
    async with serving_tls(other, always(b"{}")) as url:
        with pytest.raises(PolicyUnavailable, match=r"CertificateError, .*(certificate|signature)"):
            await ask(url)


async def test_a_server_without_tls_is_not_asked(tmp_path: Path) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response()

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", handler)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        [(_, port)] = runner.addresses
        with pytest.raises(PolicyUnavailable, match=r"TLS failed \(\w+"):
            await ask(f"https://127.0.0.1:{port}")
    finally:
        await runner.cleanup()
    assert asked == []


async def test_a_server_that_refuses_our_certificate() -> None:
    """It says so only after the handshake, so that it looks like a connection that broke."""
    identity = StaticIdentity(CA, WORKER)
    identity.show(ThrowawayCa("example.org").issue(WORKER))
    context = OpaTls(identity, expected=frozenset({SpiffeId(OPA_ID)})).current().context
    async with serving_tls(CA, always(b"{}")) as url:
        with pytest.raises(PolicyUnavailable, match=r"OPA at here does not answer: \w+"):
            await ask(url, context)
        assert (await ask(url))[0] == 200


async def test_what_tls_says_behind_a_broken_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> tuple[int, bytes]:
        raise aiohttp.ClientOSError(1, "broken") from ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] alert\nunknown ca")

    monkeypatch.setattr(opa_http, "_exchange", broken)
    with pytest.raises(PolicyUnavailable, match=r"ClientOSError, TLS failed \(.*alert unknown ca\)$"):
        await ask("https://127.0.0.1:1")
