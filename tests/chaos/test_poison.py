"""Tasks whose handlers kill their process: they end as dead letters, and everything else of the agent goes on."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.worker_process import small_environment

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.runtime.open import open_node
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.answer import RemoteError
from sealbus.envelopes.errors import Code

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(400)]

APP = """
import asyncio, os, signal
from pathlib import Path
from sealbus import Agent, Context

agent = Agent("mill")

@agent.task("grind")
async def grind(seconds: float, ctx: Context) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()

@agent.task("jam", retry=0)
async def jam(name: str, ctx: Context) -> None:
    with Path("jammed").open("a") as file:
        file.write(f"{name}\\n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
WITHIN = 240.0
POISON = 3


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "app.py").write_text(APP)
    async with small_environment(tmp_path, "mill", "shop") as running:
        settings = running.settings_file.read_text()
        (tmp_path / "quick.toml").write_text(f"{settings}\n[worker]\nack_wait = 2.0\nconcurrency = 8\n")
        (tmp_path / "quick.toml").rename(running.settings_file.with_name("quick.toml"))
        yield running


class Worker:
    """A running `sealbus worker run`, whose lines are read as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.lines)


@asynccontextmanager
async def worker(environment: Environment, folder: Path, *arguments: str) -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "sealbus",
        *("worker", "run", "--config", str(environment.settings_file.with_name("quick.toml")), *arguments),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    running = Worker(process)
    reading = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def ended(handle: TaskHandle) -> Code | str:
    """Return the code with which a task failed."""
    with pytest.raises(RemoteError) as failed:
        await handle.result(type(None), timeout=WITHIN)
    return failed.value.code


async def test_poison_ends_as_dead_letters_and_everything_else_is_done(
    environment: Environment, tmp_path: Path
) -> None:
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, "app.py:agent", "--processes", "3") as running,
    ):
        client = Client.on(node)
        good = [await client.submit("mill.grind", 0.5) for _ in range(20)]
        poison = [await client.submit("mill.jam", f"p{number}") for number in range(POISON)]
        good += [await client.submit("mill.grind", 0.5) for _ in range(20)]
        assert await asyncio.gather(*(ended(handle) for handle in poison)) == [Code.KILLED] * POISON
        done = await asyncio.gather(*(handle.result(int, timeout=WITHIN) for handle in good))
        assert len(done) == 40
        # The parent and its processes are there, and handle what comes.
        assert running.process.returncode is None
        assert await (await client.submit("mill.grind", 0.0)).result(int, timeout=WITHIN) > 0
        jammed = (tmp_path / "jammed").read_text().split()
        # Twice alone; once before, unless another ended its process first; once more where a process had it meanwhile.
        assert {jammed.count(f"p{number}") for number in range(POISON)} <= {2, 3, 4}, jammed
        running.process.terminate()
        async with asyncio.timeout(WITHIN):
            await running.process.wait()
    assert running.count("was ended by SIGKILL: it is started again") == len(jammed)
    assert running.count("all are ended") == 0


async def test_a_lone_process_that_is_started_again_from_outside_keeps_the_count(
    environment: Environment, tmp_path: Path
) -> None:
    """As a container is: nothing but STATE knows of the process before."""
    async with open_node("shop", environment.settings) as node:
        client = Client.on(node)
        handle = await client.submit("mill.jam", "p")
        ending = asyncio.create_task(ended(handle))
        starts = 0
        async with asyncio.timeout(WITHIN):
            while not ending.done():
                starts += 1
                async with worker(environment, tmp_path, "app.py:agent") as running:
                    waiting = asyncio.create_task(running.process.wait())
                    await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
        assert ending.result() == Code.KILLED
        assert starts == len((tmp_path / "jammed").read_text().split()) + 1 == 5
