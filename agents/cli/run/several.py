"""Several agents in one process: each is opened, run and tried again by itself, so that no failure of one ends another.

What they share is in `agents.runtime.process.shared_parts`. A process ends by itself only if none of its agents could start.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from sealbus.agents.cli.options import ended_by
from sealbus.agents.cli.output import note
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.health import NOT_LET_IN, HealthServer, Probes
from sealbus.agents.runtime.metric_export import exporting_metrics
from sealbus.agents.runtime.metric_texts import METRIC_TEXTS
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.process.in_flight import InFlightTable
from sealbus.agents.runtime.process.loop_watch import LoopWatch
from sealbus.agents.runtime.process.process_record import recorded_process
from sealbus.agents.runtime.process.shared_parts import SharedParts
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.agents.runtime.worker import Worker, settle_collector
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.ports import NotLetIn
from sealbus.bus.telemetry import Counters, JoinedCounters
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import IdentityUnavailable, SealbusError

_logger: Final = logging.getLogger(__name__)

AGAIN: Final = Backoff(initial_interval=1.0, maximum_interval=30.0, jitter=0.5)
"""Pauses between two tries to run an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How the agents of a process are run: settings, limits of each, and what is told of the process."""

    settings: Settings
    limits: WorkerLimits
    address: str | None
    """Of the one health server of the process."""
    on_ready: Callable[[Worker], None]
    on_started: Callable[[], None]
    """Called once each agent has been tried, if one of them runs."""


class AgentRun:
    """One agent of several: it is opened and run until `stop`, and tried again after each failure.

    `open_worker` opens its node and worker. `table` is its table of messages in flight.
    """

    def __init__(
        self,
        agent: Agent,
        open_worker: Callable[[Agent], AbstractAsyncContextManager[Worker]],
        *,
        on_ready: Callable[[Worker], None],
        table: InFlightTable | None = None,
        again: Backoff = AGAIN,
    ) -> None:
        self.agent = agent
        self.worker: Worker | None = None
        self.error: Exception | None = None
        """Why it does not run, since the last try."""
        self.ready = False
        """Whether it has been ready once."""
        self.tried = asyncio.Event()
        """Set once it was ready, or its first try has failed."""
        self._open_worker = open_worker
        self._on_ready = on_ready
        self._table = table
        self._again = again
        self._reported = ""

    async def run(self, stop: asyncio.Event) -> bool:
        """Run the agent until `stop` is set; return whether all that it took was finished in time."""
        failures = 0
        while not stop.is_set():
            try:
                return await self._run_once(stop)
            except Exception as error:  # noqa: BLE001  whatever it is, it must not end the others
                # As long as it worked, it was not failing.
                failures = 1 if self.worker is not None else failures + 1
                self.worker, self.error = None, error
                pause = self._again.interval(failures, random.random())  # noqa: S311  # no secret
                self._report(error, pause)
                self.tried.set()
                if self._table is not None and self.ready:
                    self._table.begin_again()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
        return True

    @property
    def works(self) -> bool:
        """Whether it runs, and the broker lets it in."""
        return self.worker is not None and self.worker.node.connected()

    def not_ready(self) -> dict[str, str]:
        """Return why it cannot take work now, by part, each with the name of the agent; empty if it can."""
        reasons = self.worker.not_ready() if self.worker is not None else {"start": self._cause()}
        return {f"{self.agent.name}/{part}": reason for part, reason in reasons.items()}

    def notes(self) -> dict[str, str]:
        """Return the notes for an operator, by part, each with the name of the agent."""
        notes = self.worker.notes() if self.worker is not None else {}
        return {f"{self.agent.name}/{part}": text for part, text in notes.items()}

    async def _run_once(self, stop: asyncio.Event) -> bool:
        async with AsyncExitStack() as stack:
            async with ended_by(stop):
                worker = await stack.enter_async_context(self._open_worker(self.agent))
            if stop.is_set():
                return True
            self.worker, self.error = worker, None
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(self._announce(worker), name=f"ready-{self.agent.name}")
                drained = await worker.run(stop)
                waiting.cancel()
            return drained

    async def _announce(self, worker: Worker) -> None:
        await worker.ready.wait()
        self.ready, self._reported = True, ""
        self._on_ready(worker)
        self.tried.set()

    def _report(self, error: Exception, pause: float) -> None:
        causes = [*_causes(error)]
        text = "; ".join(dict.fromkeys(_describe(cause) for cause in causes))
        # Each new reason once: an agent that is not let in for a day fails 3,000 times.
        level = logging.DEBUG if text == self._reported else logging.WARNING
        unknown = next((cause for cause in causes if not isinstance(cause, SealbusError)), None)
        _logger.log(
            level,
            "agent %s does not run, the others go on: %s; tried again in %.1f s",
            self.agent.name,
            text,
            pause,
            exc_info=unknown,
        )
        self._reported = text

    def _cause(self) -> str:
        """Return in a word or two why it does not run, without any content."""
        if self.error is None:
            return "starting"
        cause = next(_causes(self.error))
        if isinstance(cause, NotLetIn):
            return NOT_LET_IN
        return str(cause.code) if isinstance(cause, SealbusError) else type(cause).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    else:
        yield error


def _describe(cause: BaseException) -> str:
    if isinstance(cause, IdentityUnavailable):
        return (
            f"{cause.detail}; several agents run in one process only where its Workload API gives it the identity of each: "
            "otherwise start a process for each"
        )
    return cause.detail if isinstance(cause, SealbusError) else type(cause).__name__


async def run_several(
    agents: Sequence[Agent], tables: Sequence[InFlightTable | None], options: RunOptions, stop: asyncio.Event
) -> bool:
    """Run `agents` until `stop`; return whether all that they took was finished, and every one of them worked at the end.

    Raises the error of the first agent if none could start, and `ConfigurationError` for an address that cannot be used.
    """
    process = Counters()
    names = [agent.name for agent in agents]
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(LoopWatch())
        watch.count_in(process)
        await stack.enter_async_context(exporting_metrics(",".join(names), process))
        shared = await stack.enter_async_context(SharedParts(names[0], options.settings, counters=process))
        runs = [
            AgentRun(agent, _opener(options, shared, table), on_ready=options.on_ready, table=table)
            for agent, table in zip(agents, tables, strict=True)
        ]
        if options.address is not None:
            server = await stack.enter_async_context(_health(options.address, runs, process, watch))
            note(f"health at port {server.port}")
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(run.run(stop), name=f"agent-{run.agent.name}") for run in runs]
            watching = group.create_task(shared.watch(), name="shared-parts")
            async with ended_by(stop):
                for run in runs:
                    await run.tried.wait()
            if not stop.is_set() and not any(run.ready for run in runs):
                stop.set()
                watching.cancel()
                _raise_first(runs)
            if not stop.is_set():
                settle_collector()
                options.on_started()
            await stop.wait()
            watching.cancel()
            # Before they are drained, after which none of them is connected.
            lost = [run.agent.name for run in runs if not run.works]
        if lost:
            _logger.warning("agents that did not run at the end: %s", ", ".join(lost))
        return not lost and all(task.result() for task in running)


def _raise_first(runs: Sequence[AgentRun]) -> NoReturn:
    raise next(cause for run in runs if run.error is not None for cause in _causes(run.error))


def _health(address: str, runs: Sequence[AgentRun], process: Counters, watch: LoopWatch) -> HealthServer:
    joined = JoinedCounters(
        process, lambda: {run.agent.name: run.worker.node.counters for run in runs if run.worker is not None}
    )
    probes = Probes(
        healthy=dict,
        ready=lambda: {part: reason for run in runs for part, reason in run.not_ready().items()},
        notes=lambda: {part: text for run in runs for part, text in run.notes().items()},
    )
    return HealthServer(address, probes=probes, counters=process, watch=watch, render=joined.render)


def _opener(
    options: RunOptions, shared: SharedParts, table: InFlightTable | None
) -> Callable[[Agent], AbstractAsyncContextManager[Worker]]:
    @asynccontextmanager
    async def open_worker(agent: Agent) -> AsyncGenerator[Worker, None]:
        async with open_node(agent.name, options.settings, shared=shared) as node:
            node.counters.describe(METRIC_TEXTS)
            async with (
                recorded_process(node, declares=agent.declares),
                exporting_metrics(agent.name, node.counters),
                Worker(agent, node, options.limits, in_flight=table) as worker,
            ):
                yield worker

    return open_worker
