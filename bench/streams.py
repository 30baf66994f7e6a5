"""What an idle stream of a task's states costs the edge: memory for each, with very many open at a time.

The edge is this process; the client, which opens the connections and reads what comes, is another one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import httpx2
from support.edge import edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.real_bus import real_bus

from bench.processes import resident
from bench.report import Figure
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures", "held_open", "submitted"]

STREAMS = 10_000
TASKS = 50
GOAL = 700.0
CLIENT = Path(__file__).with_name("streams_client.py")


async def figures(streams: int = STREAMS) -> AsyncIterator[Figure]:
    """Open `streams` streams of tasks that nobody handles, and measure what the process holds then."""
    limits = replace(
        DEFAULT_EDGE_LIMITS,
        **dict.fromkeys(("user_rate", "client_rate", "address_rate"), 1000000.0),
        **dict.fromkeys(("user_burst", "client_burst", "address_burst"), 10**6),
        event_streams_of_user=streams,
    )
    connections = ConnectionLimits(
        connections=streams + 8, connections_of_address=streams + 8, connections_of_network=streams + 8
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "inventory", "edge") as bus,
            LoopbackIssuer() as issuer,
            AsyncExitStack() as stack,
        ):
            engine = await stack.enter_async_context(EmbeddedEngine.of_folder())
            node = await bus.node("edge", engine)
            edge = await stack.enter_async_context(
                serve_edge(
                    edge_table(issuer, event_streams=streams),
                    node,
                    limits=limits,
                    connections=connections,
                    issuer_tls=TRUSTS_NOBODY,
                )
            )
            token = issuer.token(sub="alice", life=3_600)
            before = resident(None)
            paths = [f"{url}/events" for url in await submitted(edge.port, token, TASKS)]
            opened, whole = await held_open(edge.port, token, paths, streams, first=":\n\n")
    yield Figure(name=f"an edge with {opened:,} idle streams", value=whole, unit="MB", guard=GOAL)
    yield Figure(name="  for each of them", value=(whole - before) * 1e3 / opened, unit="kB")


async def held_open(port: int, token: str, paths: list[str], streams: int, *, first: str) -> tuple[int, float]:
    """Open so many streams, each until `first` has come, and return how many are open, and the megabytes held then."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("no pipes")
    wanted = {"port": port, "token": token, "paths": paths, "streams": streams, "first": first}
    child.stdin.write(json.dumps(wanted).encode() + b"\n")
    opened = json.loads(await child.stdout.readline())
    gc.collect()
    whole = resident(None)
    child.stdin.close()
    await child.wait()
    return opened, whole


async def submitted(port: int, token: str, tasks: int) -> list[str]:
    """Submit so many tasks that nobody handles, and return their URLs."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=TRUSTS_NOBODY) as http:
        found = []
        for _ in range(tasks):
            answer = await http.post(
                "/v1/tasks/inventory/update", json={"item_id": "42"}, headers={"Authorization": f"Bearer {token}"}
            )
            found.append(str(answer.raise_for_status().json()["status_url"]))
    return found
