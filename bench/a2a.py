"""What the A2A server of an edge costs: calls and tasks a second, its own share of them, and idle streams.

The share is of the package `a2a` answering alone with a handler that refuses every message: the edge refuses one for an
unknown skill, once the token is verified and the body read, and nothing is sent. Both are asked in turn.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers import RequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.types import Message, SendMessageRequest, Task
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from support.a2a import asking, written_schemas
from support.edge import edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.real_bus import real_bus

from bench.edge import IN_FLIGHT, item, rate_of
from bench.processes import resident
from bench.report import Figure
from bench.streams import held_open, submitted
from sealbus import Agent, Context
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.agents.examples.inventory import Read, Stock
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.telemetry import Counters
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

TOKENS = 16
ROUNDS = 3
SHARE_GUARD, SHARE_GOAL = 0.45, 0.5
STREAMS = 1_000
TASKS = 50
STREAMS_GOAL = 100.0
RPC = "/a2a/inventory/rpc"


agent = Agent("inventory")


@agent.call("read", resource=item)
async def read(body: Read, ctx: Context) -> Stock:
    """Answer at once."""
    del ctx
    return Stock(item_id=body.item_id, quantity=1, cents=1)


@agent.task("update")
async def update(body: Read, ctx: Context) -> None:
    """Nobody runs this while its streams are open."""


class LeanHandler(RequestHandler):
    """Refuses every message at once, with the words of ours."""

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task | Message:
        del params, context
        raise InvalidParamsError("metadata.skillId must name a skill of this agent")


LeanHandler.__abstractmethods__ = frozenset()  # the other methods are not asked for


async def figures(streams: int = STREAMS) -> AsyncIterator[Figure]:
    """Measure calls, refusals, and what the process holds with `streams` streams of tasks that nobody handles."""
    # Each refusal would be a line of the package's, in both.
    logging.disable(logging.WARNING)
    limits = replace(
        DEFAULT_EDGE_LIMITS,
        **{f"{name}_rate": 1e6 for name in ("user", "client", "address")},
        **{f"{name}_burst": 10**6 for name in ("user", "client", "address")},
        event_streams_of_user=streams,
    )
    connections = ConnectionLimits(
        connections=streams + 64, connections_of_address=streams + 64, connections_of_network=streams + 64
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "inventory", "edge", max_bytes=1 << 30) as bus,
            LoopbackIssuer() as issuer,
            AsyncExitStack() as stack,
        ):
            engine = await stack.enter_async_context(EmbeddedEngine.of_folder())
            table = edge_table(
                issuer,
                event_streams=streams,
                schemas=written_schemas(Path(folder), [agent]),
                a2a={"agents": ("inventory",)},
                actions=("inventory.*",),
            )
            node = await bus.node("edge", engine)
            edge = await stack.enter_async_context(
                serve_edge(table, node, limits=limits, connections=connections, issuer_tls=TRUSTS_NOBODY)
            )
            tokens = [issuer.token(sub="alice", life=3_600, jti=f"token-{n}") for n in range(TOKENS)]
            stop = asyncio.Event()
            async with Worker(agent, await bus.node("inventory", engine)) as worker, asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                await worker.ready.wait()
                plain = _requests("/v1/calls/inventory/read", b'{"item_id":"42"}', tokens)
                called = _requests(RPC, _message("inventory.read"), tokens)
                pairs = [(await rate_of(edge.port, called), await rate_of(edge.port, plain)) for _ in range(ROUNDS)]
                stop.set()
            share = await _share_of_lean(edge.port, stack, tokens)
            urls = await submitted(edge.port, tokens[0], TASKS)
            paths = [f"/a2a/inventory/v1{url.removeprefix('/v1')}:subscribe" for url in urls]
            before = resident(None)
            opened, whole = await held_open(edge.port, tokens[0], paths, streams, first="\r\n\r\n")
    yield Figure.of([one / other for one, other in pairs], name="calls over A2A / over /v1", unit="x")
    yield Figure.of(
        share,
        name="refusals over A2A with verified tokens / the SDK alone",
        unit="x",
        guard=SHARE_GUARD,
        goal=SHARE_GOAL,
        at_least=True,
    )
    yield Figure.of(
        [one for one, _ in pairs], name=f"  calls over A2A, {IN_FLIGHT} in flight, all in one process", unit="/s"
    )
    yield Figure(name=f"{opened:,} idle streams of A2A", value=whole - before, unit="MB", guard=STREAMS_GOAL)


async def _share_of_lean(port: int, stack: AsyncExitStack, tokens: list[str]) -> list[float]:
    """Return how many messages an edge refuses by itself, of those that the package alone refuses, in each round."""
    lean = await stack.enter_async_context(
        listening(
            Starlette(routes=create_jsonrpc_routes(LeanHandler(), RPC)),
            "127.0.0.1:0",
            setting="bench",
            limits=ConnectionLimits(),
            counters=Counters(),
        )
    )
    requests = _requests(RPC, _message("inventory.absent"), tokens)
    pairs = [(await rate_of(port, requests), await rate_of(lean, requests)) for _ in range(ROUNDS)]
    return [ours / theirs for ours, theirs in pairs]


def _message(skill: str) -> bytes:
    params = MessageToDict(asking(skill, {"item_id": "42"}))
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}).encode()


def _requests(path: str, body: bytes, tokens: list[str]) -> Iterator[bytes]:
    heads = [
        f"POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        for token in tokens
    ]
    return itertools.cycle([head + body for head in heads])
