"""The audit path: the cost of recording and of syncing, the notary, `audit verify`.

Verification is measured with each number of records in `VERIFIED`, and also with the environment's `RECORDS`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import nats
from nats.js.api import ConsumerConfig
from support.identity import StaticIdentity
from support.nats_server import NatsServer, User
from support.x509 import ThrowawayCa

from bench.audit_world import NAMES, ORIGIN, AuditWorld
from bench.report import Figure
from bench.rounds import Rounds
from sealbus.agents.control.notary.log.folder_store import FolderStore
from sealbus.agents.control.notary.notary import Notary, NotaryOptions
from sealbus.agents.control.notary.publisher import NotarySite
from sealbus.agents.control.notary.resume import LogPlan
from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.bus.audit.spool import Spool, SpoolOptions
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.message import record_message
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.log.note import NoteSigner
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["figures"]

BATCH = 100
ROUNDS = 40
USERS = (1, 10, 50)
"""Numbers of users whose tasks share a batch."""
STREAMED = 10_000
"""Records written to each server."""
IN_FLIGHT = 4
"""Batches that await their acknowledgement at the same time, as in the gate."""
TURNS = 5
LOGGED = 8_000
"""Audit messages that the notary and a bare pull read, each of 8 records."""
GOALS = {32: 25_000.0, 1: 10_000.0}
VERIFIED = (5_000, 25_000)
BIG = 1 << 30


async def figures() -> AsyncIterator[Figure]:
    """Measure one after the other."""
    more = int(os.environ.get("RECORDS") or 0)
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        folder = Path(name)
        for part in (recording(), syncing(folder), keeping(folder)):
            async for figure in part:
                yield figure
        for figure in verifying(folder, [*VERIFIED, *([more] if more else [])]):
            yield figure


async def recording() -> AsyncIterator[Figure]:
    """Measure the writer's own time, from decisions to sealed messages for a broker in memory, in batches of 100."""
    for users in USERS:
        world, broker, counters, costs = AuditWorld(users), MemoryBroker(), Counters(), []
        broker.add_stream("AUDIT", ["audit.>"], max_bytes=BIG)
        async with (
            Outbox(identity=world.inventory, transport=broker.connect()) as outbox,
            _writer(world, outbox, counters) as writer,
        ):
            for _ in range(ROUNDS):
                decided = world.decided(BATCH, 32)
                gc.collect()
                started = time.process_time()
                answers = await writer.decisions(decided)
                costs.append((time.process_time() - started) / BATCH * 1e6)
                assert all(isinstance(one, bytes) for one in answers)
        records = broker.streams["AUDIT"].stored
        size = sum(len(one.subject) + len(one.payload) + len(one.header_block) for one in records) / ROUNDS / BATCH
        # A message stores a user's context and its credential once: the limits are for one user.
        first = users == USERS[0]
        label = f"batches of {BATCH}, {users} user{'s' if users > 1 else ''}"
        yield Figure.of(costs, name=f"recording, {label}", unit="us", goal=12.0 if first else None)
        yield Figure(
            name="  stored, with all evidence",
            value=size,
            unit="B",
            guard=1_650.0 if first else None,
            goal=1_500.0 if first else None,
        )


def _writer(world: AuditWorld, outbox: Outbox, counters: Counters, spool: Spool | None = None) -> AuditWriter:
    return AuditWriter(subject="audit.inventory", outbox=outbox, counters=counters, spool=spool)


@asynccontextmanager
async def _server(folder: Path, jetstream: str = "") -> AsyncIterator[tuple[NatsServer, ThrowawayCa]]:
    ca = ThrowawayCa("example.org")
    users = [User(id=NAMES.id_of(name).value) for name in ("inventory", "notary", "bench")]
    async with NatsServer(folder, ca, users, jetstream=jetstream) as server:
        yield server, ca


@asynccontextmanager
async def _connection(server: NatsServer, ca: ThrowawayCa, memory: MemoryIdentity) -> AsyncIterator[Connection]:
    identity = StaticIdentity(ca, memory.spiffe_id.value, sealer=memory.sealer, bundles=memory.bundles())
    async with Connection(
        [server.url],
        identity=identity,
        server_ids=frozenset({SpiffeId(server.spiffe_id)}),
        inbox_prefix=NAMES.inbox_prefix(memory.spiffe_id),
    ) as connection:
        await apply(declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 29}), connection.jetstream)
        yield connection


async def syncing(folder: Path) -> AsyncIterator[Figure]:
    """Write the same records in turns to a server that syncs every two minutes, one that always syncs, and a spool."""
    world = AuditWorld()
    batches = [world.decided(BATCH, 32) for _ in range(STREAMED // BATCH)]
    rounds = Rounds()
    async with AsyncExitStack() as stack:
        writers: dict[str, tuple[AuditWriter, int]] = {}
        for name, how in (("lazy", ""), ("always", ", sync_interval: always"), ("spool", "")):
            server, ca = await stack.enter_async_context(_server(folder / name, how))
            connection = await stack.enter_async_context(_connection(server, ca, world.inventory))
            counters = Counters()
            outbox = await stack.enter_async_context(
                Outbox(identity=world.inventory, transport=NatsTransport(connection))
            )
            spool = None
            if name == "spool":
                options = SpoolOptions(folder=folder / "files", max_bytes=BIG, drain=60.0)
                spool = await stack.enter_async_context(
                    Spool(options, subject="audit.inventory", outbox=outbox, counters=counters)
                )
            writers[name] = await stack.enter_async_context(_writer(world, outbox, counters, spool)), server.pid
        for _ in range(TURNS):
            rounds.add("fdatasync", _bare_sync(folder))
            for name, (writer, server_process) in writers.items():
                with rounds.measured(name, STREAMED, server=server_process):
                    await _write(writer, batches)
    yield rounds.ratio("records stored, sync_interval: always / every 2 min", "always", "lazy")
    yield rounds.ratio("  local spool, and sent / every 2 min", "spool", "lazy")
    yield rounds.rate("lazy", label=f"records stored, batches of {BATCH}, sync every 2 min")
    yield rounds.rate("always", label="records stored, sync_interval: always")
    yield rounds.rate("spool", label="records stored in the local spool, and sent")
    yield rounds.latency("fdatasync", label="fdatasync of 128 KiB, bare", unit="us")


def _bare_sync(folder: Path) -> float:
    """Return the best time of a write as large as a batch of records, with its sync."""
    data, times = os.urandom(131_072), []
    with (folder / "bare").open("wb") as file:
        for _ in range(30):
            started = time.perf_counter()
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return min(times)


async def _write(writer: AuditWriter, batches: Sequence[Sequence[Decided]]) -> None:
    """Return when all records are acknowledged or durable."""
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one(decided: Sequence[Decided]) -> None:
        async with room:
            answers = await writer.decisions(decided)
            assert all(isinstance(answer, bytes) for answer in answers), answers

    async with asyncio.TaskGroup() as group:
        for decided in batches:
            group.create_task(one(decided))


async def keeping(folder: Path) -> AsyncIterator[Figure]:
    """Measure in turns a notary that logs a stream from its start, and nats-py that fetches and acks the same messages."""
    world, signer = AuditWorld(), NoteSigner(ORIGIN, bytes(range(32)))
    async with _server(folder / "server") as (server, ca), _connection(server, ca, world.inventory) as connection:
        async with Outbox(identity=world.inventory, transport=NatsTransport(connection)) as outbox:
            number = 0
            for _ in range(0, LOGGED, 500):
                messages = []
                for _ in range(500):
                    batch = AuditBatch()
                    for _ in range(8):
                        number += 1
                        record = OutcomeRecord.of(
                            decision=number.to_bytes(32, "big"), code=None, micros=1, delivery=1, sent=()
                        )
                        batch.add(record.encode())
                    messages.append(record_message("audit.inventory", batch.close()))
                stored = await outbox.publish_each(messages)
                assert all(isinstance(one, Posted) for one in stored)
        rounds = Rounds(server.pid)
        for turn in range(TURNS):
            await _keep(rounds, world, signer, server, ca, folder / f"log-{turn}")
            await _bare_pull(rounds, server, ca, f"bare-{turn}")
    yield rounds.ratio("notary / bare nats-py", "notary", "bare", guard=0.2, goal=0.35)
    yield rounds.rate("notary", label="notary, tiles and checkpoints on disk", unit="msg/s")
    yield rounds.rate("bare", label="bare nats-py: fetch(200), ack of the same stream", unit="msg/s")


async def _keep(
    rounds: Rounds, world: AuditWorld, signer: NoteSigner, server: NatsServer, ca: ThrowawayCa, folder: Path
) -> None:
    counters = Counters()
    # Each run has its own log, so that the lease and records of the one before do not matter.
    plan = LogPlan(origin=f"{ORIGIN}/{folder.name}", verifiers=(signer.verifier,))
    async with _connection(server, ca, world.notary) as connection:
        transport = NatsTransport(connection)
        async with Outbox(identity=world.notary, transport=transport) as outbox:
            notary = Notary(
                NotaryOptions(plan=plan, signers=(signer,)),
                NotarySite(identity=world.notary, transport=transport, outbox=outbox, names=NAMES, counters=counters),
                store=FolderStore(folder),
            )
            running: asyncio.Future[None] | None = None
            try:
                with rounds.measured("notary", LOGGED):
                    running = asyncio.ensure_future(notary.run())
                    while counters.value("sealbus_notary_entries_total") < LOGGED:
                        done, _ = await asyncio.wait({running}, timeout=0.002)
                        if done:
                            running.result()
            finally:
                if running is not None:
                    running.cancel()
                    await asyncio.wait({running})


async def _bare_pull(rounds: Rounds, server: NatsServer, ca: ThrowawayCa, durable: str) -> None:
    identity = StaticIdentity(ca, NAMES.id_of("bench").value)
    tls = client_context(identity.x509(), expected=frozenset({SpiffeId(server.spiffe_id)}))
    connection = await nats.connect(server.url, tls=tls, tls_hostname="", tls_handshake_first=True)
    try:
        pull = await connection.jetstream().pull_subscribe(
            "audit.>", durable=durable, stream="AUDIT", config=ConsumerConfig(max_ack_pending=20_000)
        )
        taken = 0
        with rounds.measured("bare", LOGGED):
            while taken < LOGGED:
                for message in await pull.fetch(200, timeout=5):
                    await message.ack()
                    taken += 1
    finally:
        await connection.close()


def verifying(folder: Path, counts: Sequence[int]) -> Iterator[Figure]:
    """Verify exports with each number of decisions, on one core, in a separate process."""
    for together, goal in GOALS.items():
        memory = []
        for count in counts:
            export, root = folder / f"export-{together}-{count}", folder / f"root-{together}-{count}.json"
            root.write_bytes(AuditWorld().export(export, count, together=together))
            runs = [_verify(export, root) for _ in range(3 if count < 100_000 else 1)]
            memory.append(runs[0]["megabytes"])
            rate = count / min(run["seconds"] for run in runs)
            label = "lone" if together == 1 else f"batches of {together}"
            yield Figure(name=f"verify, {count:,} records, {label}", value=rate, unit="rec/s", goal=goal, at_least=True)
            yield Figure(name="  memory of the process", value=memory[-1], unit="MB")
        if len(memory) > 1:
            yield Figure(name="  growth from first to last", value=memory[-1] / memory[0], unit="x", guard=1.3)


def _verify(export: Path, root: Path) -> dict[str, float]:
    ran = subprocess.run(
        [sys.executable, "-m", "bench.audit_verify", str(export), str(root)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found
