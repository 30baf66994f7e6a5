"""The edge as the console asks it: what it refuses, what is no answer, and where no token goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sealbus.agents.console.api.edge_client import EdgeClient, EdgeRefused, quoted
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError


@asynccontextmanager
async def edge(status: int, body: bytes, *fields: str) -> AsyncIterator[tuple[EdgeClient, list[bytes]]]:
    """Answer every request so; give a client and the heads that came."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        head = "\r\n".join(
            (f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *fields, "", "")
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, EdgeClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        yield client, heads


async def test_an_answer_is_an_object_and_the_token_goes_along() -> None:
    async with edge(200, b'{"user": "olga"}') as (client, heads):
        assert await client.call("secret", "view", {"area": "live"}) == {"user": "olga"}
    assert heads[0].startswith(b"POST /v1/calls/console/view HTTP/1.1\r\n")
    assert b"Bearer secret" in heads[0]


async def test_a_refusal_has_the_edges_problem_and_the_id_of_the_request() -> None:
    body = json.dumps({"code": "denied", "detail": "no", "reasons": ["x"]}).encode()
    async with edge(403, body, "X-Request-Id: abc") as (client, _):
        with pytest.raises(EdgeRefused) as refused:
            await client.call("secret", "view", {})
    assert (refused.value.status, refused.value.code, refused.value.request) == (403, "denied", "abc")
    assert "secret" not in repr(refused.value)


@pytest.mark.parametrize("body", [b"<html>", b"\xff", b"[" * 100_000])
async def test_what_is_no_json_is_no_answer(body: bytes) -> None:
    async with edge(200, body) as (client, _):
        with pytest.raises(BusUnavailable):
            await client.call("secret", "view", {})


async def test_the_longest_answer_is_one() -> None:
    async with edge(200, b'{"a": "' + b"x" * ((8 << 20) - 9) + b'"}') as (client, _):
        assert len((await client.call("secret", "view", {}))["a"]) == (8 << 20) - 9


async def test_too_much_is_no_answer() -> None:
    async with edge(200, b'"' + b"x" * (9 << 20) + b'"') as (client, _):
        with pytest.raises(BusUnavailable, match="8 MiB"):
            await client.call("secret", "view", {})


async def test_nobody_answers() -> None:
    async with edge(200, b"") as (client, _):
        pass
    async with EdgeClient("http://127.0.0.1:9") as client:
        with pytest.raises(BusUnavailable, match="does not answer"):
            await client.call("secret", "view", {})


@pytest.mark.parametrize("url", ["http://edge.example", "ftp://x", "https://user:pass@edge.example"])
async def test_a_token_goes_nowhere_where_others_can_read_it(url: str) -> None:
    with pytest.raises(ConfigurationError):
        EdgeClient(url)


def test_a_segment_of_a_path_is_one() -> None:
    assert quoted("a/../b?c") == "a%2F..%2Fb%3Fc"
