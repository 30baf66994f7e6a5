"""Workers with a spool: killed at random moments, and without a server. Whatever was handled is in evidence afterwards.

`SPOOL_KILLS` says how often a worker is killed; a few times unless said.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support import spool_worker
from support.engines import ScriptedEngine, Verdict
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Shop, Update
from support.spool_worker import Effect
from support.worker_process import small_environment, worker_process

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.runtime.open import open_audit_trail, open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.spool import SpoolOptions
from sealbus.bus.audit.trail import AuditEntry
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord

KILLS = int(os.environ.get("SPOOL_KILLS", "6"))

pytestmark = [pytest.mark.nats, pytest.mark.timeout(600 + 20 * KILLS)]


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    async with small_environment(tmp_path, "effects", "shop") as running:
        yield running


def with_spool(environment: Environment, folder: Path) -> Path:
    path = environment.settings_file.parent / "spooling.toml"
    path.write_text(f'{environment.settings_file.read_text()}\n[audit]\nspool = "{folder}"\n')
    return path


async def decided(environment: Environment) -> set[str]:
    """Return the ids of all messages that verified decisions in the stream are about."""
    found = set()
    async with open_audit_trail("operator", environment.settings) as trail:
        async for entry in trail.entries():
            assert isinstance(entry, AuditEntry)
            if isinstance(entry.record, DecisionRecord) and entry.record.allow:
                found.add(parse_header(entry.record.header).id.hex())
    return found


@pytest.mark.slow
async def test_whatever_a_killed_worker_handled_is_in_evidence(environment: Environment, tmp_path: Path) -> None:
    settings, file, spool = with_spool(environment, tmp_path / "spool"), tmp_path / "effects.txt", tmp_path / "spool"
    chance = random.Random(6)  # noqa: S311
    sent = 0
    async with open_node("shop", environment.settings) as node:
        client = Client.on(node)
        for _ in range(KILLS):
            async with worker_process(spool_worker, settings, file, says=b"open") as process:
                before = handled(file)
                async with asyncio.TaskGroup() as group:
                    for _ in range(100):
                        sent += 1
                        group.create_task(client.submit("effects.happen", Effect(name=str(sent))))
                await until(lambda before=before: len(handled(file)) > len(before))  # type: ignore[misc]
                await asyncio.sleep(chance.uniform(0, 0.1))
                process.kill()
                await process.wait()
        async with worker_process(spool_worker, settings, file, says=b"open") as process:
            await until(lambda: len(set(handled(file))) == sent)
            process.terminate()
            assert await process.wait() == 0
    assert set(handled(file)) <= await decided(environment)
    assert not list(spool.glob("*/*.spool"))


def handled(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "pricing", "shop-web") as running:
        yield running


async def test_what_was_delivered_is_handled_while_the_server_is_away(bus: RealBus, tmp_path: Path) -> None:
    """The server ends when tasks were fetched and none was decided: they are handled, and the stream is told later."""
    shop, stop, gate = Shop(), asyncio.Event(), asyncio.Event()
    engine = Waiting(gate)
    node = await bus.node("inventory", engine, spool=SpoolOptions(folder=tmp_path / "spool", within=1.0))
    client = Client.on(await bus.node("shop-web", engine))
    user = bus.user("alice", "shop-web")
    for number in range(10):
        await client.submit("inventory.update", Update(item_id=str(number)), user=user)
    async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await until(lambda: engine.waiting > 0)
        delivered = engine.waiting
        await bus.server.kill9()
        gate.set()
        await until(lambda: len(shop.handled) >= delivered)
        assert node.spool is not None
        await until(lambda: node.audit.behind != "")
        assert "audit" in worker.notes()
        await bus.server.restart()
        await until(lambda: node.audit.behind == "")
        await until(lambda: len({item for item, _ in shop.handled}) == 10)
        stop.set()
    recorded: set[str] = set()
    async for batch in node.transport.read("AUDIT", ["audit.inventory"]):
        for one in batch:
            records = parse_audit_body(parse_envelope(one.payload).body).records.values()
            recorded |= {parse_header(r.header).id.hex() for r in records if isinstance(r, DecisionRecord)}
    assert {context.message_id for context in shop.contexts} <= recorded  # Also of what was handled twice.


class Waiting(ScriptedEngine):
    """Decides nothing before the test says so."""

    def __init__(self, gate: asyncio.Event) -> None:
        super().__init__()
        self.gate = gate
        self.waiting = 0

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        self.waiting += len(inputs)
        await self.gate.wait()
        return await super().decide(inputs)
