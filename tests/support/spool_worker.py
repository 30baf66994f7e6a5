"""A worker with a spool as a process of its own, to be killed: `python spool_worker.py SETTINGS FILE`.

Its handler adds the id of the message to FILE, which is its effect, and to be in evidence whatever happens next.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from pydantic import BaseModel

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker

__all__ = ["Effect"]


class Effect(BaseModel):
    name: str


def agent_of(file: Path) -> Agent:
    agent = Agent("effects")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @agent.task("happen", timeout=5)
    async def happen(effect: Effect, ctx: Context) -> None:
        del effect
        os.write(descriptor, f"{ctx.message_id}\n".encode())

    return agent


async def run(settings: Path, file: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        open_node("effects", load_settings(settings)) as node,
        Worker(agent_of(file), node, WorkerLimits(ack_wait=1.0, batch=16)) as worker,
    ):
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await worker.run(stop)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))
