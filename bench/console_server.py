"""What a console costs the deployment that it shows, and how soon it shows what is decided: processes of their own.

The cost for the bus is what nats-server writes for each task, to clients and to its disk: without a console, with one page of
one, and with many. Its processor time on a machine with other load differs by more than that from run to run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from support.console_login import log_in
from support.ports import held_port

from bench.gate import QUOTE, TASKS, Quote, drain, fill
from bench.report import Figure
from sealbus import Agent, Client, Context
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.worker import Worker

__all__ = ["figures"]

PAGES = 50
SINGLE = 100
COST_GUARD, COST_GOAL = 5.0, 5.0
LATE_GOAL = 100.0
CLIENT = Path(__file__).with_name("console_client.py")
SEALBUS = str(Path(sys.executable).parent / "sealbus")


async def figures() -> AsyncIterator[Figure]:
    """Measure without a console, with one page, and with `PAGES`."""
    late: list[float] = []
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        options = DevOptions(folder=Path(folder), agents=("pricing", "shop-web", "console"), port=0, max_bytes=1 << 29)
        async with (
            open_environment(options) as shop,
            open_node("shop-web", shop.settings) as sender,
            open_node("pricing", shop.settings) as node,
        ):
            client = Client.on(sender)
            written = [await _written(shop, client, node)]
            for pages in (1, PAGES):
                async with _looked_at(shop, pages) as looking:
                    if pages == 1:
                        late = await _lateness(client, node, looking)
                    written.append(await _written(shop, client, node))
    bare, one, many = written
    yield Figure(
        name="console: decided until sent to a page, median",
        value=statistics.median(late),
        unit="ms",
        goal=LATE_GOAL,
        beside=f"longest of {len(late)} {max(late):.0f} ms",
    )
    yield Figure(
        name="console: nats-server writes for a task, one page: more",
        value=100 * (one / bare - 1),
        unit="%",
        beside=f"{bare:.0f} bytes without: it reads each record once",
    )
    yield Figure(
        name=f"  {PAGES} pages: more than for one",
        value=100 * (many / one - 1),
        unit="%",
        guard=COST_GUARD,
        goal=COST_GOAL,
    )


async def _written(shop: Environment, client: Client, node: Node) -> float:
    """Return the bytes that nats-server writes for each of the tasks that are sent and handled."""
    before = _bytes(shop.nats.pid)
    await fill(client)
    await drain(node, status=False)
    return (_bytes(shop.nats.pid) - before) / TASKS


def _bytes(pid: int) -> int:
    """Return the bytes that a process has written so far, to files and sockets."""
    for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("no wchar")


@asynccontextmanager
async def _looked_at(shop: Environment, pages: int) -> AsyncGenerator[Process]:
    """Run a console, and a process with `pages` streams of as many logins; that one says how late decisions came."""
    address = f"127.0.0.1:{held_port()}"
    console = await asyncio.create_subprocess_exec(
        SEALBUS, "console", "--config", str(shop.settings_file), "--address", address, stderr=PIPE
    )
    looking: Process | None = None
    try:
        if console.stderr is None:
            raise RuntimeError("no output")
        said = b""
        while b"console at" not in said:
            if not (line := await console.stderr.readline()):
                raise RuntimeError(said.decode())
            said += line
        cookies = [await _logged_in(address) for _ in range(pages)]
        looking = await asyncio.create_subprocess_exec(
            sys.executable, str(CLIENT), stdin=PIPE, stdout=PIPE, limit=1 << 24
        )
        await _asked(looking, json.dumps({"port": int(address.rpartition(":")[2]), "cookies": cookies}))
        yield looking
        if looking.returncode is not None:
            raise RuntimeError("the pages have ended")
    finally:
        for process in (looking, console):
            if process is not None and process.returncode is None:
                process.terminate()
                await process.wait()


async def _logged_in(address: str) -> str:
    async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=30) as web:
        ended = await log_in(web, "olga")
        return str(ended.cookies["sealbus_console"])


async def _asked(pages: Process, line: str) -> str:
    if pages.stdin is None or pages.stdout is None:
        raise RuntimeError("no pipes")
    pages.stdin.write(line.encode() + b"\n")
    answer = (await pages.stdout.readline()).decode()
    if not answer:
        raise RuntimeError("the pages have ended")
    return answer


async def _lateness(client: Client, node: Node, pages: Process) -> list[float]:
    """Return how late decisions came that were made one by one, in milliseconds."""
    agent, stop = Agent("pricing"), asyncio.Event()

    @agent.task("quote", status=False)
    async def work(body: Quote, ctx: Context) -> None:
        del body, ctx

    async with Worker(agent, node) as worker, asyncio.TaskGroup() as group:
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        await _asked(pages, "")
        for _ in range(SINGLE):
            await client.submit("pricing.quote", QUOTE)
            await asyncio.sleep(0.1)
        await worker.settle()
        stop.set()
    await asyncio.sleep(1)
    late: list[float] = json.loads(await _asked(pages, ""))
    if len(late) < SINGLE:
        raise RuntimeError(f"{len(late)} of {SINGLE} decisions came")
    return late
