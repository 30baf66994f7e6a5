"""An edge judges tokens and dates messages by its clock: it takes no request while the broker's disagrees with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx2
import pytest
from support.edge import ENDS_SOON, Door, edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until

from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.runtime.node import Node
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats import clock_difference
from sealbus.envelopes.encoding.codec import decode
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.testing import TestBus


@asynccontextmanager
async def edge_beside(ahead: int, prepare: Callable[[Node], object] = lambda _: None) -> AsyncIterator[Door]:
    """Serve an edge whose broker's clock is so many seconds ahead; `prepare` is called with its node first."""
    async with LoopbackIssuer() as issuer, TestBus() as bus:
        bus.broker.clock = lambda: wall_clock() + ahead * SECOND
        node = (await bus.client("edge")).node
        prepare(node)
        table = edge_table(issuer)
        async with (
            serve_edge(table, node, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY) as edge,
            httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{edge.port}", trust_env=False, timeout=60, verify=TRUSTS_NOBODY
            ) as http,
        ):
            yield Door(bus=bus, edge=edge, issuer=issuer, http=http, table=table, limits=DEFAULT_EDGE_LIMITS)


async def test_no_request_is_taken_while_the_clocks_disagree() -> None:
    for ahead in (19, -19):
        async with edge_beside(ahead) as door:
            answer = await door.post("/v1/tasks/inventory/update", {"item_id": "42"})
            assert (answer.status_code, answer.json()["code"]) == (503, "clock_skew")
            assert int(answer.headers["retry-after"]) > 0
            assert not door.bus.stored("TASKS")
            assert (await door.http.get("/.well-known/oauth-protected-resource")).status_code == 200


async def test_no_request_is_taken_until_the_time_of_the_broker_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_difference, "AGAIN", 0.01)
    nodes: list[Node] = []

    async def unknown(stream: str) -> int:
        raise BusUnavailable("no answer")

    def cut_off(node: Node) -> None:
        nodes.append(node)
        monkeypatch.setattr(node.transport, "broker_time", unknown)

    async with edge_beside(19, cut_off) as door:
        answer = await door.post("/v1/tasks/inventory/update", {"item_id": "42"})
        assert (answer.status_code, answer.json()["code"]) == (503, "clock_skew")
        door.bus.broker.clock = wall_clock
        monkeypatch.undo()
        await until(lambda: nodes[0].clocks.ahead is not None)
        assert (await door.post("/v1/tasks/inventory/update", {"item_id": "42"})).status_code == 202
        assert len(door.bus.stored("TASKS")) == 1


async def test_contexts_and_owners_are_dated_by_the_time_of_the_broker() -> None:
    async with edge_beside(4) as door:
        before = door.bus.broker.clock()
        answer = await door.post("/v1/tasks/inventory/update", {"item_id": "42"})
        assert answer.status_code == 202
        [task] = door.bus.stored("TASKS")
        envelope = parse_envelope(task.payload)
        assert envelope.context is not None
        assert parse_payload(envelope.context.payload).iat >= before
        assert parse_header(envelope.header).iat >= before
        [owner] = [value for value in door.bus.stored("STATE") if ".request." in value.subject]
        parts = decode(owner.payload, text_bytes=16_384, step=0)
        assert isinstance(parts, list)
        assert isinstance(parts[0], bytes)
        assert json.loads(parts[0])["at"] >= before
        assert (await door.get(answer.json()["status_url"])).status_code == 200
