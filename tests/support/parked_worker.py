"""A worker of payments as a process of its own, to be killed: `python parked_worker.py SETTINGS FILE`.

Its one handler is declared `once`; its effect is a line in FILE, the invoice and who approved it.
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

__all__ = ["TIMEOUT", "Invoice"]

TIMEOUT = 2.0


class Invoice(BaseModel):
    number: int


def agent_of(file: Path) -> Agent:
    agent = Agent("payments")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    @agent.task("pay", once=True, timeout=TIMEOUT)
    async def pay(invoice: Invoice, ctx: Context) -> int:
        approvers = ",".join(one.user for one in ctx.approvals)
        os.write(descriptor, f"{invoice.number} {approvers or '-'}\n".encode())
        return invoice.number

    return agent


async def run(settings: Path, file: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    limits = WorkerLimits(ack_wait=1.0, claim_margin=0.5, batch=16, parked_a_minute=100_000)
    async with (
        open_node("payments", load_settings(settings)) as node,
        Worker(agent_of(file), node, limits) as worker,
    ):
        sys.stdout.write("open\n")
        sys.stdout.flush()
        await worker.run(stop)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))
