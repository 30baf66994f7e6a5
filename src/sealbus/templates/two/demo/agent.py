"""The agent `demo`: doubles the orders of users, which the agent `orders` keeps."""

from pydantic import BaseModel
from sealbus import Agent, Context

from orders.agent import Order, change, read

agent = Agent("demo")


class Double(BaseModel):
    """Which order to double."""

    order_id: str


@agent.task("double")
async def double(body: Double, ctx: Context) -> Order:
    """Double an order. `orders` sees who asks, and for which user, and its policy decides about both."""
    order = await ctx.call(read, Order(order_id=body.order_id))
    changed = await ctx.submit(change, Order(order_id=order.order_id, quantity=2 * order.quantity))
    return await changed.result()
