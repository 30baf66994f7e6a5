"""Connecting to NATS with the auth callout and without: the same client, the same certificate, in turn, in the same run.

The responder runs in the client's process, so its work is included;
the server without a callout maps the certificate to a user of its configuration with an agent's permissions.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator
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
