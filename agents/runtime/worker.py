"""`Worker`: runs one agent's handlers behind the gate, until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from types import TracebackType
from typing import Final, Self

from sealbus.agents.runtime.assembly import Assembly, Source, WorkerLimits
from sealbus.agents.runtime.draining import describe_unfinished, say_while_draining
from sealbus.agents.runtime.health import Readiness
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.process.in_flight import InFlightTable
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.gate.gate import Turn
from sealbus.bus.work.cancel.in_force import NEW_CELLS
from sealbus.bus.work.schedules.standing import StandingGrants
from sealbus.envelopes.errors import ConfigurationError, InfrastructureError
from sealbus.envelopes.message.kinds import Kind

_logger = logging.getLogger(__name__)

FLOOR_SECONDS: Final = 5.0
"""Seconds between two writes of how far a consumer is acknowledged: what is repeated when its server is lost."""

YOUNG: Final = 20_000
"""New containers between collections of the young ones: a batch of messages makes a few thousand, all short-lived."""


class Worker:
    """One agent on one node. `async with Worker(agent, node) as worker: await worker.run(stop)`.

    With `standing` its schedules are those of users (`sealbus.bus.work.schedules.standing`). `in_flight` is its table of
    messages that it handles, with those that the process before it was handling.
    """

    def __init__(
        self,
        agent: Agent,
        node: Node,
        limits: WorkerLimits | None = None,
        *,
        standing: StandingGrants | None = None,
        in_flight: InFlightTable | None = None,
    ) -> None:
        own = node.deployment.names.id_of(agent.name)
        if own != node.own:
            raise ConfigurationError(
                f"agent {agent.name} is {own}, but this workload's identity is {node.own}: check the registration entry "
                "or the [agents] table"
            )
        self.agent = agent
        self.node = node
        self.limits = limits or WorkerLimits()
        self.ready = asyncio.Event()
        """Set once no call can be missed: the broker has seen every subscription."""
        self._apart = asyncio.Event()
        """Set once no more messages are taken from these sources: our clock and the broker's do not agree, or there is a new
        cell to listen in."""
        self._readiness = Readiness(node)
        self._in_flight = in_flight
        self.parts = Assembly(agent, node, self.limits, standing=standing, in_flight=in_flight)
        self.routes = self.parts.routes
        self.schedules = self.parts.schedules
        """The schedules of this agent, as this process runs them."""
        node.outbox.declare(agent.declares)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.parts.enter(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def run(self, stop: asyncio.Event) -> bool:
        """Consume until `stop` is set, then finish the work that was taken; return whether all of it was finished in time."""
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._take_all(), name="taking"),
                group.create_task(self._readiness.watch_engine(), name="readiness"),
                group.create_task(self.schedules.run(), name="schedules"),
            ]
            await stop.wait()
            for task in running:
                task.cancel()
        # The process that told this worker to stop may end it before all is done, which is no message's fault.
        await self.parts.poison.forgive()
        parts, drained, within = self.parts, False, self.limits.drain
        unfinished = parts.work.executor.unfinished
        async with say_while_draining(self.agent.name, unfinished, within=within, clock=self.node.site.bus_clock):
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    for handling in (parts.work, parts.approvals, parts.control):
                        await handling.gate.idle()
                    await parts.resuming.idle()
                    drained = await parts.work.executor.drain(within)
                    drained = await parts.control.executor.drain(within) and drained
                    await parts.resuming.idle()
        if not drained:
            left = describe_unfinished(unfinished(), self.node.site.bus_clock())
            _logger.warning(
                "%s stopped with work unfinished; tasks and events are redelivered: %s", self.agent.name, left
            )
        return drained

    async def _take_all(self) -> None:
        """Take from all sources while our clock and the broker's agree. Other replicas take the remaining messages."""
        while True:
            await self.node.clocks.agree()
            if self._in_flight is not None:
                await self.parts.poison.suspect(self._in_flight.left)
                self._in_flight = None
            # Know all stops before a message is taken.
            await self.parts.stops.current.wait()
            self._apart.clear()
            async with asyncio.TaskGroup() as group:
                listened = self.parts.listened()
                sources = [*self.parts.consumers()]
                # One subscription for each verb, so that NATS routes calls to agents that have it.
                live = {subject: asyncio.Event() for subject in self.routes.subjects(Kind.CALL)}
                sources += [self._calls(subject, seen) for subject, seen in live.items()]
                taking = [group.create_task(self._take(source), name=f"source-{source.name}") for source in sources]
                taking.append(group.create_task(self._announce(live.values()), name="source-ready"))
                taking.append(group.create_task(self._watch_clocks(), name="source-clocks"))
                taking.append(group.create_task(self._watch_cells(listened), name="source-cells"))
                taking.append(group.create_task(self._keep_floors(sources), name="source-floors"))
                await self._apart.wait()
                for task in taking:
                    task.cancel()
            self.ready.clear()

    async def _keep_floors(self, sources: Sequence[Source]) -> None:
        """Store every few seconds how far the consumers are acknowledged. A floor that is not stored is stored later."""
        pulls = [source.pull for source in sources if source.pull is not None]
        while True:
            await asyncio.sleep(FLOOR_SECONDS)
            for pull in pulls:
                try:
                    await pull.keep_floor()
                except InfrastructureError as error:
                    _logger.debug("how far a consumer is acknowledged is not stored: %r", error)

    async def _watch_clocks(self) -> None:
        await self.node.clocks.disagree()
        self._apart.set()

    async def _watch_cells(self, listened: Mapping[str, Sequence[str]]) -> None:
        """Take from all sources anew once events are listened to elsewhere than in `listened`."""
        while self.parts.listened() == listened:  # noqa: ASYNC110  the cells have no event
            await asyncio.sleep(NEW_CELLS)
        self._apart.set()

    def not_ready(self) -> dict[str, str]:
        """Return why no work can be taken now, by part; empty if it can."""
        sources = {} if self.ready.is_set() else {"sources": "not consuming"}
        if self.node.connected() and not self.parts.stops.current.is_set():
            sources |= {"state": "what was canceled is not known"}
        return sources | self._readiness.reasons()

    def notes(self) -> dict[str, str]:
        """Return the notes for an operator, by part. They do not keep the worker from taking work."""
        parts = self.parts
        return self._readiness.notes() | parts.places.notes() | parts.verb_room.notes() | parts.work.executor.notes()

    async def settle(self) -> None:
        """Wait until everything taken so far is handled, without stopping."""
        parts = self.parts
        for handling in (parts.control, parts.work):
            await handling.gate.idle()
            await handling.executor.drain(self.limits.drain)
        await parts.approvals.gate.idle()
        await parts.resuming.idle()
        await parts.work.executor.drain(self.limits.drain)
        await parts.control.executor.drain(self.limits.drain)
        await parts.resuming.idle()

    def _calls(self, subject: str, live: asyncio.Event) -> Source:
        calls = self.node.transport.listen(subject, queue=self.node.token, pending=self.limits.pending_calls, live=live)
        return Source(subject, None, subject, calls, self.parts.work)

    async def _announce(self, served: Iterable[asyncio.Event]) -> None:
        """Report readiness once no call can be missed; tasks and events wait in their streams."""
        for live in served:
            await live.wait()
        self.ready.set()

    async def _take(self, source: Source) -> None:
        """Hand the batches of one source to its gate, in order."""
        turn, pull, handling = Turn(), source.pull, source.handling
        async with aclosing(source.batches) as batches:
            async for batch in batches:
                if (problem := await self.node.clocks.settle()) is not None:
                    handling.gate.turn_away(batch, pull, problem)
                    self._apart.set()
                    return
                await handling.gate.admit(batch, pull, turn)
                await handling.executor.room(source.key)
                if pull is not None:
                    # Wait for room first: messages delivered before would be redelivered meanwhile, and handled twice.
                    await self.parts.places.room()


def settle_collector() -> None:
    """Freeze what start-up made, and collect the young less often than Python's default (every 700).

    Modules, compiled policies and models live as long as the process; collecting them again and again took a tenth of the
    gate's time. Every fourth time those before are looked at, too: at more of them, as a large policy makes them, this would
    take long. Call once, in a process of ours, when it is ready; never in that of a library's user.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 4, 250)
