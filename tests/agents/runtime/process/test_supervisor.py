"""The supervisor: it keeps its processes running, ends them together, and its exit code is theirs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lab import until
from support.supervised_child import FAILS, UNDRAINED, command_in, log_of

from sealbus.agents.runtime.process.supervisor import Restarts, Supervisor
from sealbus.envelopes.backoff import Backoff

SOON = Restarts(backoff=Backoff(initial_interval=0.01, maximum_interval=0.02))
SECONDS = 60.0


class Running:
    """A supervisor of children in `folder`, being run."""

    def __init__(self, folder: Path, how: str, *, processes: int, restarts: Restarts, grace: float) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.stop = asyncio.Event()
        self.child = command_in(folder, how)
        self.supervisor = Supervisor(
            self.command, processes=processes, grace=grace, say=self.said.append, restarts=restarts
        )
        self.running: asyncio.Task[int] | None = None

    def command(self, number: int, line: int, memory: int) -> Sequence[str]:
        return [*self.child, str(number), str(line), str(memory)]

    async def begun(self, count: int) -> list[tuple[int, int]]:
        """Wait until so many children have begun."""
        await until(lambda: len(log_of(self.folder, "begun")) >= count, seconds=SECONDS)
        return log_of(self.folder, "begun")

    async def code(self) -> int:
        assert self.running is not None
        async with asyncio.timeout(SECONDS):
            return await self.running


@asynccontextmanager
async def supervised(
    folder: Path, how: str = "serves", *, processes: int = 1, restarts: Restarts = SOON, grace: float = SECONDS
) -> AsyncIterator[Running]:
    running = Running(folder, how, processes=processes, restarts=restarts, grace=grace)
    running.running = asyncio.create_task(running.supervisor.run(running.stop))
    try:
        yield running
    finally:
        running.running.cancel()
        await asyncio.wait({running.running})


async def test_each_process_has_its_number_and_all_end_together(tmp_path: Path) -> None:
    async with supervised(tmp_path, processes=3) as running:
        begun = await running.begun(3)
        assert sorted(number for number, _ in begun) == [1, 2, 3]
        running.stop.set()
        assert await running.code() == 0
        assert sorted(log_of(tmp_path, "stopped")) == sorted(begun)
        assert running.said == []


async def test_one_that_is_killed_is_started_again_and_said_to_have_been(tmp_path: Path) -> None:
    async with supervised(tmp_path, processes=2) as running:
        killed = dict(await running.begun(2))[2]
        os.kill(killed, signal.SIGKILL)
        assert (await running.begun(3))[2][0] == 2
        running.stop.set()
        assert await running.code() == 0
        [said] = running.said
        assert said.startswith("process 2 was ended by SIGKILL: it is started again in ")


@pytest.mark.parametrize(("how", "code"), [("undrained", UNDRAINED), ("serves", 0)])
async def test_the_exit_code_is_that_of_the_processes(tmp_path: Path, how: str, code: int) -> None:
    async with supervised(tmp_path, processes=2) as running:
        await running.begun(1)
        (tmp_path / "how").write_text(how)
        os.kill(log_of(tmp_path, "begun")[0][1], signal.SIGKILL)
        await running.begun(3)
        running.stop.set()
        assert await running.code() == code


async def test_one_that_cannot_start_ends_all_at_once_with_its_code(tmp_path: Path) -> None:
    async with supervised(tmp_path, "fails", processes=4) as running:
        assert await running.code() == FAILS
        assert [number for number, _ in log_of(tmp_path, "begun")] == [1]
        [said] = running.said
        assert said.startswith(f"process 1 ended with code {FAILS}, before it was ready")


async def test_one_that_ends_again_and_again_is_started_again_and_stops_no_other(tmp_path: Path) -> None:
    async with supervised(tmp_path, processes=2) as running:
        both = dict(await running.begun(2))
        (tmp_path / "how").write_text("crashes")
        os.kill(both[2], signal.SIGKILL)
        await running.begun(10)
        assert log_of(tmp_path, "stopped") == []
        assert not any("not started again" in line for line in running.said)
        running.stop.set()
        await running.code()
        assert log_of(tmp_path, "stopped")[0] == (1, both[1])


@pytest.mark.slow
async def test_one_that_was_ready_for_long_is_started_again_as_after_its_first_end(tmp_path: Path) -> None:
    growing = Backoff(initial_interval=0.01, maximum_interval=SECONDS, backoff_coefficient=1_000.0)
    async with supervised(tmp_path, "crashes", restarts=Restarts(backoff=growing, steady=0.0)) as running:
        await running.begun(5)


async def test_a_first_process_that_hangs_does_not_hold_up_the_others(tmp_path: Path) -> None:
    soon = Restarts(backoff=SOON.backoff, others_after=0.05)
    async with supervised(tmp_path, "hangs", processes=3, restarts=soon) as running:
        begun = await running.begun(2)
        assert sorted(number for number, _ in begun) == [2, 3]
        await until(lambda: [number for number, _ in log_of(tmp_path, "hangs")] == [1], seconds=SECONDS)
        running.stop.set()
        assert await running.code() == 0


async def test_what_a_killed_process_was_handling_is_left_to_the_next_of_its_number(tmp_path: Path) -> None:
    async with supervised(tmp_path, processes=2) as running:
        both = dict(await running.begun(2))
        os.kill(both[2], signal.SIGKILL)
        await running.begun(3)
        assert [number for number, _ in log_of(tmp_path, "left-2")] == [2]
        assert log_of(tmp_path, "left-1") == []
        running.stop.set()
        assert await running.code() == 0


async def test_one_that_does_not_end_is_killed_and_the_exit_code_says_so(tmp_path: Path) -> None:
    async with supervised(tmp_path, "deaf", grace=0.1) as running:
        await running.begun(1)
        running.stop.set()
        assert await running.code() == 128 + signal.SIGKILL


async def test_a_parent_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    async with supervised(tmp_path, "deaf") as running:
        [(_, pid)] = await running.begun(1)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_child_whose_parent_is_killed_stops_as_when_it_is_told_to(tmp_path: Path) -> None:
    command = command_in(tmp_path, "serves")
    parent = (
        "import asyncio, sys\nfrom sealbus.agents.runtime.process.supervisor import Supervisor\n"
        "run = lambda number, *descriptors: [*sys.argv[1:], str(number), *map(str, descriptors)]\n"
        "asyncio.run(Supervisor(run, processes=2, grace=9, say=print).run(asyncio.Event()))\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, *command)
    try:
        await until(lambda: len(log_of(tmp_path, "begun")) == 2, seconds=SECONDS)
    finally:
        process.kill()
        await process.wait()
    await until(lambda: len(log_of(tmp_path, "stopped")) == 2, seconds=SECONDS)


class Changes:
    """What `changed` waits for."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def __call__(self) -> str:
        return await self.told.get()


async def test_a_change_starts_all_again_once_they_have_ended(tmp_path: Path) -> None:
    changes = Changes()
    running = Running(tmp_path, "serves", processes=2, restarts=SOON, grace=SECONDS)
    running.running = asyncio.create_task(running.supervisor.run_changing(running.stop, changes))
    first = await running.begun(2)
    changes.told.put_nowait("app.py")
    assert len(await running.begun(4)) == 4
    assert sorted(log_of(tmp_path, "stopped")) == sorted(first)
    assert running.said == ["app.py changed: starting again once what is handled is done"]
    running.stop.set()
    assert await running.code() == 0


async def test_one_that_fails_waits_for_a_change(tmp_path: Path) -> None:
    changes = Changes()
    running = Running(tmp_path, "fails", processes=1, restarts=SOON, grace=SECONDS)
    running.running = asyncio.create_task(running.supervisor.run_changing(running.stop, changes))
    await until(lambda: bool(running.said), seconds=SECONDS)
    assert running.said == [f"process 1 ended with code {FAILS}: it is started again after the next change"]
    (tmp_path / "how").write_text("serves")
    changes.told.put_nowait("app.py")
    await running.begun(2)
    running.stop.set()
    assert await running.code() == 0
