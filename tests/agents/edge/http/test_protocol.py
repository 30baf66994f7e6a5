from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest
from support.edge import QUICK, Door, door, raw
from support.shop import Shop


@pytest.fixture
async def edge() -> AsyncIterator[Door]:
    async with door(Shop().pricing) as running:
        yield running


@pytest.fixture
async def hasty() -> AsyncIterator[Door]:
    """Run an edge that waits for nobody, for peers that are slow on purpose."""
    async with door(Shop().pricing, connections=QUICK, limits={"body_seconds": 0.2}) as running:
        yield running


def _call(edge: Door, *, length: int | str = 17, more: str = "") -> bytes:
    return (
        f"POST /v1/calls/pricing/quote HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}"
        f"Authorization: Bearer {edge.issuer.token()}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()


def _code(answer: bytes) -> str:
    return str(json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"])


async def test_a_body_that_does_not_come_is_408(hasty: Door) -> None:
    answer = await raw(hasty.edge.port, _call(hasty), b'{"item')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert _code(answer) == "request_timeout"
    assert hasty.published()["AUDIT"] == 0


async def test_a_head_that_does_not_end_is_408(hasty: Door) -> None:
    answer = await raw(hasty.edge.port, b"GET / HTTP/1.1\r\n", b"X: y\r\n", b"Z: ", pause=0.05)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert _code(answer) == "request_timeout"


async def test_the_head_of_a_second_request_has_its_time_too(hasty: Door) -> None:
    answer = await raw(hasty.edge.port, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n", b"GET", pause=0.05)
    first, _, second = answer.partition(b"HTTP/1.1 408 ")
    assert first.startswith(b"HTTP/1.1 404 ")
    assert second


async def test_no_query_gets_into_a_log_however_logs_are_set_up(
    edge: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As an application does that sets its logs up after the edge was configured.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="uvicorn.access")
    answer = await raw(edge.edge.port, b"GET /x?access_token=secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert "(no such path) 404" in caplog.text
    assert "secret" not in caplog.text


async def test_a_connection_that_sends_nothing_is_cut(hasty: Door) -> None:
    assert await raw(hasty.edge.port) == b""


async def test_a_body_that_nobody_wants_is_not_waited_for(hasty: Door) -> None:
    head = b"POST /v1/other HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hasty.edge.port)
    try:
        writer.write(head + b"x")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        await _cut(reader)
    finally:
        writer.close()


async def test_a_body_that_ends_early_reaches_nobody(edge: Door) -> None:
    await raw(edge.edge.port, _call(edge), b"{", end=True)
    assert edge.published()["AUDIT"] == 0


async def test_chunks_are_counted_as_lengths_are() -> None:
    async with door(Shop().pricing, limits={"body_bytes": 100}) as edge:
        head = _call(edge).replace(b"Content-Length: 17", b"Transfer-Encoding: chunked")
        good = await raw(
            edge.edge.port, head.replace(b"Host", b"Connection: close\r\nHost"), b'11\r\n{"item_id": "42"}\r\n0\r\n\r\n'
        )
        bad = await raw(edge.edge.port, head, b"80\r\n" + b" " * 128 + b"\r\n")
    assert good.startswith(b"HTTP/1.1 200 ")
    assert bad.startswith(b"HTTP/1.1 413 ")


async def test_pipelined_requests_are_answered_in_turn(edge: Door) -> None:
    answer = await raw(
        edge.edge.port, b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 404 ") == 2


async def test_more_connections_than_allowed_are_cut_at_once() -> None:
    async with door(Shop().pricing, connections=replace(QUICK, connections=1, head_seconds=5.0)) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.edge.port)
        try:
            writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            further, other = await asyncio.open_connection("127.0.0.1", edge.edge.port)
            await _cut(further)
            other.close()
        finally:
            writer.close()


async def _cut(reader: asyncio.StreamReader) -> None:
    """Wait until the other side ends the connection, in whatever way."""
    async with asyncio.timeout(60):
        with suppress(ConnectionError):
            await reader.read()


async def test_what_is_not_http_is_told_so(edge: Door) -> None:
    answer = await raw(edge.edge.port, b"\x16\x03\x01\x02\x00\r\n\r\n", end=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert _code(answer) == "malformed"


async def test_a_malformed_body_of_a_request_by_head_is_answered_without_a_body(
    edge: Door, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"HEAD /v1/other HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for body in (b"no length\r\n", b"2\r\n{}no end\r\n"):
        answer = await raw(edge.edge.port, head + body)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.endswith(b"\r\n\r\n")
    # The server warns of a malformed request. What is raised in the protocol is an error of the event loop.
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_malformed_request_after_one_by_head_is_answered_with_a_body(edge: Door) -> None:
    answer = await raw(edge.edge.port, b"HEAD /v1/other HTTP/1.1\r\nHost: x\r\n\r\n", b"x\r\n\r\n", pause=0.05)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert _code(answer) == "malformed"
