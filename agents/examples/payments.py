"""`payments`: pays invoices; over a limit the policy asks for somebody's approval first, which this agent knows nothing of.

Run it with `sealbus worker run sealbus.agents.examples.payments:agent`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Reject, Resource, ResourceNotFound
from sealbus.agents.examples.store import Store

__all__ = ["Paid", "Pay", "agent", "pay"]

agent = Agent("payments")
store = Store()


class Pay(BaseModel):
    """Pay an amount of an invoice, in cents."""

    invoice_id: str
    amount: int = Field(gt=0)


class Paid(BaseModel):
    """What was paid, and by whose approvals."""

    invoice_id: str
    amount: int
    approved_by: list[str] = []


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


async def invoice(body: Pay) -> Resource:
    """Load the invoice for the policy, which knows who manages its customer."""
    row = await store.row("SELECT owner, customer FROM invoices WHERE invoice_id = ?", body.invoice_id)
    if row is None:
        raise ResourceNotFound("no such invoice")
    return Resource("invoice", body.invoice_id, **row)


@agent.task("pay", resource=invoice, facts=["amount"], once=True)
async def pay(body: Pay, ctx: Context) -> Paid:
    """Pay. If somebody had to approve it, this runs when they have, with the message as it came."""
    changed = await store.change(
        "UPDATE invoices SET paid = paid + ? WHERE invoice_id = ? AND paid + ? <= total",
        body.amount,
        body.invoice_id,
        body.amount,
    )
    if not changed:
        raise Reject("overpaid", note="more than the invoice's total")
    approved_by = [one.user for one in ctx.approvals]
    return Paid(invoice_id=body.invoice_id, amount=body.amount, approved_by=approved_by)
