"""What one further agent costs a process: memory, processor time while idle, threads and connections.

`sealbus worker run` runs as it would be deployed: all SVIDs from one Workload API, connections through the auth callout, the
policy from a bucket. Figures of one further agent are differences to the process with one agent.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from support.several import several_agents, worker_command

from bench.processes import resident
from bench.report import Figure
from bench.rounds import processor_seconds

__all__ = ["figures"]

AGENTS = (1, 50, 200)
SETTLED = 10.0
"""Seconds between the last agent's start and the first look."""
IDLE = 40.0
"""Seconds without work."""
MEMORY_GUARD, MEMORY_GOAL = 3.0, 2.0
"""Megabytes of one further agent."""
IDLE_GOAL = 0.01
"""Percent of a core, of one further agent."""
WAITS_GUARD = 5.0
"""How often a second the process waits for one further agent; 48 times when each had streams and threads of its own."""

APP = """
from sealbus import Agent, Context

def idle(name):
    agent = Agent(name)

    @agent.task("quote")
    async def quote(body: str, ctx: Context) -> None: ...

    @agent.call("read")
    async def read(body: str, ctx: Context) -> None: ...

    return agent

for number in range({count}):
    globals()[f"agent_{{number}}"] = idle(f"idle-{{number}}")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """Of a process with so many agents: megabytes, and seconds of the processor in each second without work."""

    agents: int
    memory: float
    idle: float
    server: float
    threads: int
    sockets: int
    wakeups: float


async def figures() -> AsyncIterator[Figure]:
    """Measure processes with more and more agents."""
    sizes = tuple(map(int, os.environ.get("AGENTS", "").split())) or AGENTS
    names = [f"idle-{number}" for number in range(max(sizes))]
    with tempfile.TemporaryDirectory(prefix="sb-") as folder:
        async with several_agents(Path(folder), *names) as site:
            (Path(folder) / "app.py").write_text(APP.format(count=len(names)))
            costs = []
            for size in sizes:
                targets = [f"app.py:agent_{number}" for number in range(size)]
                async with worker_command(site, *targets) as command:
                    await command.says("runs as spiffe://", count=size)
                    await asyncio.sleep(SETTLED)
                    costs.append(await _idle_cost(command.process.pid, site.server.process.pid, size))
                    assert await command.stop() == 0, command.said
                for figure in _compared(costs[0], costs[-1], last=size == max(sizes)):
                    yield figure


async def _idle_cost(pid: int, server: int, agents: int) -> _Cost:
    before, of_server, woken = processor_seconds(pid), processor_seconds(server), _wakeups(pid)
    await asyncio.sleep(IDLE)
    spent, of_server = processor_seconds(pid) - before, processor_seconds(server) - of_server
    return _Cost(
        agents=agents,
        memory=resident(pid),
        idle=spent / IDLE,
        server=of_server / IDLE,
        threads=_count(pid, "task"),
        sockets=_count(pid, "fd", "socket:"),
        wakeups=(_wakeups(pid) - woken) / IDLE,
    )


def _count(pid: int, kind: str, target: str = "") -> int:
    entries = Path(f"/proc/{pid}/{kind}").iterdir()
    return sum(not target or str(entry.readlink()).startswith(target) for entry in entries)


def _wakeups(pid: int) -> int:
    """Return how often the threads of a process have waited."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def _compared(first: _Cost, cost: _Cost, *, last: bool) -> list[Figure]:
    if first is cost:
        return [
            Figure(name="one agent: memory", value=cost.memory, unit="MB"),
            Figure(
                name="one agent: idle, of a core",
                value=cost.idle * 100,
                unit="%",
                beside=f"{cost.threads} threads, {cost.sockets} sockets, {cost.wakeups:.0f} waits a second",
            ),
        ]
    more, what = cost.agents - first.agents, f"one further of {cost.agents} agents"
    return [
        Figure(
            name=f"{what}: memory",
            value=(cost.memory - first.memory) / more,
            unit="MB",
            guard=MEMORY_GUARD if last else None,
            goal=MEMORY_GOAL,
            beside=f"{cost.memory:.0f} MB together",
        ),
        Figure(
            name=f"{what}: idle, of a core",
            value=(cost.idle - first.idle) / more * 100,
            unit="%",
            goal=IDLE_GOAL,
            beside=f"{(cost.server - first.server) / more * 100:.3f} % for nats-server",
        ),
        Figure(
            name=f"{what}: waits a second",
            value=(cost.wakeups - first.wakeups) / more,
            unit="",
            guard=WAITS_GUARD if last else None,
        ),
        Figure(
            name=f"{what}: threads",
            value=(cost.threads - first.threads) / more,
            unit="",
            guard=0.1 if last else None,
        ),
        Figure(
            name=f"{what}: sockets",
            value=(cost.sockets - first.sockets) / more,
            unit="",
            guard=1.1 if last else None,
        ),
    ]
