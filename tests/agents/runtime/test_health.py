from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from sealbus.agents.runtime import health
from sealbus.agents.runtime.health import HealthServer, Probes, numbered_address, parse_address
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

SECONDS = 60.0


@dataclass
class State:
    counters: Counters = field(default_factory=Counters)
    unhealthy: Mapping[str, str] = field(default_factory=dict)
    unready: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    watch: LoopWatch = field(default_factory=LoopWatch)

    @property
    def probes(self) -> Probes:
        return Probes(healthy=lambda: self.unhealthy, ready=lambda: self.unready)


@pytest_asyncio.fixture
async def state() -> AsyncIterator[State]:
    found = State()
    async with (
        LoopWatch() as watch,
        HealthServer("0", probes=found.probes, counters=found.counters, watch=watch) as server,
    ):
        found.port, found.watch = server.port, watch
        yield found


async def exchange(port: int, request: bytes) -> bytes:
    """Send `request` and return everything that comes until the server closes."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()


async def get(state: State, path: str) -> tuple[int, dict[str, str], str]:
    answer = await exchange(state.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n".encode())
    head, _, body = answer.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body.encode())
    return int(status.split()[1]), headers, body


async def test_a_process_that_is_well_says_so(state: State) -> None:
    for path in ("/healthz", "/readyz", "/readyz?verbose=1"):
        status, headers, body = await get(state, path)
        assert (status, json.loads(body)) == (200, {"ok": True, "reasons": {}})
        assert headers["Content-Type"] == "application/json"
        assert headers["Connection"] == "close"
        assert headers["Cache-Control"] == "no-store"


async def test_reasons_are_told_with_a_503_each_by_its_own_probe(state: State) -> None:
    state.unready = {"nats": "bus_unavailable", "identity": "identity_unavailable"}
    status, _, body = await get(state, "/readyz")
    assert (status, json.loads(body)) == (503, {"ok": False, "reasons": dict(state.unready)})
    assert (await get(state, "/healthz"))[0] == 200
    state.unhealthy = {"policy": "stuck"}
    assert (await get(state, "/healthz"))[0] == 503


async def test_counters_are_shown_in_prometheus_text(state: State) -> None:
    state.counters.add("sealbus_refused_total", 3, code="malformed")
    status, headers, body = await get(state, "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# HELP sealbus_refused_total Messages that failed verification (steps 1 to 13), by code.\n" in body
    assert 'sealbus_refused_total{code="malformed"} 3.0\n' in body


async def test_a_probe_that_fails_is_a_503_that_tells_no_content(state: State) -> None:
    def broken() -> Mapping[str, str]:
        raise RuntimeError("the password is 1234")

    probes = Probes(healthy=broken, ready=broken)
    async with HealthServer("127.0.0.1:0", probes=probes, counters=state.counters, watch=state.watch) as server:
        answer = await exchange(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"probe": "RuntimeError"' in answer
    assert b"1234" not in answer


async def test_other_paths_are_not_found(state: State) -> None:
    for path in ("/", "/healthz/", "/metricsx", "/%2e%2e/etc/passwd"):
        assert (await get(state, path))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
async def test_only_get_is_served(state: State, method: str) -> None:
    answer = await exchange(state.port, f"{method} /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")


async def test_head_is_a_get_without_its_body(state: State) -> None:
    answer = await exchange(state.port, b"HEAD /healthz HTTP/1.1\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"Content-Length: 0" not in head
    assert body == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/2.0\r\n\r\n",
        b"get /healthz HTTP/1.1\r\n\r\n",
        b"GET http://x/healthz HTTP/1.1\r\n\r\n",
        b"GET /health z HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 8_192 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_short_request_is_refused(state: State, request_bytes: bytes) -> None:
    answer = await exchange(state.port, request_bytes)
    # A request over the limit may be answered with a reset, its rest being unread.
    assert answer.startswith(b"HTTP/1.1 400 ") or (answer == b"" and len(request_bytes) > 4_096)
    assert (await get(state, "/healthz"))[0] == 200


async def test_a_request_that_ends_early_is_refused(state: State) -> None:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", state.port)
        writer.write(b"GET /healthz HT")
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_request_that_never_ends_is_given_up(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "REQUEST_SECONDS", 0.05)
    assert await exchange(state.port, b"GET /healthz HT") == b""


async def test_more_connections_than_the_bound_are_closed_at_once(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CONNECTIONS", 1)
    async with asyncio.timeout(SECONDS):
        held_reader, held = await asyncio.open_connection("127.0.0.1", state.port)
        held.write(b"GET /healthz HTTP/1.1\r\n")
        assert await exchange(state.port, b"") == b""
        held.write(b"\r\n")
        assert (await held_reader.read()).startswith(b"HTTP/1.1 200 ")
        held.close()
    assert (await get(state, "/healthz"))[0] == 200


async def test_the_end_waits_for_no_client() -> None:
    state = State()
    async with asyncio.timeout(SECONDS):
        async with (
            LoopWatch() as watch,
            HealthServer("0", probes=state.probes, counters=state.counters, watch=watch) as server,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /healthz HTTP/1.1\r\n")
            await asyncio.sleep(0)
            assert await exchange(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_an_address_in_use_is_told_in_one_line(state: State) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"health.address 127.0.0.1:{state.port} cannot be used: .*"
    ) as caught:
        await HealthServer(
            str(state.port), probes=state.probes, counters=state.counters, watch=state.watch
        ).__aenter__()
    assert "\n" not in caught.value.detail
    never = HealthServer("0", probes=state.probes, counters=state.counters, watch=state.watch)
    await never.__aexit__(None, None, None)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0", ("127.0.0.1", 0)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("localhost:80", ("localhost", 80)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "x:", ":", "x:y", "1.2.3.4:65536", "::1:80", "x:80 ", " x:80", "-1", "x:+8"])
def test_other_texts_are_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"health.address .*: write host:port"):
        parse_address(text)


async def test_nobody_but_this_machine_is_served_unless_said(state: State) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        assert probe.connect_ex(("127.0.0.2", state.port)) != 0


@pytest.mark.parametrize(
    ("address", "third"),
    [("9000", "127.0.0.1:9002"), ("0", "127.0.0.1:0"), ("[::1]:65533", "[::1]:65535"), ("h:1", "h:3")],
)
def test_addresses_are_counted_from_the_first(address: str, third: str) -> None:
    assert numbered_address(address, 2) == third


def test_there_is_no_port_after_the_last() -> None:
    with pytest.raises(ConfigurationError, match="there is no port 1 after it"):
        numbered_address("65535", 1)
