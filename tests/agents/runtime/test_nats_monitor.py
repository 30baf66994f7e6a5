"""The monitoring port of a real nats-server, and of what is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from support.nats_server import NatsServer
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.agents.runtime.nats_monitor import ANSWER_BYTES, read_varz
from sealbus.bus.streams.durability import describe_sync
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.mark.nats
@pytest.mark.parametrize("always", [True, False])
async def test_a_real_server_says_whether_it_syncs_before_it_acknowledges(tmp_path: Path, always: bool) -> None:
    monitor = held_port()
    extra = f'http: "127.0.0.1:{monitor}"'
    jetstream = ", sync_interval: always" if always else ""
    async with NatsServer(tmp_path, ThrowawayCa("example.org"), [], extra=extra, jetstream=jetstream):
        document = await read_varz(f"http://127.0.0.1:{monitor}/")
    if always:
        assert "syncs its disk before it acknowledges" in describe_sync(document)
    else:
        with pytest.raises(ConfigurationError, match="syncs every 120 s"):
            describe_sync(document)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/varz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def refused(request: web.Request) -> web.StreamResponse:
    return web.Response(status=403)


async def endless(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * (ANSWER_BYTES + 1))


@pytest.mark.parametrize(("answer", "why"), [(refused, "the answer is 403"), (endless, "is over 1048576 bytes")])
async def test_an_answer_that_cannot_be_used_is_told(answer: Answer, why: str) -> None:
    async with serving(answer) as url:
        with pytest.raises(BusUnavailable, match=why):
            await read_varz(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "nowhere"])
async def test_an_address_where_nobody_answers_is_told(url: str) -> None:
    with pytest.raises(BusUnavailable, match="is this the server's monitoring port"):
        await read_varz(url)
