"""A worker as a process of its own, to be killed: `python once_worker.py SETTINGS FILE begin|finish`.

Its one handler is declared `once` and adds a line to FILE, which is its effect. With `begin` it then says `begun` and
waits; with `finish` it returns.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from pydantic import BaseModel

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker

__all__ = ["TIMEOUT", "Effect"]

TIMEOUT = 2.0


class Effect(BaseModel):
    name: str


def agent_of(file: Path, *, finish: bool) -> Agent:
    agent = Agent("effects")

    @agent.task("happen", once=True, timeout=TIMEOUT)
    async def happen(effect: Effect, ctx: Context) -> Effect:
        with file.open("a", encoding="utf-8") as written:
            written.write(f"{effect.name}\n")
        if not finish:
            sys.stdout.write("begun\n")
            sys.stdout.flush()
            await asyncio.Event().wait()
        return effect

    return agent


async def run(settings: Path, file: Path, *, finish: bool) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limits = WorkerLimits(ack_wait=1.0, claim_margin=0.5)
    async with (
        open_node("effects", load_settings(settings)) as node,
        Worker(agent_of(file, finish=finish), node, limits) as worker,
    ):
        await worker.run(stop)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), finish=sys.argv[3] == "finish"))
