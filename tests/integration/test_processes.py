"""`sealbus worker run` in several processes, with several agents, and with --reload, as somebody at a terminal has it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from support.ports import held_ports_in_a_row
from support.worker_process import small_environment

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.runtime.open import open_node

pytestmark = [pytest.mark.nats, pytest.mark.slow]

APP = """
import asyncio, os, time
from pathlib import Path
from sealbus import Agent, Context

here = Agent("here")
there = Agent("there")

@here.task("which")
async def which(seconds: float, ctx: Context) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()

@here.task("block")
async def block(file: str, ctx: Context) -> None:
    while not Path(file).exists():
        time.sleep(0.01)

@there.call("which")
async def which_there(seconds: float, ctx: Context) -> int:
    return os.getpid()
"""

WITHIN = 90.0


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_text(APP)
    async with small_environment(tmp_path, "here", "there", "shop") as running:
        yield running


class Command:
    """A running `sealbus worker run`, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def says(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until `pattern` was said `count` times, and return what it found."""
        assert self.process.stderr is not None
        async with asyncio.timeout(WITHIN):
            while len(found := re.findall(pattern, self.said)) < count:
                line = await self.process.stderr.readline()
                assert line, self.said
                self.said += line.decode()
        return found

    async def stop(self) -> int:
        """Send SIGTERM and return the exit code, once all of it is read."""
        assert self.process.stderr is not None
        self.process.terminate()
        async with asyncio.timeout(WITHIN):
            self.said += (await self.process.stderr.read()).decode()
            return await self.process.wait()


@asynccontextmanager
async def worker(environment: Environment, folder: Path, *arguments: str) -> AsyncIterator[Command]:
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "sealbus",
        *("worker", "run", "--config", str(environment.settings_file), *arguments),
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    command = Command(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def pids(client: Client, count: int, *, seconds: float = 0.2) -> set[int]:
    """Return the processes that handle `count` tasks at a time."""
    handles = [await client.submit("here.which", seconds) for _ in range(count)]
    return set(await asyncio.gather(*(one.result(int) for one in handles)))


def fetched(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
            return str(answer.read())
    except HTTPError as error:
        with error:
            return str(error.read())


async def test_several_processes_share_the_work_and_drain_together(environment: Environment, tmp_path: Path) -> None:
    """One is killed and another comes; at the end each says what it waits for, and what was taken is done."""
    port = held_ports_in_a_row(2)
    arguments = ("app/app.py:here", "--processes", "2", "--concurrency", "2", "--health", str(port))
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, *arguments) as command,
    ):
        client = Client.on(node)
        ports = await command.says(r"health of here at port (\d+)", 2)
        assert sorted(map(int, ports)) == [port, port + 1]
        await command.says("here runs as spiffe://", 2)
        for one in ports:
            assert '"ok": true' in await asyncio.to_thread(fetched, int(one))

        both: set[int] = set()
        async with asyncio.timeout(WITHIN):
            while len(both) < 2:
                both |= await pids(client, 4)
        assert command.process.pid not in both
        os.kill(min(both), signal.SIGKILL)
        await command.says(r"process \d was ended by SIGKILL: it is started again in")
        await command.says("here runs as spiffe://", 3)

        handles = [await client.submit("here.which", 4.0) for _ in range(4)]
        for handle in handles:
            async with aclosing(handle.statuses()) as statuses:
                await anext(statuses)
        assert await command.stop() == 0
        for handle in handles:
            assert await handle.result(int) != min(both)
        assert "here drains, for" in command.said
        assert "of here.which handled, the oldest for" in command.said


async def test_several_agents_of_one_process_have_an_identity_each(environment: Environment, tmp_path: Path) -> None:
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, "app/app.py:here", "app/app.py:there", "--health", "0") as command,
    ):
        client = Client.on(node)
        await command.says(r"health at port \d+")
        await command.says("(?:here|there) runs as spiffe://", 2)
        [here] = await pids(client, 1)
        assert await client.call("there.which", 0.0, returns=int) == here == command.process.pid
        assert await command.stop() == 0


async def test_a_handler_that_blocks_the_event_loop_is_named_while_it_does(
    environment: Environment, tmp_path: Path
) -> None:
    file = tmp_path / "enough"
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, "app/app.py:here", "--health", "0") as command,
    ):
        [port] = await command.says(r"health of here at port (\d+)")
        await command.says("here runs as spiffe://")
        handle = await Client.on(node).submit("here.block", str(file))
        try:
            await command.says(r"the event loop is blocked for [\d.]+ s by handler of here.block: app.py:\d+ in block")
            answer = await asyncio.to_thread(fetched, int(port))
            assert '"ok": false' in answer
            assert "by handler of here.block: app.py" in answer
        finally:
            file.touch()
        await handle.result(type(None))
        await command.says("the event loop turns again")
        assert '"ok": true' in await asyncio.to_thread(fetched, int(port))
        assert await command.stop() == 0


async def test_an_identity_of_one_agent_alone_is_said_to_be(environment: Environment, tmp_path: Path) -> None:
    """As under SPIRE, where a workload has what its entries match: here the socket of one agent is everybody's."""
    settings = environment.settings_file.read_text()
    own = environment.settings_file.with_name("own.toml")
    own.write_text(settings.replace("{name}.sock", "here.sock") + "\n[identity]\nwithin = 1.0\n")
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, "app/app.py:here", "app/app.py:there", "--config", str(own)) as command,
    ):
        await command.says(
            "agent there does not run, the others go on: .* not spiffe://.*: otherwise start a process for each; tried again"
        )
        await command.says("here runs as spiffe://")
        assert await pids(Client.on(node), 1) == {command.process.pid}
        assert await command.stop() == 1
        assert "agents that did not run at the end: there" in command.said


async def test_a_changed_file_starts_the_agent_again(environment: Environment, tmp_path: Path) -> None:
    """Also one that could not even be read in between."""
    file = tmp_path / "app" / "app.py"
    async with (
        open_node("shop", environment.settings) as node,
        worker(environment, tmp_path, "app/app.py:here", "--reload") as command,
    ):
        client = Client.on(node)
        await command.says(f"below {tmp_path / 'app'} are watched")
        await command.says("here runs as")
        [before] = await pids(client, 1)
        file.write_text(APP.replace("return os.getpid()", "return -1"))
        await command.says(r"app\.py changed: starting again")
        await command.says("here runs as", 2)
        assert await pids(client, 1) == {-1}
        file.write_text("def broken(:\n")
        await command.says(r"process 1 ended with code 1: it is started again after the next change")
        file.write_text(APP)
        await command.says("here runs as", 3)
        [after] = await pids(client, 1)
        assert after not in (before, -1)
        assert await command.stop() == 0


async def test_one_that_cannot_start_is_told_of_once(environment: Environment, tmp_path: Path) -> None:
    async with worker(environment, tmp_path, "app/app.py:nobody", "--processes", "3") as command:
        assert command.process.stderr is not None
        said = (await command.process.stderr.read()).decode()
        assert await command.process.wait() == 1
        assert said.count("nobody is not an Agent") == 1
        assert "process 1 ended with code 1, before it was ready" in said
