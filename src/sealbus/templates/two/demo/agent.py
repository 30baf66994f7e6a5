"""The agent `demo`: doubles the orders of users, which the agent `orders` keeps."""

from contextlib import aclosing

from pydantic import BaseModel
from sealbus import Agent, Context

from orders.agent import Order, change, read

agent = Agent("demo")
WEEK = 7 * 86_400


class Double(BaseModel):
    """Which order to double."""

    order_id: str


class Doubled(BaseModel):
    """The order as it is now; as long as a person has to approve the change, what it waits for."""

    order: Order
    waits: str = ""


@agent.task("double", once=True, retry=0)
async def double(body: Double, ctx: Context) -> Doubled:
    """Double an order. `orders` sees who asks, and for which user, and its policy decides about both.

    The policy may let the change wait for a person, for days. That is told, not waited for: a handler has seconds, and
    one that is tried again would ask again.
    """
    order = await ctx.call(read, Order(order_id=body.order_id))
    changed = await ctx.submit(change, Order(order_id=order.order_id, quantity=2 * order.quantity), wait=WEEK)
    async with aclosing(changed.statuses()) as statuses:
        async for status in statuses:
            if status.state == "input-required":
                return Doubled(order=order, waits=status.note)
    return Doubled(order=await changed.result())
