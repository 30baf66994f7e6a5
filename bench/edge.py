"""What the edge adds to a call: HTTP, the token's verification, a fresh user context and its cost for the consumer.

The same call is made over HTTP and from the edge's own node with a context that was minted before, in turn, on the same
server, worker and edge in this process. The figure is the median of the differences within each pair, which temporary load
cannot shift. The HTTP client is a separate process that measures its own time: in this one it would wait for work that a
call leaves after its answer. Tokens take turns, and each is verified at each call.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.dpop import Holder
from support.edge import edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.real_bus import real_bus

from bench.report import Figure
from sealbus import Agent, Client, Context, Resource
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.http.protocol import ConnectionLimits
from sealbus.agents.edge.http.server import listening
from sealbus.agents.examples.inventory import Read, Stock
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.message.wire import Statement
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["IN_FLIGHT", "figures", "rate_of"]

CALLS = 600
WARM = 50
TOKENS = 16
ADDED_GOAL = 1.5
PROOF_GOAL = 1.2
SHARE_GUARD, SHARE_GOAL = 0.45, 0.5
ROUNDS = 5
CLIENT = Path(__file__).with_name("edge_client.py")
IN_FLIGHT = 32
BODY = b'{"item_id":"42"}'

# The example without its database and its call of `pricing`: a second hop would be in both measurements, but its
# verification of the fresh context in only one.
inventory = Agent("inventory")


async def item(body: Read) -> Resource:
    """Return the item with the attributes that the starter policy needs."""
    return Resource("item", body.item_id, owner="alice", customer="acme", region="always")


@inventory.call("read", resource=item)
async def read(body: Read, ctx: Context) -> Stock:
    """Answer at once."""
    del ctx
    return Stock(item_id=body.item_id, quantity=1, cents=1)


async def figures() -> AsyncIterator[Figure]:
    """Measure a lone call both ways in turn, then how many requests a second one edge answers with 32 in flight."""
    limits = replace(
        DEFAULT_EDGE_LIMITS,
        **{f"{name}_rate": 1e6 for name in ("user", "client", "address")},
        **{f"{name}_burst": 10**6 for name in ("user", "client", "address")},
    )
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "inventory", "edge") as bus,
            LoopbackIssuer() as issuer,
            AsyncExitStack() as s,
        ):
            engine = await s.enter_async_context(EmbeddedEngine.of_folder())
            worker = await s.enter_async_context(Worker(inventory, await bus.node("inventory", engine)))
            node = await bus.node("edge", engine)
            edge = await s.enter_async_context(
                serve_edge(edge_table(issuer), node, limits=limits, issuer_tls=TRUSTS_NOBODY)
            )
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run(stop))
                await worker.ready.wait()
                user = bus.user("alice", "edge")
                requests = itertools.cycle(
                    [_request(issuer.token(sub="alice", life=3_600, jti=f"token-{n}")) for n in range(TOKENS)]
                )
                direct, over_http, added, proved = await _in_turn(
                    Client.on(node), user, edge.port, requests, _proving(issuer)
                )
                rate = await rate_of(edge.port, requests)
                share = await _share_of_bare(edge.port, s, issuer)
                stop.set()
    yield Figure(name="a call from the edge's node, p50", value=direct, unit="ms")
    yield Figure(name="the same call over HTTP with a token, p50", value=over_http, unit="ms")
    yield Figure(name="  added by the edge, p50 of pairs", value=added, unit="ms", goal=ADDED_GOAL)
    yield Figure(name="  added by a proof of possession (DPoP), p50 of pairs", value=proved, unit="ms", goal=PROOF_GOAL)
    yield Figure(name=f"calls over HTTP, {IN_FLIGHT} in flight, all in one process", value=rate, unit="/s")
    yield Figure(
        name="requests with verified tokens, of bare uvicorn and Starlette",
        value=share,
        unit="x",
        guard=SHARE_GUARD,
        goal=SHARE_GOAL,
        at_least=True,
    )


async def _in_turn(
    client: Client, user: Statement, port: int, requests: Iterator[bytes], proving: Iterator[bytes]
) -> tuple[float, float, float, float]:
    """Return medians in milliseconds: the direct call, the call over HTTP, their difference, and what a proof adds."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(CLIENT), str(port), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    direct = list[float]()
    over_http, with_proof = list[float](), list[float]()
    for _ in range(CALLS + WARM):
        started = time.perf_counter()
        await client.call("inventory.read", Read(item_id="42"), returns=Stock, user=user)
        direct.append((time.perf_counter() - started) * 1e3)
        for source, times in ((requests, over_http), (proving, with_proof)):
            child.stdin.write(base64.b64encode(next(source)) + b"\n")
            times.append(float(await child.stdout.readline()) * 1e3)
    child.stdin.close()
    await child.wait()
    rows = list(zip(direct, over_http, with_proof, strict=True))[WARM:]
    return (
        statistics.median(one for one, _, _ in rows),
        statistics.median(other for _, other, _ in rows),
        statistics.median(other - one for one, other, _ in rows),
        statistics.median(proved - other for _, other, proved in rows),
    )


def _proving(issuer: LoopbackIssuer) -> Iterator[bytes]:
    """Yield requests with a token that is bound to a key, each with a fresh proof."""
    holder = Holder()
    token = issuer.token(sub="alice", life=3_600, jti="bound", cnf=holder.cnf)
    while True:
        proof = holder.proof(token, "POST", "https://edge.example/v1/calls/inventory/read")
        yield _request(token, scheme="DPoP", more=f"DPoP: {proof}\r\n")


async def _share_of_bare(port: int, stack: AsyncExitStack, issuer: LoopbackIssuer) -> float:
    """Return how many requests an edge verifies and answers by itself, of those that a bare application answers.

    An action that is not exposed is 404 once the token is verified: nothing is sent. Both are asked in turn.
    """

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(b"{}", 404, media_type="application/json")

    bare = await stack.enter_async_context(
        listening(
            Starlette(routes=[Route("/v1/calls/{agent}/{verb}", answer, methods=["POST"])]),
            "127.0.0.1:0",
            setting="bench",
            limits=ConnectionLimits(),
            counters=Counters(),
        )
    )
    path = "/v1/calls/nobody/work"
    requests = itertools.cycle(
        [_request(issuer.token(sub="alice", life=3_600, jti=f"token-{n}"), path=path) for n in range(TOKENS)]
    )
    pairs = [
        (await rate_of(port, requests, status=b"404"), await rate_of(bare, requests, status=b"404"))
        for _ in range(ROUNDS)
    ]
    return statistics.median(verified / plain for verified, plain in pairs)


async def rate_of(port: int, requests: Iterator[bytes], *, status: bytes = b"200") -> float:
    """Return how many requests a second are answered, with `IN_FLIGHT` in flight."""

    async def lane() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(CALLS // 8):
            await _ask(reader, writer, next(requests), status)
        writer.close()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(lane())
    return IN_FLIGHT * (CALLS // 8) / (time.perf_counter() - started)


def _request(token: str, *, scheme: str = "Bearer", more: str = "", path: str = "/v1/calls/inventory/read") -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n"
        f"Authorization: {scheme} {token}\r\n{more}Content-Length: {len(BODY)}\r\n\r\n"
    )
    return head.encode() + BODY


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, status: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 %b " % status):
        raise RuntimeError(head.partition(b"\r\n")[0].decode())
    _, _, length = head.lower().partition(b"\r\ncontent-length:")
    await reader.readexactly(int(length.partition(b"\r\n")[0]))
