"""A worker that runs schedules, to be killed at a tick: `python tick_worker.py SETTINGS claimed|published|never`.

It says `ready` once it takes messages. At the first tick that it has claimed, before it publishes the task, or that it has
published, before it marks that, it kills itself as `kill -9` would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted

__all__ = ["CLAIMED_FOR", "Effect"]

CLAIMED_FOR = 1.5
"""Seconds: much less than the 120 for which the stream remembers ids."""


class Effect(BaseModel):
    name: str


def agent_of() -> Agent:
    agent = Agent("effects")

    @agent.task("happen")
    async def happen(effect: Effect, ctx: Context) -> None:
        return None

    return agent


def die_at(point: str) -> None:
    """Have this process die at a tick."""
    publish = Outbox.publish

    async def dying(self: Outbox, message: OutgoingMessage, **how: Any) -> Posted:
        tick = (message.draft.idm or "").startswith("tick-")
        if tick and point == "claimed":
            os.kill(os.getpid(), signal.SIGKILL)
        posted = await publish(self, message, **how)
        if tick and point == "published":
            os.kill(os.getpid(), signal.SIGKILL)
        return posted

    Outbox.publish = dying  # type: ignore[method-assign]  # of this process alone, which dies there


async def run(settings: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limits = WorkerLimits(ack_wait=1.0, tick_claim=CLAIMED_FOR)
    async with (
        open_node("effects", load_settings(settings)) as node,
        Worker(agent_of(), node, limits) as worker,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(worker.run(stop))
        await worker.ready.wait()
        sys.stdout.write("ready\n")
        sys.stdout.flush()


if __name__ == "__main__":
    die_at(sys.argv[2])
    asyncio.run(run(Path(sys.argv[1])))
