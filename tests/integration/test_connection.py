"""The first connect fails at once and says why; a lost connection is found again, however it was lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.lab import Lab, agent_id, running, until
from support.nats_server import User
from support.ports import held_port
from support.x509 import ThrowawayCa

from sealbus.bus.nats.connection import link as linking
from sealbus.bus.nats.connection.connection import Connection
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, IdentityUnavailable
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

pytestmark = pytest.mark.nats


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", "a", "b") as started:
        yield started


async def refusal(connection: Connection) -> str:
    """Return the one line that the first connect fails with, at once."""
    with pytest.raises(BusUnavailable) as caught:
        async with asyncio.timeout(60), connection:
            pass
    assert "\n" not in caught.value.detail
    return caught.value.detail


async def test_connects_and_asks(lab: Lab) -> None:
    async with lab.connection() as connection:
        answer = await connection.request("$JS.API.INFO", b"", deadline=60.0)
        assert b"account_info_response" in answer.payload
        assert connection.state == f"connected to {lab.server.url}"
        assert connection.counters.value("sealbus_bus_connections_total") == 1
    with pytest.raises(BusUnavailable, match="closed"):
        _ = connection.link


async def test_wrong_server_id_is_refused_before_the_client_shows_itself(lab: Lab) -> None:
    line = await refusal(lab.connection(server_id="spiffe://example.org/nats/other"))
    assert lab.server.spiffe_id in line
    assert "spiffe://example.org/nats/other" in line
    await until(lambda: "TLS handshake error: EOF" in lab.server.log)


async def test_a_closed_port(lab: Lab) -> None:
    port = held_port()
    assert "connection refused" in await refusal(lab.connection(url=f"tls://127.0.0.1:{port}"))


async def test_a_port_in_use_by_something_that_says_nothing(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        assert "no answer in time" in await refusal(lab.connection(url=url, connect=1.0))


async def test_a_server_of_another_authority(lab: Lab) -> None:
    identity = lab.identity("a")
    identity.anchors[TrustDomain("example.org")] = (ThrowawayCa("example.org").cert_der,)
    identity.renew(3600)
    assert "not issued under the X.509 bundle" in await refusal(lab.connection(identity=identity))


async def test_a_client_of_another_authority(lab: Lab) -> None:
    identity = lab.identity("a")
    identity.ca = ThrowawayCa("example.org")
    identity.renew(3600)
    assert f"refused the certificate of {agent_id('a')}" in await refusal(lab.connection(identity=identity))


async def test_an_unknown_user(lab: Lab) -> None:
    assert f"does not let {agent_id('c')} in: it lists no such user" in await refusal(lab.connection("c"))


async def test_a_server_that_is_too_old_is_not_used(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "LEAST_VERSION", (2, 999, 1))
    line = await refusal(lab.connection())
    assert "the server is nats-server 2." in line
    assert "nats-server 2.999.1 or newer is needed" in line


async def test_an_expired_certificate_is_not_even_tried(lab: Lab) -> None:
    identity = lab.identity("a")
    identity.renew(-10)
    with pytest.raises(IdentityUnavailable):
        async with lab.connection(identity=identity):
            pass


async def test_clear_text_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "clear", "a", tls=False) as lab:
        assert "does not start with TLS" in await refusal(lab.connection())


async def test_a_server_that_speaks_before_tls_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "late", "a", handshake_first=False) as lab:
        assert "does not start with TLS" in await refusal(lab.connection())


@pytest.mark.parametrize("url", ["nats://127.0.0.1:4222", "127.0.0.1:4222", "tls://", "tls://u:p@host:1", "tls://h:x"])
async def test_addresses_that_are_none(lab: Lab, url: str) -> None:
    with pytest.raises(ConfigurationError, match="tls://host:port"):
        lab.connection(url=url)


async def test_no_bundle_of_the_servers_trust_domain(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"other\.org"):
        async with lab.connection(server_id="spiffe://other.org/nats/server"):
            pass


async def test_the_second_server_is_tried(lab: Lab) -> None:
    connection = Connection(
        [f"tls://127.0.0.1:{held_port()}", lab.server.url],
        identity=lab.identity("a"),
        server_ids=frozenset({SpiffeId.parse(lab.server.spiffe_id)}),
        inbox_prefix="_INBOX.a.",
        random=lambda: 0.0,
    )
    async with connection:
        assert connection.link.url == lab.server.url


async def test_killed_and_restarted(lab: Lab) -> None:
    async with lab.connection() as connection:
        lost = connection.link
        await lab.server.kill9()
        await until(lambda: not lost.alive)
        with pytest.raises(BusUnavailable, match="connection lost"):
            _ = connection.link
        with pytest.raises(BusUnavailable):
            await connection.ready(0.05)
        await lab.server.restart()
        assert await connection.ready(60) is not lost
        await connection.request("$JS.API.INFO", b"", deadline=60.0)
        assert connection.counters.value("sealbus_bus_reconnects_total") == 1
        assert connection.counters.value("sealbus_bus_connect_failures_total") > 0


async def test_a_frozen_server_is_given_up(lab: Lab) -> None:
    async with lab.connection(ping=0.2, connect=5.0) as connection:
        lost = connection.link
        lab.server.pause()
        try:
            with pytest.raises(BusUnavailable, match="no answer within"):
                await connection.request("$JS.API.INFO", b"", deadline=0.2)
            await until(lambda: not lost.alive)
        finally:
            lab.server.resume()
        await connection.ready(60)


async def test_a_dead_read_loop_is_noticed(lab: Lab) -> None:
    """Whatever ends the reading task, the connection must not look alive and hear nothing."""
    # No ping notices it in place of what is tested.
    async with lab.connection(ping=600.0) as connection:
        lost = connection.link
        reading = lost._client._reading_task
        assert reading is not None
        reading.cancel()
        await until(lambda: not lost.alive)
        await connection.ready(60)
        await connection.request("$JS.API.INFO", b"", deadline=60.0)


@pytest.mark.parametrize(
    "text", ["'User Authentication Expired'", "'Authorization Violation'", "'Account Authentication Revoked'", "''", ""]
)
async def test_errors_of_the_server_end_one_connection_only(lab: Lab, text: str) -> None:
    """nats-py closes for good at an expired user JWT, and at most others."""
    async with lab.connection() as connection:
        lost = connection.link
        await lost._client._ps.parse(f"-ERR {text}\r\n".encode())
        await until(lambda: not lost.alive)
        assert text.strip("'") in lost.reason
        assert await connection.ready(60) is not lost
        await connection.request("$JS.API.INFO", b"", deadline=60.0)


async def test_a_user_that_is_taken_away_and_comes_back(lab: Lab) -> None:
    async with lab.connection() as connection:
        lost = connection.link
        lab.server.reload([User(id=agent_id("b"))])
        await until(lambda: not lost.alive)
        await until(lambda: connection.counters.value("sealbus_bus_connect_failures_total") > 1)
        lab.server.reload([User(id=agent_id("a"))])
        await connection.ready(60)


async def test_a_late_pong_does_not_end_the_connection(lab: Lab) -> None:
    """nats-py's read loop ends when the answer to a PING comes that nobody waits for any longer."""
    async with lab.connection(ping=60.0) as connection:
        link = connection.link
        lab.server.pause()
        with pytest.raises(BusUnavailable, match="no answer within"):
            await link.flush(0.05)
        lab.server.resume()
        await link.flush(60.0)
        assert link.alive


async def test_an_answer_to_nobody_is_dropped(lab: Lab) -> None:
    async with lab.connection() as connection:
        link = connection.link
        for name in ("1", "x", "999999999999999999999"):
            link.write(f"PUB {link.replies.inbox.decode()}{name} 2\r\nhi\r\n".encode())
        await connection.request("$JS.API.INFO", b"", deadline=60.0)


async def test_a_question_that_nobody_answers(lab: Lab) -> None:
    async with lab.connection() as connection:
        with pytest.raises(BusUnavailable, match="no responder"):
            await connection.request("no.such.service", b"", deadline=60.0)


async def test_a_question_that_is_not_permitted(tmp_path: Path) -> None:
    user = User(id=agent_id("a"), publish=("$JS.API.INFO",), subscribe=("_INBOX.a.>",))
    async with running(tmp_path / "nats", user) as lab, lab.connection() as connection:
        async with asyncio.timeout(60):
            with pytest.raises(BusUnavailable, match="not permitted"):
                await connection.request("$JS.API.STREAM.NAMES", b"", deadline=3_600.0)
        await connection.request("$JS.API.INFO", b"", deadline=60.0)


async def test_lost_while_asking(lab: Lab) -> None:
    async with lab.connection() as connection:
        lab.server.pause()
        asking = asyncio.ensure_future(connection.request("$JS.API.INFO", b"", deadline=60.0))
        await asyncio.sleep(0)
        await until(lambda: connection.link.replies.pending == 1)
        await lab.server.kill9()
        with pytest.raises(BusUnavailable, match="connection lost"):
            await asking


async def test_leaving_because_of_an_error_leaves_nothing_behind(lab: Lab) -> None:
    connection = lab.connection()
    with pytest.raises(LookupError):
        await fail_inside(connection)
    assert connection.state == "the connection is closed"


async def fail_inside(connection: Connection) -> None:
    async with connection:
        raise LookupError
