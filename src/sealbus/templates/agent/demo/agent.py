"""The agent `demo`: orders, which belong to users."""

from pydantic import BaseModel
from sealbus import Agent, Context, Resource, ResourceNotFound

agent = Agent("demo")


class Order(BaseModel):
    """An order, as requests and answers carry it."""

    order_id: str
    quantity: int = 0


OWNERS = {"1": "alice", "2": "bob"}
QUANTITIES = {"1": 10, "2": 20}


async def order(body: Order) -> Resource:
    """Return what the policy needs to know about an order: from our own data, never from the request."""
    if body.order_id not in OWNERS:
        raise ResourceNotFound(f"no order {body.order_id}")
    return Resource("order", body.order_id, owner=OWNERS[body.order_id])


@agent.call("read", resource=order)
async def read(body: Order, ctx: Context) -> Order:
    """Return an order as it is."""
    return Order(order_id=body.order_id, quantity=QUANTITIES[body.order_id])


@agent.task("change", resource=order, facts=["quantity"])
async def change(body: Order, ctx: Context) -> Order:
    """Change an order's quantity. The policy has allowed it when this is called."""
    QUANTITIES[body.order_id] = body.quantity
    return body
