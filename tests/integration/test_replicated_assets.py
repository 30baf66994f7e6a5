"""The replicated streams and consumers of a cluster's servers: how many there are, and what a server refuses that is full."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.plain_servers import PlainServer, plain_client, plain_servers, replicated_assets

from sealbus.agents.runtime.policy.store import policy_stream
from sealbus.bus.nats.durable_consumer import DurableSpec, bind
from sealbus.bus.ports import Request
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.estimate import CONSUMERS_OF_AGENT, ExpectedAgents
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import ConfigurationError

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
        await bind(request, replace(spec("listener", one_replica=False), stream="EVENTS", subjects=("event.>",)))
        await until_each_has(servers, replace(expected, agents=1, listening=1).replicated_assets)
        for number in range(CONSUMERS_OF_AGENT):
            await bind(request, spec(f"b{number}", one_replica=False))
        replicated = replace(expected, agents=1, replicated_consumers=True).replicated_assets
        await until_each_has(servers, replicated + 1)


async def until_each_has(servers: Sequence[PlainServer], assets: int) -> None:
    """Wait until each server has exactly so many replicated assets."""
    async with asyncio.timeout(60):
        while {await replicated_assets(server) for server in servers} != {assets}:  # noqa: ASYNC110  they have no event for it
            await asyncio.sleep(0.05)
