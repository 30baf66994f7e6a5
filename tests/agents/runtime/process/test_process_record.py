"""The records of a process: a start as soon as the stream takes it, and an end if it stops in order."""

from __future__ import annotations

import asyncio

import pytest
from support.engines import ScriptedEngine
from support.lab import until

from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.node import AuditOptions, Node
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.ports import StreamRefused
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.testing import TestBus

SOON = Backoff(initial_interval=0.001, maximum_interval=0.001)
NEVER = Backoff(initial_interval=3600.0, maximum_interval=3600.0)
FULL = StreamRefused("maximum bytes exceeded", 10_077)


@pytest.fixture
def bus() -> TestBus:
    return TestBus(engine=ScriptedEngine())


def node_on(bus: TestBus) -> Node:
    return Node(
        deployment=bus.deployment,
        identity=MemoryIdentity(bus.authority, bus.names.id_of("shop")),
        transport=bus.broker.connect(),
        engine=ScriptedEngine(),
        audit=AuditOptions(limits=AuditLimits(within=0.1)),
    )


async def recorded(bus: TestBus) -> list[tuple[str, bytes]]:
    records = [entry.record for entry in await bus.audit()]
    return [(record.action, record.instance) for record in records if isinstance(record, ProcessRecord)]


async def test_a_start_and_an_end_of_one_instance(bus: TestBus) -> None:
    async with node_on(bus) as node, recorded_process(node) as instance:
        await until(lambda: bool(bus.stored("AUDIT")))
        assert await recorded(bus) == [("start", instance)]
    assert await recorded(bus) == [("start", instance), ("end", instance)]
    [entry, _] = await bus.audit()
    assert entry.recorder.path == "/agent/shop"


async def test_each_run_has_an_instance_of_its_own(bus: TestBus) -> None:
    async with node_on(bus) as node:
        async with recorded_process(node) as one:
            pass
        async with recorded_process(node) as other:
            pass
    assert one != other
    assert {instance for _, instance in await recorded(bus)} == {one, other}


async def test_one_that_fails_has_no_end(bus: TestBus) -> None:
    async def fail() -> None:
        async with node_on(bus) as node, recorded_process(node):
            await until(lambda: bool(bus.stored("AUDIT")))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert [action for action, _ in await recorded(bus)] == ["start"]


async def test_a_start_is_tried_again_and_troubles_nothing_else(bus: TestBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.broker.fail("AUDIT", FULL)
    async with node_on(bus) as node, recorded_process(node, again=SOON) as instance:
        await until(lambda: "is not recorded" in caplog.text)
        assert node.audit.problem == ""
        assert node.counters.value("sealbus_outcomes_lost_total") == 0
        assert bus.stored("AUDIT") == []
        bus.broker.fail("AUDIT", None)
        await until(lambda: bool(bus.stored("AUDIT")))
    assert await recorded(bus) == [("start", instance), ("end", instance)]
    assert caplog.text.count("the start of this process of shop is not recorded") == 1


async def test_a_start_that_waits_is_stored_with_the_end(bus: TestBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.broker.fail("AUDIT", FULL)
    async with node_on(bus) as node, recorded_process(node, again=NEVER) as instance:
        await until(lambda: "is not recorded" in caplog.text)
        bus.broker.fail("AUDIT", None)
    assert await recorded(bus) == [("start", instance), ("end", instance)]


async def test_a_process_stops_although_nothing_is_stored(bus: TestBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.broker.fail("AUDIT", FULL)
    async with asyncio.timeout(60), node_on(bus) as node, recorded_process(node, again=NEVER):
        pass
    assert bus.stored("AUDIT") == []
    assert "the end of this process of shop is not recorded" in caplog.text
    assert node.counters.value("sealbus_outcomes_lost_total") == 0
