"""One agent of several in a process: opened again after each failure, and what is told of it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from sealbus import Agent
from sealbus.agents.cli.run.several import AgentRun
from sealbus.agents.runtime.process.in_flight import DIGEST_BYTES, InFlightTable
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.ports import NotLetIn
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

SOON = Backoff(initial_interval=0.001, maximum_interval=0.002)


class Told:
    """Keeps the workers that were ready."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.came = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, worker: Worker) -> None:
        self.workers.append(worker)
        task = asyncio.ensure_future(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def times(self, count: int) -> None:
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(lambda: len(self.workers) >= count)

    async def _notify(self) -> None:
        async with self.came:
            self.came.notify_all()


class Scripted:
    """Stands for a worker. Each attempt ends with the next of `ends`: where it fails, or not at all."""

    def __init__(self, *ends: tuple[str, Exception] | None) -> None:
        self.ends = list(ends)
        self.ready = asyncio.Event()
        self.failing: Exception | None = None
        self.opened = self.closed = 0

    @asynccontextmanager
    async def open(self, agent: Agent) -> AsyncIterator[Worker]:
        del agent
        self.opened += 1
        where, error = (self.ends.pop(0) if self.ends else None) or ("", None)
        if where == "opening":
            assert error is not None
            raise error
        self.failing = error
        try:
            yield cast("Worker", self)
        finally:
            self.closed += 1

    async def run(self, stop: asyncio.Event) -> bool:
        self.ready.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.failing is not None:
            raise ExceptionGroup("as of a task group", [self.failing])
        await stop.wait()
        return True

    def not_ready(self) -> dict[str, str]:
        return {"nats": "not connected"}


def run_of(scripted: Scripted, *, table: InFlightTable | None = None) -> tuple[AgentRun, Told]:
    told = Told()
    return AgentRun(Agent("one"), scripted.open, on_ready=told, table=table, again=SOON), told


async def test_it_is_tried_again_wherever_it_failed(caplog: pytest.LogCaptureFixture) -> None:
    scripted = Scripted(
        ("opening", BusUnavailable("no server")),
        ("opening", BusUnavailable("no server")),
        ("running", ConfigurationError("no stream")),
        None,
    )
    run, told = run_of(scripted)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run.run(stop))
        await told.times(2)
        assert run.not_ready() == {"one/nats": "not connected"}
        stop.set()
    assert running.result() is True
    assert (scripted.opened, scripted.closed) == (4, 2)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    # Each reason once.
    assert [text.partition("go on: ")[2].partition(";")[0] for text in said] == ["no server", "no stream"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotLetIn("refused"), "not let in by the server"),
        (BusUnavailable("silent"), "bus_unavailable"),
        (LookupError("a secret"), "LookupError"),
    ],
)
async def test_why_it_does_not_run_is_told_without_content(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    scripted = Scripted(("opening", error))
    run, _ = run_of(scripted)
    run._again = Backoff(initial_interval=3_600.0, maximum_interval=3_600.0)
    assert run.not_ready() == {"one/start": "starting"}
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(run.run(stop))
        await run.tried.wait()
        assert not run.ready
        assert run.not_ready() == {"one/start": reason}
        assert not run.works
        stop.set()
    assert running.result() is True
    assert "a secret" not in caplog.records[0].getMessage()


async def test_a_table_begins_again_once_messages_were_handled() -> None:
    """What was left by the process before is kept until then: its messages may have ended that."""
    memory = memoryview(bytearray(b"x" * DIGEST_BYTES))
    table = InFlightTable(memory)
    run, told = run_of(Scripted(("opening", BusUnavailable("x")), ("running", BusUnavailable("y"))), table=table)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run.run(stop))
        await run.tried.wait()
        assert table.left
        await told.times(2)
        assert not table.left
        stop.set()
