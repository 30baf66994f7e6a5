"""The agent `bank`, run by `sealbus worker run`: its handlers write their effect into the book, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from ledger.book import Book
from sealbus import Agent, Context

__all__ = ["Payment", "agent"]

agent = Agent("bank")
_book = Book(Path(os.environ["LEDGER_BOOK"]))


class Payment(BaseModel):
    number: int
    amount: int


# Two promises: at most once with a claim, at least once without.
@agent.task("pay", facts=["amount"], once=True, timeout=2.0, retry=20)
async def pay(payment: Payment, ctx: Context) -> int:
    _book.effect(payment.number, "pay", ctx.message_id)
    return payment.number


@agent.task("note", facts=["amount"], timeout=2.0, retry=20)
async def note(payment: Payment, ctx: Context) -> int:
    _book.effect(payment.number, "note", ctx.message_id)
    return payment.number
