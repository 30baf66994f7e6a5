"""The replicated streams and consumers of a cluster's servers: how many there are, and what a server refuses that is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error
from support.lab import until
from support.plain_servers import PlainServer, plain_client, plain_servers, replicated_assets

from sealbus.agents.control.streams import StreamGauges
from sealbus.agents.runtime.policy.store import policy_stream
from sealbus.bus.nats.durable_consumer import DurableSpec, bind
from sealbus.bus.ports import Request
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.estimate import CONSUMERS_OF_AGENT, ExpectedAgents
from sealbus.bus.streams.plan import apply
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = pytest.mark.nats

ASSETS = 4
"""What a server may have; a stream, and the group of the servers themselves, are such assets."""


def spec(name: str, *, one_replica: bool) -> DurableSpec:
    return DurableSpec(
        stream="TASKS",
        name=name,
        subjects=(f"task.{name}.>",),
        ack_wait=30.0,
        max_ack_pending=8,
        one_replica=one_replica,
    )


async def bind_all(request: Request, letter: str, *, one_replica: bool, bound: list[str]) -> None:
    """Bind as many consumers as a server may have assets; note those that are bound."""
    for number in range(ASSETS):
        await bind(request, spec(f"{letter}{number}", one_replica=one_replica))
        bound.append(letter)


async def test_only_a_replicated_consumer_is_refused_by_servers_that_are_full(tmp_path: Path) -> None:
    async with plain_client(tmp_path, servers=3, limits={"max_ha_assets": ASSETS}) as client:

        async def request(subject: str, payload: bytes) -> bytes:
            return (await client.request(subject, payload, timeout=30.0)).data

        config = {"name": "TASKS", "subjects": ["task.>"], "num_replicas": 3, "storage": "file"}
        answer = json.loads(await request("$JS.API.STREAM.CREATE.TASKS", json.dumps(config).encode()))
        assert answer["config"]["num_replicas"] == 3
        bound: list[str] = []
        with pytest.raises(ConfigurationError, match="max_ha_assets"):
            await bind_all(request, "a", one_replica=False, bound=bound)
        assert bound
        await bind_all(request, "b", one_replica=True, bound=bound)
        assert bound.count("b") == ASSETS


async def test_servers_have_as_many_as_the_estimate_says(tmp_path: Path) -> None:
    async with plain_servers(tmp_path, 3, jetstream={}) as (client, servers):

        async def request(subject: str, payload: bytes) -> bytes:
            return (await client.request(subject, payload, timeout=30.0)).data

        streams = (*declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20}, replicas=3), policy_stream("P", replicas=3))
        await apply(streams, request)
        expected = ExpectedAgents(agents=0, replicas=3)
        await until_each_has(servers, expected.replicated_assets)
        for number in range(CONSUMERS_OF_AGENT):
            await bind(request, spec(f"a{number}", one_replica=True))
        listener = replace(spec("listener", one_replica=True), stream="EVENTS", subjects=("event.>",), shared=True)
        await bind(request, listener)
        await until_each_has(servers, replace(expected, agents=1, listening=1).replicated_assets)
        for number in range(CONSUMERS_OF_AGENT):
            await bind(request, spec(f"b{number}", one_replica=False))
        await bind(request, replace(listener, one_replica=False))
        replicated = replace(expected, agents=1, listening=1, replicated_consumers=True).replicated_assets
        await until_each_has(servers, replicated)


async def test_gauges_tell_what_a_lost_server_leaves_behind(tmp_path: Path) -> None:
    counters = Counters()

    def gauge(name: str) -> dict[str, float]:
        rows = [line.split() for line in counters.render().splitlines() if line.startswith(f"{name}{{")]
        return {label.split('"')[1]: float(value) for label, value in rows}

    async with plain_servers(tmp_path, 3, jetstream={}) as (client, servers):
        request = asking(client)
        await apply(declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20}, replicas=3), request)
        last = servers[-1]
        number = 0
        while await leader_of(request, f"b{number}") != last.name:
            number += 1
        await bind(request, spec("a", one_replica=False))
        role = StreamGauges(request, counters, names=Names(TrustDomain("example.org")), own={}, every=0.1)
        running = asyncio.create_task(role.run())
        try:
            await until(lambda: gauge("sealbus_stream_current_servers").get("TASKS") == 3)
            await until(lambda: gauge("sealbus_replicated_assets") == {server.name: 9 for server in servers})
            assert gauge("sealbus_consumers_away") == {"TASKS": 0, "EVENTS": 0}
            last.process.kill()
            await until(lambda: gauge("sealbus_consumers_away").get("TASKS", 0) > 0)
            await until(lambda: gauge("sealbus_stream_current_servers").get("TASKS") == 2)
            assert gauge("sealbus_stream_servers")["TASKS"] == 3
            assert gauge("sealbus_consumers")["TASKS"] == number + 2
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_a_gauge_tells_that_the_servers_have_no_leader_any_more(tmp_path: Path) -> None:
    """Two of three servers are lost: then no stream is shown, and nothing else says that none of them stores anything."""
    counters = Counters()
    async with plain_servers(tmp_path, 3, jetstream={}) as (client, servers):
        request = asking(client)
        await apply(declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20}, replicas=3), request)
        role = StreamGauges(request, counters, names=Names(TrustDomain("example.org")), own={}, every=0.1)
        running = asyncio.create_task(role.run())
        try:
            await until(lambda: "\nsealbus_broker_api_errors_total 0.0\n" in counters.render())
            assert "\nsealbus_broker_answers 1.0\n" in counters.render()
            await request("$JS.API.STREAM.INFO.NONE", b"")
            await until(lambda: counters.value("sealbus_broker_api_errors_total") == 1)
            assert 'sealbus_stream_current_servers{stream="AUDIT"} 3.0' in counters.render()
            for server in servers[1:]:
                server.process.kill()
            await until(lambda: "\nsealbus_broker_answers 0.0\n" in counters.render())
            assert "sealbus_stream_current_servers{" not in counters.render()
        finally:
            running.cancel()
            await asyncio.wait({running})


def asking(client: Client) -> Request:
    """Return requests of `client`, which raise as those of a connection do."""

    async def request(subject: str, payload: bytes) -> bytes:
        try:
            return (await client.request(subject, payload, timeout=30.0)).data
        except Error as error:
            raise BusUnavailable(type(error).__name__) from error

    return request


async def leader_of(request: Request, name: str) -> str:
    """Bind a consumer of one replica, and return the server that has it."""
    await bind(request, spec(name, one_replica=True))
    info = json.loads(await request(f"$JS.API.CONSUMER.INFO.TASKS.{name}", b""))
    return str(info["cluster"]["leader"])


async def until_each_has(servers: Sequence[PlainServer], assets: int) -> None:
    """Wait until each server has exactly so many replicated assets."""
    async with asyncio.timeout(60):
        while {await replicated_assets(server) for server in servers} != {assets}:  # noqa: ASYNC110  they have no event for it
            await asyncio.sleep(0.05)
