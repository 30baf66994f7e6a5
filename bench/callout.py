"""Connecting to NATS with the auth callout and without: the same client, the same certificate, in turn, in the same run.

The responder runs in the client's process, so its work is included;
the server without a callout maps the certificate to a user of its configuration with an agent's permissions. Then a crowd
connects at once, from processes of its own, and the server's configuration is read again.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from support.callout import NAMES, SERVER_ID, callout_site
from support.identity import StaticIdentity
from support.nats_server import NatsServer, User

from bench.report import Figure
from sealbus.agents.dev.nats.config import BrokerRole, permissions_of
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.options import ConnectionOptions
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["figures"]

ROUNDS = 5
CONNECTS = 60
WARM = 20
GUARD, GOAL = 2.0, 1.6
CROWD, PROCESSES = 4_000, 2


async def figures(rounds: int = ROUNDS) -> AsyncIterator[Figure]:
    """Measure connects one by one on both servers in turn; a round's ratio is that of its medians."""
    without: list[float] = []
    with_callout: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            site = await stack.enter_async_context(callout_site(Path(folder) / "callout"))
            identity = site.identity(NAMES.id_of("inventory"))
            rights = permissions_of(BrokerRole.AGENT, identity.spiffe_id, NAMES)
            user = User(id=str(identity.spiffe_id), publish=rights.publish, subscribe=rights.subscribe)
            plain = await stack.enter_async_context(NatsServer(Path(folder) / "plain", site.ca, [user]))
            for number in range(WARM + rounds * CONNECTS):
                one = await _connect(plain.url, identity, SpiffeId(plain.spiffe_id))
                other = await _connect(site.url, identity, SERVER_ID)
                if number >= WARM:
                    without.append(one)
                    with_callout.append(other)
            answered = site.responders[0].counters.render()
            # The callout was asked about each.
            assert f'sealbus_callout_total{{outcome="allowed"}} {WARM + rounds * CONNECTS}' in answered, answered
    starts = range(0, rounds * CONNECTS, CONNECTS)
    ratios = [
        statistics.median(with_callout[at : at + CONNECTS]) / statistics.median(without[at : at + CONNECTS])
        for at in starts
    ]
    yield Figure.of(ratios, name="connecting with callout / without, p50 of rounds", unit="x", guard=GUARD, goal=GOAL)
    yield Figure.of(without, name="  without callout", unit="ms")
    yield Figure.of(with_callout, name="  with callout", unit="ms")
    yield Figure(name="  with callout, p99", value=statistics.quantiles(with_callout, n=100)[98], unit="ms")
    async for figure in _crowd():
        yield figure


async def _crowd() -> AsyncIterator[Figure]:
    """Measure how long a crowd waits, whom the server refuses, and whom a reload loses."""
    # A process inherits the limit, the server, too.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with callout_site(folder / "callout") as site:
            authority, certificate = folder / "authority.pem", folder / "client.pem"
            svid = site.ca.issue(str(NAMES.id_of("inventory")))
            authority.write_bytes(site.ca.cert_pem)
            certificate.write_bytes(svid.cert_pem + svid.key_pem)
            asked = {"authority": str(authority), "certificate": str(certificate), "port": site.port}
            clients = [await _clients() for _ in range(PROCESSES)]
            try:
                started = time.perf_counter()
                let_in = await _told(clients, json.dumps({**asked, "clients": CROWD // PROCESSES}))
                waited = time.perf_counter() - started
                started = time.perf_counter()
                await site.reload()
                reloaded = time.perf_counter() - started
                stayed = await _told(clients, "")
            finally:
                for process in clients:
                    process.kill()
                    await process.wait()
    yield Figure(name=f"{CROWD} clients at once, refused", value=CROWD - let_in, unit="", guard=CROWD / 4, goal=0)
    yield Figure(name="  until all are in", value=waited, unit="s")
    yield Figure(name="a reload, who is lost", value=let_in - stayed, unit="", guard=CROWD / 4, goal=0)
    yield Figure(name="  until it is done", value=reloaded, unit="s")


async def _clients() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.callout_clients", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def _told(clients: Sequence[asyncio.subprocess.Process], line: str) -> int:
    """Tell all clients a line, and return the sum of their answers."""
    for process in clients:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n".encode())
    answers = []
    for process in clients:
        assert process.stdout is not None
        answers.append(int(await process.stdout.readline()))
    return sum(answers)


async def _connect(url: str, identity: StaticIdentity, server: SpiffeId) -> float:
    """Return how many milliseconds it takes until a connection may be used."""
    connection = Connection(
        [url],
        identity=identity,
        server_ids=frozenset({server}),
        inbox_prefix=NAMES.inbox_prefix(identity.spiffe_id),
        options=ConnectionOptions(settle=0.0),
    )
    started = time.perf_counter()
    async with connection:
        await connection.link.flush(5)
        return (time.perf_counter() - started) * 1e3
