from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.ports import held_port

from sealbus.agents.identity.svid_files import server as health_addresses
from sealbus.agents.identity.svid_files.server import HealthAddresses
from sealbus.agents.runtime.health import HealthServer, Probes
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError


@asynccontextmanager
async def answering(reasons: dict[str, str]) -> AsyncIterator[str]:
    probes = Probes(healthy=dict, ready=lambda: reasons)
    async with LoopWatch() as watch, HealthServer("0", probes=probes, counters=Counters(), watch=watch) as server:
        yield f"http://127.0.0.1:{server.port}/readyz"


@asynccontextmanager
async def speaking(answer: bytes) -> AsyncIterator[str]:
    """A server that sends `answer` and then nothing, for as long as it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/readyz"
    finally:
        server.close()


async def test_one_yes_is_enough() -> None:
    async with answering({}) as yes, answering({"callout": "down"}) as no:
        assert await HealthAddresses([yes]).any_healthy()
        assert await HealthAddresses([no, yes]).any_healthy()
        assert await HealthAddresses([f"http://127.0.0.1:{held_port()}/", no, yes]).any_healthy()
        assert not await HealthAddresses([no, no]).any_healthy()


async def test_nobody_there_is_a_no() -> None:
    assert not await HealthAddresses([f"http://127.0.0.1:{held_port()}/readyz"]).any_healthy()
    assert not await HealthAddresses([]).any_healthy()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"200 OK\r\n\r\n",
        b"\x00\xff" * 100 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_200_is_a_no(answer: bytes) -> None:
    async with speaking(answer) as url:
        assert not await HealthAddresses([url]).any_healthy()


async def test_a_page_without_end_is_not_read() -> None:
    async with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx") as url:
        assert await HealthAddresses([url]).any_healthy()


async def test_silence_is_a_no_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_addresses, "ANSWER_SECONDS", 0.2)
    async with speaking(b"") as url:
        assert not await HealthAddresses([url, url]).any_healthy()


async def test_a_yes_does_not_wait_for_the_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_addresses, "ANSWER_SECONDS", 3_600.0)
    async with speaking(b"") as silent, answering({}) as yes, asyncio.timeout(60):
        assert await HealthAddresses([silent, yes]).any_healthy()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:80",
        "ftp://host/",
        "http://",
        "http:///readyz",
        "unix:///run/x.sock",
        "http://h:99999/",
        "http://[::1/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write http://host:port/path"):
        HealthAddresses([url])
