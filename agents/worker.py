"""`Worker`: runs one agent's handlers behind the gate, until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sealbus.agents.agent import Agent
from sealbus.agents.endpoint import routes_of
from sealbus.agents.node import Node
from sealbus.bus.dead import DeadLetters
from sealbus.bus.gate import CoreOrigin, Gate, Turn
from sealbus.bus.lanes import Lanes
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routes import RouteTable
from sealbus.envelopes.accept import LiveProfile
from sealbus.envelopes.caches import ReplayMemory
from sealbus.envelopes.errors import ConfigurationError, SealbusError
from sealbus.envelopes.kinds import Kind

__all__ = ["Worker", "WorkerLimits"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Bounds and waits of a worker."""

    concurrency: int = 64
    """Handlers that run at a time; 1 keeps tasks in strict order."""
    batch: int = 256
    """Deliveries opened, decided and recorded together."""
    ack_wait: float = 30.0
    """Seconds until the broker redelivers what gave no sign of life."""
    max_ack_pending: int = 2_048
    pending_calls: int = 4_096
    """Core calls that wait to be opened; more are dropped and counted."""
    replay_entries: int = 100_000
    """Core calls remembered until they expire (step 6); full memory refuses."""
    drain: float = 20.0
    """Seconds that handlers have to finish after a stop."""


class Worker:
    """One agent on one node. `async with Worker(agent, node) as worker: await worker.run(stop)`."""

    def __init__(self, agent: Agent, node: Node, limits: WorkerLimits | None = None) -> None:
        own = node.deployment.names.id_of(agent.name)
        if own != node.own:
            raise ConfigurationError(
                f"agent {agent.name} is {own}, but this workload's identity is {node.own}: check the registration entry "
                "or the [agents] table"
            )
        self.agent = agent
        self.node = node
        self.limits = limits or WorkerLimits()
        self.routes = RouteTable(
            routes_of(
                agent,
                sending=node.sending,
                names=node.deployment.names,
                own_subjects=node.deployment.own_subjects,
            )
        )
        self.ready = asyncio.Event()
        """Set once every source is being consumed."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        node, limits = self.node, self.limits
        created = await node.transport.created("AUDIT")
        async with AsyncExitStack() as stack:
            self._lanes = await stack.enter_async_context(
                Lanes(
                    outbox=node.outbox,
                    audit=node.audit,
                    dead=DeadLetters(token=node.token, transport=node.transport, outbox=node.outbox),
                    counters=node.counters,
                    random=node.random,
                    concurrency=limits.concurrency,
                    clock=node.clock,
                )
            )
            profile = LiveProfile(
                own=node.own,
                names=node.deployment.names,
                kinds=frozenset({Kind.TASK, Kind.CALL, Kind.EVENT}),
                own_subjects=node.deployment.own_subjects,
                minters=node.deployment.minters,
            )
            self._gate = await stack.enter_async_context(
                Gate(
                    profile=profile,
                    routes=self.routes,
                    trust=node.trust,
                    judge=node.judge,
                    audit=node.audit,
                    refusals=node.refusals,
                    lanes=self._lanes,
                    counters=node.counters,
                    core=CoreOrigin(started=node.started, audit_created=created),
                    caches=node.caches,
                    replay=ReplayMemory(limits.replay_entries),
                    random=node.random,
                    clock=node.clock,
                )
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def run(self, stop: asyncio.Event) -> bool:
        """Consume until `stop` is set, then take nothing more and finish what was taken; tell whether all of it was."""
        async with asyncio.TaskGroup() as group:
            sources = [group.create_task(self._consume(pull), name=f"source-{name}") for name, pull in self._pulls()]
            if self.routes.subjects(Kind.CALL):
                sources.append(group.create_task(self._serve(), name="source-calls"))
            self.ready.set()
            await stop.wait()
            for source in sources:
                source.cancel()
        try:
            async with asyncio.timeout(self.limits.drain):
                await self._gate.settle()
                drained = await self._lanes.drain(self.limits.drain)
        except TimeoutError:
            drained = False
        if not drained:
            _log.warning("stopped with work unfinished: it will be delivered again")
        return drained

    def not_ready(self) -> dict[str, str]:
        """Return why no work can be taken now, by part; empty where it can."""
        reasons = {}
        if not self.ready.is_set():
            reasons["sources"] = "not consuming"
        try:
            self.node.identity.sealer()
        except SealbusError as error:
            reasons["identity"] = str(error.code)
        return reasons

    async def settle(self) -> None:
        """Wait until what was taken so far is handled, without stopping."""
        await self._gate.settle()
        await self._lanes.drain(self.limits.drain)

    def _pulls(self) -> list[tuple[str, Pull]]:
        token, limits = self.node.token, self.limits
        wanted: list[tuple[str, tuple[str, ...]]] = []
        if self.routes.subjects(Kind.TASK):
            wanted.append(("TASKS", (f"task.{token}.>",)))
        events = tuple(s for s in self.routes.subjects(Kind.EVENT))
        if events:
            wanted.append(("EVENTS", events))
        return [
            (
                stream,
                self.node.transport.pull(
                    stream,
                    token,
                    subjects,
                    batch=limits.batch,
                    ack_wait=limits.ack_wait,
                    max_ack_pending=limits.max_ack_pending,
                ),
            )
            for stream, subjects in wanted
        ]

    async def _consume(self, pull: Pull) -> None:
        await self._admit(pull.batches(), pull)

    async def _serve(self) -> None:
        token = self.node.token
        source = self.node.transport.listen(f"call.{token}.*", queue=token, pending=self.limits.pending_calls)
        await self._admit(source, None)

    async def _admit(self, batches: AsyncGenerator[Sequence[Delivery], None], pull: Pull | None) -> None:
        turn = Turn()
        async with aclosing(batches) as source:
            async for batch in source:
                await self._gate.admit(batch, pull, turn)
