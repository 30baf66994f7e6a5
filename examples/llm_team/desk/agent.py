"""The agent `desk`: a language model that talks to users, and asks `orders` and `refunds` for the user it talks to.

It is given no permission of its own to pay: each tool is a message for its user, which the policy decides, and a large refund waits
until a person approves it. So it does not matter what a text that it reads tells it to do.
"""

import os
from contextlib import aclosing

from pydantic import BaseModel
from pydantic_ai import Agent as Model
from pydantic_ai import RunContext
from sealbus import Agent, Context, Denied, RemoteError

from desk.offline import offline
from orders.agent import Order, read
from refunds.agent import Refund, pay

agent = Agent("desk")
model = Model(os.environ.get("MODEL") or offline, deps_type=Context, instructions="Help users with their orders.")
WEEK = 7 * 86_400


class Text(BaseModel):
    """What is asked, and what is answered."""

    text: str


@model.tool
async def look_up(run: RunContext[Context], order_id: str) -> str:
    """Look up an order."""
    try:
        bought = await run.deps.call(read, Order(order_id=order_id))
    except Denied as denied:
        return f"order {order_id}: denied, {', '.join(denied.reasons)}"
    return f"order {order_id} was {bought.cents} cents; its buyer wrote: {bought.note}"


@model.tool
async def refund(run: RunContext[Context], order_id: str, cents: int) -> str:
    """Pay an order back, or ask for that."""
    handle = await run.deps.submit(pay, Refund(order_id=order_id, cents=cents), wait=WEEK)
    async with aclosing(handle.statuses()) as statuses:
        async for status in statuses:
            if status.state == "input-required":
                return f"order {order_id}: {status.note}"
    try:
        paid = await handle.result()
    except Denied as denied:
        return f"order {order_id}: denied, {', '.join(denied.reasons)}"
    except RemoteError as error:
        return f"order {order_id}: {error.note or error.code}"
    return f"order {order_id}: {paid.cents} cents are paid back"


@agent.task("ask", timeout=120)
async def ask(body: Text, ctx: Context) -> Text:
    """Answer a user."""
    return Text(text=(await model.run(body.text, deps=ctx)).output)
