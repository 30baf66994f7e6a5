"""Workers of one agent on a broker in memory that can be killed at any of their stores, and replaced by new ones.

A worker that was killed does nothing any more that anybody sees: what it publishes does not arrive, what it settles stays
unsettled. Whoever plays the server calls `MemoryPull.lapse`, which delivers that again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum

import pytest

from sealbus.agents.dev.memory.broker import MemoryPull, MemoryTransport
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.node import Host, Node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.clocks import HostClock
from sealbus.bus.gate import gate, resumption
from sealbus.bus.ports import AckFloors, ConsumerLoad, Delivery, Outgoing, PubAck, Pull
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.work.approvals import parking, progress
from sealbus.bus.work.executor import ending, settlement
from sealbus.envelopes.errors import BusUnavailable
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.testing import TestBus

__all__ = ["Fault", "Faults", "Replicas", "hasten"]

SOON = RetryPolicy(initial_interval=0.001, maximum_interval=0.02, maximum_attempts=None)


class Fault(StrEnum):
    """What happens at one store."""

    REFUSED = "refused"
    UNACKNOWLEDGED = "unacknowledged"
    """It is stored, and whoever stored it does not learn that."""
    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"


@dataclass
class Faults:
    """What happens at which store of all workers, counted from 1 and not again after a fault has happened there."""

    at: Mapping[int, Fault] = field(default_factory=dict)
    stores: list[str] = field(default_factory=list)
    """The streams of the stores so far."""

    def next(self, stream: str) -> Fault | None:
        self.stores.append(stream)
        return self.at.get(len(self.stores))


class FaultyTransport(MemoryTransport):
    """The transport of one worker."""

    def __init__(self, bus: TestBus, faults: Faults) -> None:
        super().__init__(bus.broker)
        self._bus = bus
        self._faults = faults
        self.killed = asyncio.Event()

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        answers: list[PubAck | Exception] = []
        for message in messages:
            stream = self._bus.broker.stream_of(message.subject)
            assert stream is not None
            if self.killed.is_set():
                await asyncio.Event().wait()
            fault = self._faults.next(stream.config.name)
            if fault is Fault.KILLED_BEFORE:
                self.killed.set()
                await asyncio.Event().wait()
            if fault is Fault.REFUSED:
                answers.append(BusUnavailable("refused"))
                continue
            [answer] = await super().publish([message], deadline=deadline)
            if fault is Fault.KILLED_AFTER:
                self.killed.set()
                await asyncio.Event().wait()
            answers.append(BusUnavailable("not acknowledged") if fault is Fault.UNACKNOWLEDGED else answer)
        return answers

    def pull(  # type: ignore[override]  # it wraps what the broker gives
        self,
        stream: str,
        consumer: str,
        subjects: Sequence[str],
        *,
        batch: int,
        ack_wait: float,
        max_ack_pending: int,
        floors: AckFloors | None = None,
        one_replica: bool = False,
    ) -> Pull:
        bound = super().pull(
            stream, consumer, subjects, batch=batch, ack_wait=ack_wait, max_ack_pending=max_ack_pending
        )
        return _Pull(bound, self.killed)


class _Pull:
    """A consumer as one worker sees it."""

    def __init__(self, bound: MemoryPull, killed: asyncio.Event) -> None:
        self._bound = bound
        self._killed = killed

    def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        return self._bound.batches()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if not self._killed.is_set():
            self._bound.ack(deliveries)

    def retry(self, delivery: Delivery, delay: float) -> None:
        if not self._killed.is_set():
            self._bound.retry(delivery, delay)

    def term(self, delivery: Delivery) -> None:
        if not self._killed.is_set():
            self._bound.term(delivery)

    def working(self, delivery: Delivery) -> None:
        return

    async def load(self) -> ConsumerLoad:
        return await self._bound.load()

    async def keep_floor(self) -> None:
        return


class Replicas:
    """Workers of `agent` on `bus`, each of which is replaced when it is killed; enter with `async with`."""

    def __init__(
        self,
        bus: TestBus,
        agent: Agent,
        engine: PolicyEngine,
        *,
        faults: Faults | None = None,
        number: int = 1,
        limits: WorkerLimits | None = None,
    ) -> None:
        self._bus = bus
        self._agent = agent
        self._engine = engine
        self.faults = faults or Faults()
        self._number = number
        self._limits = limits or WorkerLimits(claim_margin=0.05, parked_a_minute=1_000)
        self._tasks: list[asyncio.Task[None]] = []
        self.workers: dict[int, Worker] = {}
        self.killed = 0
        self._leaving = False

    async def __aenter__(self) -> Replicas:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(self._number)]
        await self.ready()
        return self

    async def __aexit__(self, *error: object) -> None:
        # A replica that is being killed awaits its worker, and takes its own cancellation for that of the worker.
        self._leaving = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def ready(self) -> None:
        """Wait until every worker takes work."""
        while len(self.workers) < self._number or not all(one.ready.is_set() for one in self.workers.values()):
            self._raise()
            await asyncio.sleep(0)

    def _raise(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()

    async def _run(self, number: int) -> None:
        while not self._leaving:
            transport = FaultyTransport(self._bus, self.faults)
            running = asyncio.create_task(self._live(number, transport))
            killed = asyncio.create_task(transport.killed.wait())
            try:
                await asyncio.wait({running, killed}, return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
                    raise AssertionError("a worker ended by itself")
            finally:
                transport.killed.set()
                running.cancel()
                killed.cancel()
                with suppress(asyncio.CancelledError):
                    await running
                self.workers.pop(number, None)
            self.killed += 1
            for pull in self._bus.broker.consumers.values():
                pull.lapse()

    async def _live(self, number: int, transport: FaultyTransport) -> None:
        bus = self._bus
        node = Node(
            deployment=bus.deployment,
            identity=MemoryIdentity(bus.authority, bus.names.id_of(self._agent.name)),
            transport=transport,
            engine=self._engine,
            host=Host(clock=HostClock(bus.broker.clock)),
        )
        async with node, Worker(self._agent, node, self._limits) as worker:
            self.workers[number] = worker
            await worker.run(asyncio.Event())

    async def idle(self, within: float = 20.0) -> None:
        """Wait until everything that was stored is settled, by whichever workers live until then."""
        async with asyncio.timeout(within):
            while True:
                await self.ready()
                living = list(self.workers.values())
                for pull in self._bus.broker.consumers.values():
                    while not pull.idle:
                        self._raise()
                        await asyncio.sleep(0.001)
                for worker in living:
                    settling = asyncio.create_task(worker.settle())
                    while not settling.done() and worker in self.workers.values():
                        await asyncio.wait({settling}, timeout=0.01)
                    settling.cancel()
                idle = all(pull.idle for pull in self._bus.broker.consumers.values())
                if idle and living == list(self.workers.values()):
                    return


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have everything that is put off tried again at once."""
    for module in (gate, resumption, ending, parking):
        monkeypatch.setattr(module, "UNTIL_EXPIRY", SOON)
    monkeypatch.setattr(progress, "END_AGAIN", (0.0, 0.001, 0.002))
    monkeypatch.setattr(progress, "LOST", 0.001)
    monkeypatch.setattr(settlement, "TELL_AGAIN", RetryPolicy(initial_interval=0.001, maximum_attempts=9))
    monkeypatch.setattr(settlement, "BURY_AGAIN", 0.001)
