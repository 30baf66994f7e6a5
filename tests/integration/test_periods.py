"""A period of the audit ends under load: nobody is restarted, nothing is lost or twice, both logs verify and are chained."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.real_bus import RealBus, real_bus
from support.shop import Price, Shop, Update
from support.spooled import outcome

from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.evidence.export import export_log, log_files
from sealbus.agents.evidence.files import FolderFiles
from sealbus.agents.evidence.verify import verify_export
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.declared import declared_streams, stream_named
from sealbus.bus.streams.periods import roll
from sealbus.envelopes.export.trust_root import Root
from sealbus.envelopes.log.checkpoint import open_checkpoint
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.body import parse_audit_body
from sealbus.envelopes.records.decision import DecisionRecord

pytestmark = [pytest.mark.nats]

SIGNER = NoteSigner("log.example.org", bytes(range(32)))
NEXT = "AUDIT-2026-12"


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "inventory", "pricing", "shop-web", "notary") as running:
        yield running


@asynccontextmanager
async def notary(node: Node, folder: Path, stream: str, previous: bytes = b"") -> AsyncIterator[Notary]:
    """Keep a log of `stream` in `folder`, whose origin ends in the name of the stream."""
    origin = f"log.example.org/{stream}"
    plan = LogPlan(origin=origin, verifiers=(SIGNER.verifier,), stream=stream, previous=previous)
    kept = Notary(
        NotaryOptions(plan=plan, signers=(SIGNER,), lease=5),
        NotarySite(
            identity=node.identity,
            transport=node.transport,
            outbox=node.outbox,
            names=node.deployment.names,
            counters=node.counters,
        ),
        store=FolderStore(folder),
    )
    running = asyncio.ensure_future(kept.run())
    try:
        yield kept
    finally:
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.result()


def size_of(folder: Path, stream: str) -> int:
    """Return how many entries the last checkpoint in `folder` has."""
    path = folder / "checkpoint"
    if not path.exists():
        return 0
    origin = f"log.example.org/{stream}"
    return open_checkpoint(path.read_bytes(), origin=origin, verifiers=(SIGNER.verifier,)).checkpoint.size


def root_of(node: Node, stream: str) -> Root:
    jwks = next(iter(node.identity.bundles().items()))[1].jwks
    document = {
        "v": 1,
        "origin": f"log.example.org/{stream}",
        "keys": [SIGNER.verifier.text],
        "bundles": [sha256(jwks).hexdigest()],
        "checkpoints": [],
        "trust_domain": "example.org",
        "agents": {"template": "/agent/{name}", "table": {"edge": "spiffe://example.org/edge"}},
        "minters": ["spiffe://example.org/edge"],
        "notaries": [node.own.value],
    }
    return Root.parse(json.dumps(document).encode())


async def decided(node: Node, stream: str) -> list[str]:
    """Return the ids of the messages that decisions in `stream` are about."""
    found = []
    async for batch in node.transport.read(stream, ["audit.inventory"]):
        for one in batch:
            records = parse_audit_body(parse_envelope(one.payload).body).records.values()
            found += [parse_header(one.header).id.hex() for one in records if isinstance(one, DecisionRecord)]
    return found


async def last_sequence(node: Node, stream: str) -> int:
    return max(
        [
            one.arrival.sequence
            async for batch in node.transport.read(stream, ["audit.>"])
            for one in batch
            if one.arrival
        ]
    )


async def test_a_period_ends_under_load(bus: RealBus, tmp_path: Path) -> None:
    shop, engine, stop = Shop(), ScriptedEngine(), asyncio.Event()
    worker_node, keeper = await bus.node("inventory", engine), await bus.node("notary", engine)
    client = Client.on(await bus.node("shop-web", engine))
    logs = {name: tmp_path / name for name in ("AUDIT", NEXT)}
    declared = stream_named(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}), "AUDIT")
    sent = 0

    async def load() -> None:
        nonlocal sent
        user = bus.user("alice", "shop-web")
        while not stop.is_set():
            numbers = range(sent, sent + 20)
            await asyncio.gather(
                *(client.submit("inventory.update", Update(item_id=str(one)), user=user) for one in numbers)
            )
            sent += 20

    async with Worker(shop.inventory, worker_node) as worker, asyncio.TaskGroup() as group:
        ended = asyncio.Event()
        group.create_task(worker.run(ended))
        group.create_task(load())
        async with notary(keeper, logs["AUDIT"], "AUDIT"):
            await until(lambda: len(shop.handled) > 100)
            # It judges nothing before it has recorded bundles in this stream: a period that ends before has no trust.
            await until(lambda: size_of(logs["AUDIT"], "AUDIT") > 1)
            await roll(declared, NEXT, bus.operator.jetstream)
            before = len(shop.handled)
            await until(lambda: len(shop.handled) > before + 100)
            # One entry for the stream's creation; then the log is whole once it has every message.
            whole = await last_sequence(keeper, "AUDIT") + 1
            await until(lambda: size_of(logs["AUDIT"], "AUDIT") == whole)
        stop.set()
        await until(lambda: len(shop.handled) >= sent)
        await worker.settle()
        ended.set()
    previous = (logs["AUDIT"] / "checkpoint").read_bytes()
    async with notary(keeper, logs[NEXT], NEXT, previous):
        await until(lambda: size_of(logs[NEXT], NEXT) > 2)
        whole = await last_sequence(keeper, NEXT)
        await until(lambda: size_of(logs[NEXT], NEXT) >= whole)

    ids = [await decided(keeper, stream) for stream in logs]
    assert all(ids)
    assert {context.message_id for context in shop.contexts} == {*ids[0], *ids[1]}
    # Each delivery once: what was decided again was delivered again, and then it was handled again.
    assert len(ids[0]) + len(ids[1]) == len(shop.contexts) == sent
    for stream, folder in logs.items():
        export = tmp_path / f"export-{stream}"
        root = root_of(keeper, stream)
        before_it = previous if stream == NEXT else b""
        await export_log(
            export, get=log_files(folder), transport=keeper.transport, root=root, stream=stream, previous=before_it
        )
        report = verify_export(FolderFiles(export), root, processes=1)
        assert report.passed, report.findings[:5]


async def test_a_call_from_before_the_period_is_refused_after_it(bus: RealBus) -> None:
    """Its id is remembered by the stream before; the worker that gets the copy was told nothing of the change."""
    shops, engine, stop = [Shop(), Shop()], ScriptedEngine(), asyncio.Event()
    nodes = [await bus.node("pricing", engine) for _ in shops]
    sender = await bus.node("shop-web", engine)
    declared = stream_named(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26}), "AUDIT")
    async with asyncio.TaskGroup() as group:
        captured: list[bytes] = []

        async def listen() -> None:
            async for batch in sender.transport.listen("call.pricing.*", live=listening):
                captured.extend(one.payload for one in batch)

        listening = asyncio.Event()
        hearing = group.create_task(listen())
        await listening.wait()
        for shop, node in zip(shops, nodes, strict=True):
            worker = await bus.stack.enter_async_context(Worker(shop.pricing, node))
            group.create_task(worker.run(stop))
            await worker.ready.wait()
        client = Client.on(sender)
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
        await until(lambda: bool(captured))
        await roll(declared, NEXT, bus.operator.jetstream)
        for _ in range(20):
            sender.transport.send([Outgoing(subject="call.pricing.quote", payload=captured[0])])
        await until(
            lambda: sum(node.counters.value("sealbus_refused_total", code="replayed") for node in nodes) == 20,
            seconds=20,
        )
        assert sum(len(shop.handled) for shop in shops) == 1
        await client.call("pricing.quote", Update(item_id="2"), returns=Price)
        assert sum(len(shop.handled) for shop in shops) == 2
        stop.set()
        hearing.cancel()


async def test_operator_rolls_by_command_and_agents_go_on_under_their_permissions(tmp_path: Path) -> None:
    options = DevOptions(folder=tmp_path / "dev", agents=("inventory", "shop-web"), port=-1, max_bytes=1 << 26)
    async with open_environment(options) as environment, open_node("inventory", environment.settings) as before:
        assert (
            await said(environment, "streams", "roll", "--to", NEXT)
            == f"AUDIT is closed and kept; {NEXT} takes the records\n"
        )
        stored = asyncio.Event()
        await before.audit.note(outcome(1), stored.set)
        # One that is started later checks the period's stream, whose name no setting says.
        async with open_node("inventory", environment.settings) as after:
            assert (await after.transport.audit_stream())[0] == NEXT
        async with asyncio.timeout(60):
            await stored.wait()
        assert len(json_lines(await said(environment, "audit", "tail", "--json"))) == 1
        assert json_lines(await said(environment, "audit", "tail", "--json", "--stream", "AUDIT")) == []
        assert await said(environment, "streams", "plan") == ""


def json_lines(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines()]


async def said(environment: Environment, *words: str) -> str:
    """Return what a command printed that ended well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sealbus",
        *words,
        "--config",
        str(environment.settings_file),
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()
