"""What a message costs as things grow: agents, stored messages, chains, the policy's data; and a push of a large registry.

Costs are processor time, of this process and of nats-server, and are compared in ES256 verifications of the same round: the
other sizes may have been measured when the machine had more to do. A size is compared with the first of its table.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from support.envelopes import NAMES, NOW, Issuer, agent, call_draft
from support.lab import running
from support.policy_bus import ANCHORS, ROOT
from support.policy_inputs import well_formed
from support.real_bus import RealBus, real_bus

from bench.backtest import verification
from bench.gate import TASKS, drain, fill
from bench.report import Figure
from bench.rounds import processor_seconds
from sealbus import Agent, Client, Context
from sealbus.agents.runtime.policy.push import content_of, push_content
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync
from sealbus.agents.runtime.worker import Worker, settle_collector
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.envelopes.accept.live import LiveProfile, Replays, accept_live
from sealbus.envelopes.message.freshness import CoreArrival
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Sealed, seal
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.in_force import InForce
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

ROUNDS = 5
AGENTS = (1, 50, 500)
STORED = (10_000, 100_000, 1_000_000)
LINKS = (1, 2, 4, 8)
ENTRIES = (100, 1_000, 10_000, 100_000)
CALLS = 512
TOGETHER = 32
DECISIONS = 2_000
IDLE = 3.0
"""Seconds without work."""
GOAL = 1.15
GUARD = 2.0
BLOCKED_GOAL = 50.0
"""Milliseconds of the event loop."""


class Costs:
    """Processor seconds for each message by size, beside those of a verification at the time."""

    def __init__(self, server: int | None = None) -> None:
        self.server = server
        self.own: dict[int, list[float]] = {}
        self.servers: dict[int, list[float]] = {}
        self.relative: dict[int, list[float]] = {}

    @contextmanager
    def measured(self, size: int, count: int) -> Iterator[None]:
        """Add a round, which is what the block takes for each of `count` messages."""
        unit = verification()
        server, own = processor_seconds(self.server), time.process_time()
        yield
        own, server = time.process_time() - own, processor_seconds(self.server) - server
        unit = (unit + verification()) / 2
        self.own.setdefault(size, []).append(own / count)
        self.servers.setdefault(size, []).append(server / count)
        self.relative.setdefault(size, []).append((own + server) / count / unit)

    def figures(self, label: str) -> Iterator[Figure]:
        """Compare each size with the first."""
        first = statistics.median(next(iter(self.relative.values())))
        for size, relative in self.relative.items():
            last = size == max(self.relative)
            own, server = (statistics.median(one[size]) * 1e6 for one in (self.own, self.servers))
            yield Figure.of(
                [one / first for one in relative],
                name=label.format(f"{size:,}"),
                unit="x",
                guard=GUARD if last else None,
                goal=GOAL if last else None,
                beside=f"{own:.1f} us of ours" + (f", {server:.1f} of nats-server" if self.server else ""),
            )


async def figures() -> AsyncIterator[Figure]:
    """Measure each table."""
    for table in (_agents, _stored, _chains, _policy_data, _push):
        async for figure in table():
            yield figure


async def _agents() -> AsyncIterator[Figure]:
    """Consume the tasks of one agent beside idle ones, which have a connection, a consumer and a waiting pull each."""
    others = [f"idle-{number}" for number in range(1, max(AGENTS))]
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "pricing", "shop-web", *others, max_bytes=1 << 28) as bus,
            EmbeddedEngine.of_folder() as engine,
            AsyncExitStack() as workers,
        ):
            client, node = Client.on(await bus.node("shop-web", engine)), await bus.node("pricing", engine)
            await _warm(client, bus, engine)
            costs, stop, idle = Costs(bus.server.pid), asyncio.Event(), 0
            group = await workers.enter_async_context(asyncio.TaskGroup())
            workers.callback(stop.set)
            for size in AGENTS:
                while idle < size - 1:
                    worker = Worker(_idle(others[idle]), await bus.node(others[idle], engine))
                    group.create_task((await workers.enter_async_context(worker)).run(stop))
                    await worker.ready.wait()
                    idle += 1
                settle_collector()
                for _ in range(ROUNDS):
                    await fill(client)
                    with costs.measured(size, TASKS):
                        await drain(node, status=False)
            own, server = time.process_time(), processor_seconds(bus.server.pid)
            await asyncio.sleep(IDLE)
            own, server = (time.process_time() - own) / IDLE, (processor_seconds(bus.server.pid) - server) / IDLE
    for figure in costs.figures("a task consumed, one of {} agents"):
        yield figure
    yield Figure(
        name=f"  {idle} idle agents, in one process: of its core",
        value=own * 100,
        unit="%",
        beside=f"{server * 100:.1f} % for nats-server",
    )


def _idle(name: str) -> Agent:
    idle = Agent(name)

    @idle.task("quote")
    async def quote(body: str, ctx: Context) -> None:
        del body, ctx

    return idle


async def _warm(client: Client, bus: RealBus, engine: EmbeddedEngine) -> None:
    await fill(client)
    await drain(await bus.node("pricing", engine), status=False)


async def _stored() -> AsyncIterator[Figure]:
    """Consume tasks from a stream that holds many others."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            real_bus(Path(folder), "pricing", "shop-web", max_bytes=1 << 31) as bus,
            EmbeddedEngine.of_folder() as engine,
        ):
            client, node = Client.on(await bus.node("shop-web", engine)), await bus.node("pricing", engine)
            await _warm(client, bus, engine)
            settle_collector()
            costs, stored = Costs(bus.server.pid), 0
            for size in STORED:
                while stored < size:
                    more = [Outgoing(subject="task.nobody.quote", payload=b"x" * 256) for _ in range(1_000)]
                    answers = await node.transport.publish(more, deadline=30.0)
                    assert all(isinstance(one, PubAck) for one in answers)
                    stored += len(more)
                for _ in range(ROUNDS):
                    await fill(client)
                    with costs.measured(size, TASKS):
                        await drain(node, status=False)
    for figure in costs.figures("a task consumed, {} messages are stored"):
        yield figure


async def _chains() -> AsyncIterator[Figure]:
    """Open calls at the end of chains of different lengths; each hop was sealed in batches."""
    issuer, costs, caches = Issuer(), Costs(), Caches()
    names = [f"agent-{number}" for number in range(max(LINKS) + 1)]
    trust = Trust(bundles=TrustBundles([JwtBundle.parse(issuer.trust_domain, issuer.jwks())]))
    sealers = {name: issuer.sealer(agent(name)) for name in names}
    made = {links: _chain(names[: links + 1], sealers) for links in LINKS}
    for number in range(-1, ROUNDS):
        for links, calls in made.items():
            replay = ReplayMemory(CALLS + 1)
            profile = LiveProfile(own=agent(names[links]), names=NAMES, kinds=frozenset({Kind.CALL}))
            arrival = CoreArrival(subject=calls[0].header.to, started=0, audit_created=0)
            # The first round fills the caches of credentials.
            with (costs if number >= 0 else Costs()).measured(links, CALLS * links):
                for one in calls:
                    accept_live(
                        one.wire, arrival, profile, action=f"{names[links]}.quote",
                        trust=trust, caches=caches, replays=Replays(replay), now=NOW,
                    )  # fmt: skip
    for figure in costs.figures("each message of a chain opened, {} of them"):
        yield figure


def _chain(names: Sequence[str], sealers: dict[str, object]) -> list[Sealed]:
    """Return calls to the last of `names`, each of which was called by the one before."""
    above: list[tuple] = [()] * CALLS
    sealed: list[Sealed] = []
    for sender, to in pairwise(names):
        drafts = [
            call_draft(number + 1, iss=sender, aud=to)._replace(ancestors=ancestors, body=b"x" * 1_024)
            for number, ancestors in enumerate(above)
        ]
        sealed = []
        for place in range(0, CALLS, TOGETHER):
            sealed += seal(drafts[place : place + TOGETHER], sealers[sender])
        above = [(one.ancestor, *ancestors) for one, ancestors in zip(sealed, above, strict=True)]
    return sealed


def registry_folder(folder: Path, entries: int) -> Path:
    """Copy the starter policy to a new `folder`, with so many users in its registry."""
    shutil.copytree(STARTER, folder)
    users = folder / "sealbus" / "registry" / "users" / "data.json"
    more = {f"user-{number:06}": {"customers": {"acme": True}} for number in range(entries)}
    users.write_text(json.dumps(json.loads(users.read_text()) | more))
    return folder


async def _policy_data() -> AsyncIterator[Figure]:
    """Decide in turns by registries of different sizes."""
    documents, costs = well_formed(DECISIONS), Costs()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            engines = {}
            for entries in ENTRIES:
                policy = await asyncio.to_thread(registry_folder, Path(folder) / str(entries), entries)
                engines[entries] = await stack.enter_async_context(EmbeddedEngine.of_folder(policy, deadline=30.0))
            for _ in range(ROUNDS):
                for entries, engine in engines.items():
                    with costs.measured(entries, DECISIONS):
                        await engine.decide(documents)
    for figure in costs.figures("a decision, {} users in the registry"):
        yield figure


async def _push() -> AsyncIterator[Figure]:
    """Take a pushed registry as a running process does, and find the longest time in which its event loop was not free."""
    blocked, put, taken = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = await asyncio.to_thread(registry_folder, folder / "large", max(ENTRIES))
        bundle = await asyncio.to_thread(build_bundle, large)
        small = await asyncio.to_thread(build_bundle, STARTER)
        async with running(folder / "nats", "a") as lab, lab.connection("a") as connection:
            store = PolicyStore(connection, "policies")
            await store.create()
            await push_content(store, ANCHORS, "platform", content_of(large), ROOT)
            settle_collector()
            for number in range(ROUNDS):
                in_force = InForce()
                await in_force.put(small)
                async with EmbeddedEngine(in_force):
                    sync = PolicySync(store, folder / f"kept-{number}", ANCHORS, in_force=in_force)
                    began = time.perf_counter()
                    gap = asyncio.create_task(_longest_gap(taking := asyncio.create_task(sync.start())))
                    await taking
                    taken.append((time.perf_counter() - began) * 1e3)
                    blocked.append(await gap * 1e3)
                    await in_force.put(small)
                    began = time.perf_counter()
                    await in_force.put(bundle)
                    put.append((time.perf_counter() - began) * 1e3)
    label = f"a push with {max(ENTRIES):,} registry entries"
    yield Figure.of(blocked, name=f"{label}: the event loop blocked", unit="ms", goal=BLOCKED_GOAL)
    yield Figure.of(put, name="  to put the checked bundle in force, with turns of the loop", unit="ms")
    yield Figure.of(taken, name="  until it is in force and kept", unit="ms")


async def _longest_gap(during: asyncio.Task[None]) -> float:
    """Return the longest time between two turns of a task that is always ready."""
    longest, before = 0.0, time.perf_counter()
    while not during.done():
        await asyncio.sleep(0.001)
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
    return longest
