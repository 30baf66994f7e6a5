"""The agent `refunds`: pays money back, once, and never more than was paid."""

from pydantic import BaseModel
from sealbus import Agent, Context, Reject, Resource, ResourceNotFound

from orders.agent import BOUGHT, OWNERS

agent = Agent("refunds")
PAID: list[tuple[str, int, tuple[str, ...]]] = []


class Refund(BaseModel):
    """What to pay back."""

    order_id: str
    cents: int


class Refunded(BaseModel):
    """What was paid back, and who approved it."""

    cents: int
    approved_by: list[str]


async def order(body: Refund) -> Resource:
    """Return whose order is to be refunded, and which customer's managers may approve that."""
    if body.order_id not in OWNERS:
        raise ResourceNotFound(f"no order {body.order_id}")
    return Resource("order", body.order_id, owner=OWNERS[body.order_id], customer="acme")


@agent.task("pay", resource=order, facts=["cents"], once=True)
async def pay(body: Refund, ctx: Context) -> Refunded:
    """Pay back. Whoever had to approve has done so when this is called."""
    if body.cents > BOUGHT[body.order_id].cents:
        raise Reject("too_much", note="more than was paid")
    approved_by = [one.user for one in ctx.approvals]
    PAID.append((body.order_id, body.cents, tuple(approved_by)))
    return Refunded(cents=body.cents, approved_by=approved_by)
