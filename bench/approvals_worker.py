"""The worker of `bench/approvals.py` as a process of its own: says when it is ready, and ends when its input does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from pydantic import BaseModel

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.settings.settings import load_settings
from sealbus.agents.runtime.worker import Worker, settle_collector

__all__ = ["LIMITS", "Invoice", "agent"]

LIMITS = WorkerLimits(parked_a_minute=10**6)


class Invoice(BaseModel):
    """What is to be paid."""

    number: int


def agent() -> Agent:
    """Return an agent that does nothing at all, once it may."""
    payments = Agent("payments")

    @payments.task("pay")
    async def pay(invoice: Invoice, ctx: Context) -> None:
        """Is allowed once it is approved."""

    @payments.task("note")
    async def note(invoice: Invoice, ctx: Context) -> None:
        """Is always allowed."""

    @payments.task("refuse")
    async def refuse(invoice: Invoice, ctx: Context) -> None:
        """Is never allowed."""

    return payments


async def main() -> None:
    """Run until the input ends."""
    async with open_node("payments", load_settings(Path(sys.argv[1]))) as node, Worker(agent(), node, LIMITS) as worker:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        await worker.ready.wait()
        settle_collector()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        stop.set()
        await running


if __name__ == "__main__":
    asyncio.run(main())
