"""The listener for the answer of a browser: one request counts, everything else changes nothing, and then it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from support.ports import held_port

from sealbus.agents.login import loopback as module
from sealbus.agents.login.loopback import Loopback
from sealbus.agents.login.provider import LoginFailed

WITHIN = 60.0


@pytest.fixture
async def loopback() -> AsyncIterator[Loopback]:
    async with Loopback("http://127.0.0.1/callback") as loopback:
        yield loopback


async def sent(loopback: Loopback, data: bytes) -> bytes:
    """Send bytes on a connection of their own; return all that comes back."""
    parts = urlsplit(loopback.uri)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(data)
    found = await asyncio.wait_for(reader.read(), WITHIN)
    writer.close()
    return found


def request(loopback: Loopback, target: str = "/callback?code=c&state=s", method: str = "GET", host: str = "") -> bytes:
    host = host or urlsplit(loopback.uri).netloc
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def test_the_answer_is_taken_with_a_page_that_runs_nothing(loopback: Loopback) -> None:
    page = (await sent(loopback, request(loopback))).decode()
    assert page.startswith("HTTP/1.1 200 OK\r\n")
    head, _, body = page.partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head
    for field in ("default-src 'none'", "no-store", "no-referrer", "nosniff", "Connection: close"):
        assert field in head
    assert "<script" not in body
    assert "code=c" not in page
    assert await loopback.answer() == "code=c&state=s"


async def test_after_it_nothing_listens_any_more(loopback: Loopback) -> None:
    parts = urlsplit(loopback.uri)
    # A connection that was there before: its request comes too late.
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await sent(loopback, request(loopback))
    writer.write(request(loopback, "/callback?code=other"))
    assert (await asyncio.wait_for(reader.read(), WITHIN)).startswith(b"HTTP/1.1 404 ")
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(parts.hostname, parts.port)
    assert await loopback.answer() == "code=c&state=s"


@pytest.mark.parametrize(
    ("target", "method", "host"),
    [
        ("/favicon.ico", "GET", ""),
        ("/", "GET", ""),
        ("/callback/?code=x", "GET", ""),
        ("/Callback?code=x", "GET", ""),
        ("http://127.0.0.1/callback?code=x", "GET", ""),
        ("/callback?code=x", "POST", ""),
        ("/callback?code=x", "HEAD", ""),
        ("/callback?code=x", "GET", "evil.example"),
        ("/callback?code=x", "GET", "127.0.0.1"),
        ("/callback?code=x", "GET", "localhost:1"),
    ],
)
async def test_any_other_request_changes_nothing(target: str, method: str, host: str, loopback: Loopback) -> None:
    assert (await sent(loopback, request(loopback, target, method, host))).startswith(b"HTTP/1.1 404 ")
    await sent(loopback, request(loopback))
    assert await loopback.answer() == "code=c&state=s"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /callback?code=x HTTP/1.1\r\n\r\n",
        b"GET /callback?code=x HTTP/1.0\r\n\r\n",
        b"GET /callback?code=x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /callback?code=\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\n\r\n",
    ],
)
async def test_what_is_no_request_changes_nothing(data: bytes, loopback: Loopback) -> None:
    assert not (await sent(loopback, data)).startswith(b"HTTP/1.1 200")
    await sent(loopback, request(loopback))
    assert await loopback.answer() == "code=c&state=s"


async def test_a_head_without_end_is_cut_off(loopback: Loopback) -> None:
    assert await sent(loopback, b"GET /callback?code=" + b"x" * 70_000) == b""
    await sent(loopback, request(loopback))
    assert await loopback.answer() == "code=c&state=s"


async def test_who_says_nothing_is_cut_off(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HEAD_SECONDS", 0.05)
    assert await sent(loopback, b"GET /call") == b""


async def test_connections_are_bounded_and_closed_at_the_end() -> None:
    async with Loopback("http://127.0.0.1/") as loopback:
        parts = urlsplit(loopback.uri)
        silent = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(16)]
        assert await sent(loopback, b"") == b""
        silent[0][1].close()
        await silent[0][1].wait_closed()
    for reader, writer in silent[1:]:
        assert await asyncio.wait_for(reader.read(), WITHIN) == b""
        writer.close()


async def test_a_port_that_is_taken_is_told() -> None:
    async with Loopback(f"http://127.0.0.1:{held_port()}/x") as first:
        with pytest.raises(LoginFailed, match=r"try another client\.redirect_uri"):
            async with Loopback(first.uri):
                raise AssertionError


@pytest.mark.parametrize(
    ("uri", "target"), [("http://localhost", "/?code=c&state=s"), ("http://[::1]/x", "/x?code=c&state=s")]
)
async def test_other_names_of_loopback(uri: str, target: str) -> None:
    async with Loopback(uri) as loopback:
        assert loopback.uri.startswith(uri.removesuffix("/x") + ":")
        await sent(loopback, request(loopback, target))
        assert await loopback.answer() == "code=c&state=s"
