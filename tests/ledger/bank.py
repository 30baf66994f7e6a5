"""The agent `bank`, run by `sealbus worker run`: its handlers write their effect into the book, and nothing else.

With LEDGER_AGENT the agent has another name. A payment that is due later is put off until then. A task `jam` ends its
process, as the kernel does for want of memory. With LEDGER_DEAF set the process heeds no cancel: then the count has to find
effects of what was canceled.

With LEDGER_FORMER, a folder, the process runs the release before, which is installed there: this file uses what both have.

The process's clock is as far from the right time as the file LEDGER_CLOCK says, in nanoseconds (`Site.set_clock`).
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
from pathlib import Path

from pydantic import BaseModel

import sealbus
from ledger.book import POISON, Book
from sealbus import Agent, Context, Retry

__all__ = ["Payment", "agent"]

agent = Agent(os.environ.get("LEDGER_AGENT", "bank"))
_book = Book(Path(os.environ["LEDGER_BOOK"]))
_FORMER = "LEDGER_FORMER" in os.environ
if _FORMER and Path(os.environ["LEDGER_FORMER"]) not in Path(sealbus.__file__).parents:
    raise RuntimeError(f"{sealbus.__file__} is not of the release before")
_right_time_ns = time.time_ns
with Path(os.environ["LEDGER_CLOCK"]).open("rb") as _file:
    _clock = mmap.mmap(_file.fileno(), 8, access=mmap.ACCESS_READ)


def _time_ns() -> int:
    """Return the time of a clock that somebody has set wrong."""
    return _right_time_ns() + int(struct.unpack("<q", _clock[:8])[0])


# The clock of this process alone, of which a library for it would change the monotonic one, too.
time.time_ns = _time_ns


if "LEDGER_DEAF" in os.environ:
    from sealbus.bus.work.cancel.stop import Stop

    Stop.concerns = lambda *_: False  # type: ignore[method-assign]


class Payment(BaseModel):
    number: int
    amount: int
    due: float = 0.0

    def check_due(self) -> None:
        """Raise `Retry` until it is due."""
        if (wait := self.due - time.time()) > 0:
            raise Retry(after=wait, note="not due")


# Two promises: at most once with a claim, at least once without.
@agent.task("pay", facts=["amount"], once=True, timeout=2.0, retry=20)
async def pay(payment: Payment, ctx: Context) -> int:
    payment.check_due()
    _book.effect(payment.number, "pay", ctx.message_id, former=_FORMER)
    return payment.number


@agent.task("note", facts=["amount"], timeout=2.0, retry=20)
async def note(payment: Payment, ctx: Context) -> int:
    payment.check_due()
    _book.effect(payment.number, "note", ctx.message_id, former=_FORMER)
    return payment.number


@agent.task(POISON, facts=["amount"], timeout=2.0, retry=20)
async def jam(payment: Payment, ctx: Context) -> None:
    _book.effect(payment.number, POISON, ctx.message_id, former=_FORMER)
    os.kill(os.getpid(), signal.SIGKILL)
