"""Connections that follow the rotation of our X.509-SVID."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from support.central_opa import OPA_ID, WORKER
from support.identity import StaticIdentity
from support.opa_faults import serving_tls
from support.policies import eventually
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection.tls import client_context
from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.engines.svid_sessions import ClientTls, SvidSessions

CA = ThrowawayCa("example.org")


def tls(seconds: float = 3600.0) -> ClientTls:
    """Return a context of a new SVID whose connections end `seconds` from now."""
    context = client_context(StaticIdentity(CA, WORKER).x509(), expected=frozenset({SpiffeId(OPA_ID)}))
    return ClientTls(context=context, ends=asyncio.get_running_loop().time() + seconds)


class Server:
    """What the server saw: the serial number of the client's certificate of each request, and who is connected."""

    def __init__(self) -> None:
        self.serials: list[str] = []
        self.transports: list[asyncio.Transport] = []
        self.go_on = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        self.serials.append(transport.get_extra_info("peercert")["serialNumber"])
        if transport not in self.transports:
            self.transports.append(transport)
        if request.path == "/slow":
            await self.go_on.wait()
        return web.Response()

    async def closed(self, number: int) -> None:
        """Wait until the connection that came as number `number` is gone."""

        async def gone() -> bool:
            return self.transports[number].is_closing()

        await eventually(gone)


@asynccontextmanager
async def running(server: Server) -> AsyncGenerator[SvidSessions, None]:
    async with serving_tls(CA, server.answer) as url:
        sessions = SvidSessions(url, connections=4)
        keeping = asyncio.create_task(sessions.run())
        try:
            yield sessions
        finally:
            keeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await keeping


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def sessions(server: Server) -> AsyncIterator[SvidSessions]:
    async with running(server) as found:
        yield found


async def get(sessions: SvidSessions, by: ClientTls, path: str = "/") -> None:
    async with sessions.lend(by) as session, session.get(path) as response:
        assert response.status == 200


async def test_a_connection_is_kept_while_the_certificate_is(server: Server, sessions: SvidSessions) -> None:
    by = tls()
    await get(sessions, by)
    await get(sessions, by)
    assert len(server.transports) == 1


async def test_a_new_certificate_is_used_at_once_and_the_old_connection_closed(
    server: Server, sessions: SvidSessions
) -> None:
    await get(sessions, tls())
    await get(sessions, tls())
    assert len(set(server.serials)) == 2
    await server.closed(0)
    assert not server.transports[1].is_closing()


async def test_a_question_under_way_ends_on_the_old_connection(server: Server, sessions: SvidSessions) -> None:
    slow = asyncio.create_task(get(sessions, tls(), "/slow"))

    async def asked() -> bool:
        return len(server.serials) == 1

    await eventually(asked)
    await get(sessions, tls())
    assert not server.transports[0].is_closing()
    server.go_on.set()
    await slow
    await server.closed(0)


async def test_at_the_end_of_its_certificate_a_connection_ends_whoever_uses_it(
    server: Server, sessions: SvidSessions
) -> None:
    by = tls(0.5)
    await get(sessions, by)
    with pytest.raises(aiohttp.ClientError):
        await get(sessions, by, "/slow")
    await server.closed(0)
    assert asyncio.get_running_loop().time() >= by.ends


async def test_idle_connections_end_with_their_certificate_too(server: Server, sessions: SvidSessions) -> None:
    by = tls(0.3)
    await get(sessions, by)
    await server.closed(0)
    assert asyncio.get_running_loop().time() >= by.ends


async def test_what_is_left_is_closed_at_the_end(server: Server) -> None:
    async with running(server) as sessions:
        await get(sessions, tls())
    assert server.transports[0].is_closing()
    with pytest.raises(PolicyUnavailable, match="was left"):
        await get(sessions, tls())
