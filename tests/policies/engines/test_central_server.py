"""One of the OPAs that the central engine asks: its address, and what counts as its failure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from support.central_opa import tls_of
from support.opa_faults import always, answer_well, good, serving_tls
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.envelopes.errors import ConfigurationError, PolicyFailed, PolicyUnavailable
from sealbus.policies.engines.central import CentralServer
from sealbus.policies.engines.circuit_breaker import AFTER, Passage
from sealbus.policies.engines.svid_sessions import ClientTls
from sealbus.policies.opa.wire import NoPolicy, Reply

CA = ThrowawayCa("example.org")
FAILS = always(b'{"code": "internal_error", "errors": []}', 500)


@pytest.mark.parametrize("url", ["https://opa", "https://opa:8443", "https://opa:8443/", "https://[::1]:8443"])
def test_an_address(url: str) -> None:
    assert CentralServer(url, connections=1).url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["", "opa:8443", "http://opa:8181", "https://", "https://opa:0", "https://opa:x", "https://[opa", "https://opa/v1",
     "https://u:p@opa", "https://opa?x=1", "https://opa#x", "unix:/run/opa.sock"],
)  # fmt: skip
def test_no_address(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"policy\.opa"):
        CentralServer(url, connections=1)


@pytest.fixture
async def tls() -> ClientTls:
    return tls_of(CA).current()


def passage(server: CentralServer) -> Passage:
    found = server.breaker.admit(asyncio.get_running_loop().time())
    assert found is not None
    return found


def parse(status: int, body: bytes) -> object:
    if status == 500:
        raise PolicyFailed("no")
    return json.loads(body)


@asynccontextmanager
async def kept(server: CentralServer) -> AsyncIterator[None]:
    """Keep its sessions, as the engine does while it is entered."""
    running = asyncio.create_task(server.sessions.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait({running})


async def ask(
    server: CentralServer, tls: ClientTls, *, seconds: float = 5.0, counts: bool = True, times: int = 1
) -> object:
    """Ask what is no question about messages: path and parser are the caller's. The last answer or failure counts."""

    async def once() -> object:
        until = asyncio.get_running_loop().time() + seconds
        return await server.ask(
            "/v1/data/other", b"{}", parse, tls=tls, until=until, passage=passage(server), counts=counts
        )

    async with kept(server):
        for _ in range(times - 1):
            with suppress(PolicyUnavailable, PolicyFailed):
                await once()
        return await once()


async def test_any_document_may_be_asked_for(tls: ClientTls) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"asked": request.path})

    async with serving_tls(CA, handler) as url:
        assert await ask(CentralServer(url, connections=1), tls) == {"asked": "/v1/data/other"}


async def test_failures_open_its_breaker_and_the_last_is_told(tls: ClientTls) -> None:
    server = CentralServer(f"https://127.0.0.1:{held_port()}", connections=1)
    with pytest.raises(PolicyUnavailable):
        await ask(server, tls, times=AFTER)
    assert server.breaker.seconds_left(asyncio.get_running_loop().time()) > 0
    assert server.reason == f"OPA at {server.url} does not answer: ClientConnectorError"


async def test_failures_that_do_not_count(tls: ClientTls) -> None:
    server = CentralServer(f"https://127.0.0.1:{held_port()}", connections=1)
    with pytest.raises(PolicyUnavailable):
        await ask(server, tls, counts=False, times=2 * AFTER)
    async with serving_tls(CA, FAILS) as url:
        server = CentralServer(url, connections=1)
        with pytest.raises(PolicyFailed):
            await ask(server, tls, times=2 * AFTER)


async def test_no_answer_in_time(tls: ClientTls) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with serving_tls(CA, never) as url:
        with pytest.raises(PolicyUnavailable, match="did not answer in time"):
            await ask(CentralServer(url, connections=1), tls, seconds=0.2)


async def look(url: str, tls: ClientTls) -> Reply | PolicyUnavailable | PolicyFailed:
    server = CentralServer(url, connections=1)
    running = asyncio.create_task(server.sessions.run())
    try:
        return await server.look(tls=tls, until=asyncio.get_running_loop().time() + 5.0)
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_look_asks_about_nothing(tls: ClientTls) -> None:
    async with serving_tls(CA, answer_well) as url:
        found = await look(url, tls)
    assert isinstance(found, Reply)
    assert (found.revision, list(found.values)) == ("r1", [])
    async with serving_tls(CA, always(json.dumps(good(1)).encode(), 401)) as url:
        found = await look(url, tls)
    assert isinstance(found, PolicyUnavailable)
    assert found.detail == f"{url}: OPA answered with status 401: it does not let this workload ask"
    async with serving_tls(CA, always(b"{}")) as url:
        found = await look(url, tls)
    assert isinstance(found, NoPolicy)
    assert found.detail.startswith(f"{url}: OPA has no")
