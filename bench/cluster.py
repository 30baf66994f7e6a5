"""What the consumers of many agents cost three nats-servers: to make, in memory, while idle, and when a server is killed.

The streams are the declared ones with three replicas, and every write is synced. Consumers have one replica, or those of
their stream. No agent pulls: other parts measure what agents do with their consumers.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.errors import Error
from support.plain_servers import PlainServer, plain_servers, replicated_assets

from bench.processes import resident
from bench.report import Figure
from bench.rounds import processor_seconds
from sealbus.bus.nats.durable_consumer import DurableSpec, bind
from sealbus.bus.ports import Request
from sealbus.bus.stream_names import TASKS
from sealbus.bus.streams.declared import (
    approval_durable,
    control_durable,
    declared_streams,
    schedule_durable,
)
from sealbus.bus.streams.plan import apply

__all__ = ["figures"]

AGENTS = {1: 2_000, 3: 250}
"""By the replicas of a consumer."""
IDLE = 20.0
"""Seconds without work."""
SETTLED = 20.0
"""Seconds between the last consumer and the first look."""
WITHIN = 120.0


async def figures() -> AsyncIterator[Figure]:
    """Measure consumers of one replica, then of three."""
    for replicas, agents in AGENTS.items():
        with tempfile.TemporaryDirectory(prefix="sb-") as folder:
            jetstream = {"sync_interval": "always"}
            async with plain_servers(Path(folder), 3, jetstream=jetstream) as (client, servers):
                await apply(declared_streams({"TASKS": 1 << 28, "AUDIT": 1 << 28}, replicas=3), _requests(client))
                async for figure in _measured(client, servers, replicas, agents):
                    yield figure


async def _measured(
    client: Client, servers: Sequence[PlainServer], replicas: int, agents: int
) -> AsyncIterator[Figure]:
    what = f"{agents:,} agents, {replicas} of a consumer"
    before, began = [resident(one.process.pid) for one in servers], time.monotonic()
    for number in range(agents):
        await _make_consumers(client, f"agent-{number}", one_replica=replicas == 1)
    took = (time.monotonic() - began) / agents * 1e3
    yield Figure(name=f"{what}: to make, each agent", value=took, unit="ms")
    await asyncio.sleep(SETTLED)
    memory = [resident(one.process.pid) for one in servers]
    each = [(now - then) / agents * 1e3 for now, then in zip(memory, before, strict=True)]
    yield Figure.of(
        memory,
        name=f"{what}: memory of a server",
        unit="MB",
        guard=600 if replicas == 1 else None,
        goal=350 if replicas == 1 else None,
        beside=f"{statistics.median(before):.0f} MB without agents, {statistics.median(each):.0f} kB for each",
    )
    assets = [await replicated_assets(one) for one in servers]
    limit = 50 if replicas == 1 else None
    yield Figure.of(assets, name=f"{what}: replicated assets of a server", unit="", guard=limit, goal=limit)
    spent = [processor_seconds(one.process.pid) for one in servers]
    await asyncio.sleep(IDLE)
    spent = [processor_seconds(one.process.pid) - then for one, then in zip(servers, spent, strict=True)]
    yield Figure(
        name=f"{what}: idle, all three servers",
        value=sum(spent) / IDLE * 100,
        unit="% of a core",
        goal=25 if replicas == 1 else None,
    )
    yield Figure(
        name=f"{what}: a server killed, publishing again",
        value=await _published_again(client, servers),
        unit="s",
        goal=5 if replicas == 1 else None,
    )


def _requests(client: Client) -> Request:
    async def request(subject: str, payload: bytes) -> bytes:
        return (await client.request(subject, payload, timeout=WITHIN)).data

    return request


async def _make_consumers(client: Client, agent: str, *, one_replica: bool) -> None:
    """Make the consumers of TASKS that an agent has."""
    names = {
        agent: f"task.{agent}.>",
        control_durable(agent): f"control.{agent}.cancel",
        approval_durable(agent): f"control.{agent}.approve",
        schedule_durable(agent): f"control.{agent}.schedule",
    }
    for name, subject in names.items():
        await bind(
            _requests(client),
            DurableSpec(
                stream=TASKS,
                name=name,
                subjects=(subject,),
                ack_wait=30.0,
                max_ack_pending=256,
                one_replica=one_replica,
            ),
        )


async def _published_again(client: Client, servers: Sequence[PlainServer]) -> float:
    """Kill the leader of TASKS, and return the seconds until TASKS has stored something again."""
    leader = json.loads(await _requests(client)(f"$JS.API.STREAM.INFO.{TASKS}", b""))["cluster"]["leader"]
    [killed] = [one for one in servers if one.name == leader]
    other = next(one for one in servers if one is not killed)
    await client.close()
    survivor = await nats.connect(f"nats://127.0.0.1:{other.port}", allow_reconnect=False)
    try:
        began = time.monotonic()
        killed.process.kill()
        await killed.process.wait()
        async with asyncio.timeout(WITHIN):
            while True:
                with suppress(Error):
                    if "seq" in json.loads((await survivor.request("task.agent-0.work", b"", timeout=0.5)).data):
                        return time.monotonic() - began
    finally:
        await survivor.close()
