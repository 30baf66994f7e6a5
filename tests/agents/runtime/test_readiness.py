"""What `/readyz` says of a worker: each part that stops it from taking work, and what is only noted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import real_bus
from support.shop import Shop, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.health import HealthServer, Probes, Readiness
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit import writer as audit_module
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.bus.ports import StreamRefused
from sealbus.envelopes.errors import BusUnavailable, IdentityUnavailable
from sealbus.policies.decision.engine import EngineStatus
from sealbus.testing import TestBus


class Engine(ScriptedEngine):
    """Says of itself what a test tells it to, and when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.says = EngineStatus(engine="scripted", revision="r1")
        self.asked_status = asyncio.Event()

    async def status(self) -> EngineStatus:
        self.asked_status.set()
        return self.says


class WithParts:
    """A node, of which some parts are others."""

    def __init__(self, node: Node, **parts: object) -> None:
        self.__dict__.update(parts)
        self.node = node

    def __getattr__(self, name: str) -> object:
        return getattr(self.node, name)


@dataclass
class Ready:
    bus: TestBus
    worker: Worker
    engine: Engine

    async def looked(self, **parts: object) -> Readiness:
        """Return what the worker's node, or one with other `parts`, looks like to somebody who has just asked its engine."""
        readiness = Readiness(cast("Node", WithParts(self.worker.node, **parts)), every=0.001)
        self.engine.asked_status.clear()
        running = asyncio.ensure_future(readiness.watch_engine())
        await self.engine.asked_status.wait()
        await asyncio.sleep(0)
        running.cancel()
        return readiness


@pytest.fixture
async def ready() -> AsyncIterator[Ready]:
    engine = Engine()
    async with TestBus(Shop().inventory, engine=engine) as bus:
        yield Ready(bus, bus.workers["inventory"], engine)


async def test_a_worker_that_takes_work_is_ready(ready: Ready) -> None:
    await until(lambda: not ready.worker.not_ready())
    assert ready.worker.notes() == {}


async def test_a_worker_that_was_never_run_says_so(ready: Ready) -> None:
    resting = Worker(Shop().inventory, ready.worker.node)
    unknown = {"sources": "not consuming", "state": "what was canceled is not known"}
    assert resting.not_ready() == unknown | {"policy": "not asked yet"}


async def test_who_does_not_know_the_time_of_the_broker_is_not_ready(ready: Ready) -> None:
    async def unknown() -> int:
        raise BusUnavailable("no answer")

    clocks = ClockDifference(unknown)
    assert (await ready.looked(clocks=clocks)).reasons() == {"clock": "clock_skew: the broker's time is not known yet"}


async def test_an_engine_without_a_revision_decides_nothing(ready: Ready) -> None:
    ready.engine.says = EngineStatus(engine="sidecar", revision="", problem="/secret/path does not answer")
    looked = await ready.looked()
    assert looked.reasons() == {"policy": "sidecar engine not ready"}
    assert looked.notes() == {}


async def test_a_refused_bundle_is_noted_while_the_old_one_decides(ready: Ready) -> None:
    ready.engine.says = EngineStatus(engine="embedded", revision="r1", problem="/secret/path.rego:3: no")
    looked = await ready.looked()
    assert looked.reasons() == {}
    assert "r1" in looked.notes()["policy"]
    assert "secret" not in looked.notes()["policy"]
    assert ready.worker.node.counters.value("sealbus_policy_bundle_refused_total", engine="embedded") == 1


async def test_a_part_that_the_store_offers_in_vain_is_noted_without_its_name(ready: Ready) -> None:
    ready.worker.node.policy_problem = lambda: "secret: refused"
    looked = await ready.looked()
    assert looked.reasons() == {}
    assert "secret" not in looked.notes()["policy_store"]


async def test_an_audit_stream_that_takes_nothing_is_told_until_it_does(ready: Ready) -> None:
    client = await ready.bus.client("shop-web")
    looked = await ready.looked()
    ready.bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))
    await client.submit("inventory.update", Update(item_id="1"))
    await until(lambda: looked.reasons() == {"audit": "overloaded"})
    ready.bus.broker.fail("AUDIT", None)
    await ready.bus.idle()
    assert looked.reasons() == {}


async def test_a_refused_record_is_not_told_of_for_ever(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "RECENT", 0.0)
    client = await ready.bus.client("shop-web")
    looked = await ready.looked()
    ready.bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))
    await client.submit("inventory.update", Update(item_id="1"))
    await until(lambda: "audit_unavailable" in ready.worker.node.counters.render())
    assert looked.reasons() == {}
    ready.bus.broker.fail("AUDIT", None)
    await ready.bus.idle()


async def test_an_identity_without_life_is_told_by_its_code(ready: Ready) -> None:
    def gone() -> None:
        raise IdentityUnavailable("the Workload API is away")

    looked = await ready.looked(identity=SimpleNamespace(sealer=gone))
    assert looked.reasons() == {"identity": "identity_unavailable"}


async def test_an_opa_that_is_missed_while_another_decides_is_noted_and_not_named(ready: Ready) -> None:
    missed = ("https://secret:8443 does not answer",)
    ready.engine.says = EngineStatus(engine="central", revision="r1", missed=missed)
    looked = await ready.looked()
    assert looked.reasons() == {}
    assert looked.notes() == {"policy": "1 of the OPAs do not answer, or decide by another revision"}


async def test_readyz_shows_reasons_and_notes(ready: Ready) -> None:
    ready.engine.says = EngineStatus(engine="embedded", revision="r1", problem="no")
    looked = await ready.looked()
    probes = Probes(healthy=dict, ready=looked.reasons, notes=looked.notes)
    async with (
        LoopWatch() as watch,
        HealthServer("0", probes=probes, counters=ready.worker.node.counters, watch=watch) as server,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
    assert answer.startswith("HTTP/1.1 200 ")
    document = json.loads(answer.partition("\r\n\r\n")[2])
    assert document["ok"] is True
    assert list(document["notes"]) == ["policy"]


@pytest.mark.nats
async def test_a_lost_connection_is_told_until_there_is_another(tmp_path: Path) -> None:
    shop, engine, stop = Shop(), ScriptedEngine(), asyncio.Event()
    async with (
        real_bus(tmp_path, "inventory", "shop-web") as bus,
        asyncio.timeout(60),
        asyncio.TaskGroup() as group,
    ):
        node = await bus.node("inventory", engine)
        async with Worker(shop.inventory, node) as worker:
            running = group.create_task(worker.run(stop))
            await until(lambda: not worker.not_ready())
            await bus.server.kill9()
            await until(lambda: worker.not_ready() == {"nats": "not connected"})
            await bus.server.restart()
            await until(lambda: not worker.not_ready())
            client = Client.on(await bus.node("shop-web", engine))
            await client.submit("inventory.update", Update(item_id="1"))
            await until(lambda: shop.handled == [("1", 1)])
            stop.set()
            await running


async def test_a_server_that_stores_nothing_and_answers_is_told_apart_from_one_that_does_neither(ready: Ready) -> None:
    async def silent() -> tuple[str, int]:
        raise BusUnavailable("no answer")

    both, records = SimpleNamespace(unstored=("audit", "state")), SimpleNamespace(unstored=("audit",))
    assert "does not store audit.*, state.*" in (await ready.looked(outbox=both)).reasons()["disk"]
    assert "does not store audit.*" in (await ready.looked(outbox=records)).reasons()["disk"]
    # With a spool records are taken all the same.
    assert "does not store state.*" in (await ready.looked(outbox=both, spool=object())).reasons()["disk"]
    assert (await ready.looked(outbox=records, spool=object())).reasons() == {}
    quiet = await ready.looked(outbox=both, transport=SimpleNamespace(audit_stream=silent))
    assert quiet.reasons() == {}
