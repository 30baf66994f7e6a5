from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.edge import QUICK, Door, door, raw
from support.shop import Shop
from support.x509 import ThrowawayCa

from sealbus.agents.edge.http.protocol import ConnectionLimits

FLOOD_A_SECOND = 390
FLOODER = "127.0.0.2"
GOOD = 47
"""What brought the edge down before: so many connections a second, and 28 of so many good requests failed."""


class Flood:
    """Connections from one address on which nothing is sent, each held until the edge cuts it."""

    def __init__(self, port: int) -> None:
        self.begun = 0
        self._port = port
        self.held: set[socket.socket] = set()

    def close(self) -> None:
        for one in tuple(self.held):
            self._cut(one)

    def _cut(self, one: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(one)
        self.held.discard(one)
        one.close()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            due = int((loop.time() - started) * FLOOD_A_SECOND)
            for _ in range(self.begun, due):
                one = socket.socket()
                one.setblocking(False)
                one.bind((FLOODER, 0))
                one.connect_ex(("127.0.0.1", self._port))
                self.held.add(one)
                loop.add_reader(one, self._cut, one)
                self.begun += 1
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def flooded(edge: Door) -> AsyncIterator[Flood]:
    flood = Flood(edge.edge.port)
    task = asyncio.create_task(flood.run())
    try:
        yield flood
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})
        flood.close()


def refused(edge: Door, bound: str) -> int:
    return edge.edge.node.counters.value("sealbus_edge_connections_refused_total", listener="edge.address", bound=bound)


@pytest.mark.slow
@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_flood_from_one_address_takes_nobody_elses_place(tmp_path: Path, *, encrypted: bool) -> None:
    """Whether or not there is a handshake that it never begins; each good request on a connection of its own."""
    ca = ThrowawayCa("example.org")
    issued = ca.issue("spiffe://example.org/any", addresses=["127.0.0.1"])
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"
    certificate.write_bytes(issued.cert_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(cadata=ca.cert_der)
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    changes: dict[str, Any] = {"certificate": certificate, "key": key} if encrypted else {}
    scheme = "https" if encrypted else "http"
    limits = ConnectionLimits(handshake_seconds=60, head_seconds=60)
    async with door(Shop().pricing, connections=limits, **changes) as edge, flooded(edge) as flood:
        async with asyncio.timeout(60):
            # More than all have places, were there no bound for each address.
            while flood.begun < 2 * ConnectionLimits().connections:  # noqa: ASYNC110 - it is done when it is done
                await asyncio.sleep(0.01)
        answers = []
        for _ in range(GOOD):
            async with httpx2.AsyncClient(trust_env=False, verify=trusting, timeout=300) as http:
                answer = await http.post(
                    f"{scheme}://127.0.0.1:{edge.edge.port}/v1/calls/pricing/quote",
                    json={"item_id": "42", "quantity": 1},
                    headers=edge.authorized(),
                )
            answers.append(answer.status_code)
        assert answers == [200] * GOOD
        assert refused(edge, "address") > ConnectionLimits().connections
        assert refused(edge, "whole") == refused(edge, "network") == 0


@pytest.mark.slow
async def test_places_come_back_however_a_connection_ends(tmp_path: Path) -> None:
    """After an answer, after silence, and after a handshake that was none."""
    few = replace(QUICK, connections_of_address=2, handshake_seconds=0.2)
    async with door(Shop().pricing, connections=few) as edge:
        for _ in range(3):
            for sent in (b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b""):
                assert (await raw(edge.edge.port, sent)).startswith(b"HTTP/1.1 404" if sent else b"")
        assert refused(edge, "address") == 0
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"
    issued = ThrowawayCa("example.org").issue("spiffe://example.org/any", addresses=["127.0.0.1"])
    certificate.write_bytes(issued.cert_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    async with door(Shop().pricing, connections=few, certificate=certificate, key=key) as edge:
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"", b"junk" * 100, b""):
            with contextlib.suppress(ConnectionError):
                await raw(edge.edge.port, sent)
        assert refused(edge, "address") == 0


async def test_browsers_are_told_to_stay_with_https_where_there_is_any(tmp_path: Path) -> None:
    """On answers of the application and on those before there is a request; not where nothing is encrypted."""
    junk = b"junk\r\n\r\n"
    async with door(Shop().pricing, resource="http://127.0.0.1:8080") as edge:
        answer = await edge.http.get("/x")
        assert answer.status_code == 404
        assert "strict-transport-security" not in answer.headers
        assert b"strict-transport" not in await raw(edge.edge.port, junk)
    certificate, key = tmp_path / "edge.pem", tmp_path / "edge.key"
    ca = ThrowawayCa("example.org")
    issued = ca.issue("spiffe://example.org/any", addresses=["127.0.0.1"])
    certificate.write_bytes(issued.cert_pem)
    key.write_bytes(issued.key_pem)
    key.chmod(0o600)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    async with door(Shop().pricing, certificate=certificate, key=key) as edge:
        for sent, status in ((b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b" 404 "), (junk, b" 400 ")):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.edge.port, ssl=anybody)
            writer.write(sent)
            async with asyncio.timeout(60):
                answered = await reader.read()
            writer.close()
            assert status in answered
            assert answered.lower().count(b"strict-transport-security: max-age=31536000\r\n") == 1
