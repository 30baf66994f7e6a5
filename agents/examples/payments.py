"""`payments`: pays invoices. Over a limit the policy asks for an approval first; the agent has no code for that.

Run it with `sealbus worker run sealbus.agents.examples.payments:agent`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Reject, Resource, ResourceNotFound
from sealbus.agents.examples.store import Store

agent = Agent("payments")
store = Store()


class Pay(BaseModel):
    """Pay an amount of an invoice, in cents."""

    invoice_id: str
    amount: int = Field(gt=0)


class Paid(BaseModel):
    """The paid amount, and the people who approved it."""

    invoice_id: str
    amount: int
    approved_by: list[str] = []


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


async def invoice(body: Pay) -> Resource:
    """Load the invoice for the policy, which knows the manager of its customer."""
    row = await store.row("SELECT owner, customer FROM invoices WHERE invoice_id = ?", body.invoice_id)
    if row is None:
        raise ResourceNotFound("no such invoice")
    return Resource("invoice", body.invoice_id, **row)


@agent.task("pay", resource=invoice, facts=["amount"], once=True)
async def pay(body: Pay, ctx: Context) -> Paid:
    """Pay. If a person has to approve it, this runs after the approval, with the message as it came."""
    changed = await store.change(
        "UPDATE invoices SET paid = paid + ? WHERE invoice_id = ? AND paid + ? <= total",
        body.amount,
        body.invoice_id,
        body.amount,
    )
    if not changed:
        raise Reject("overpaid", note="more than the invoice's total")
    approved_by = [approval.user for approval in ctx.approvals]
    return Paid(invoice_id=body.invoice_id, amount=body.amount, approved_by=approved_by)
