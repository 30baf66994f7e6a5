"""The agent `demo`: a language model that looks up and changes orders for users, which the agent `orders` keeps.

The model is an offline one until MODEL names another, such as `openai:gpt-5`. Whatever it says, its tools ask for the user
behind the question, and the policy decides about each before `orders` does anything.
"""

import os
from contextlib import aclosing

from pydantic import BaseModel
from pydantic_ai import Agent as Model
from pydantic_ai import RunContext
from sealbus import Agent, Context, Denied

from demo.offline import offline
from orders.agent import Order, change, read

agent = Agent("demo")
WEEK = 7 * 86_400
model = Model(os.environ.get("MODEL") or offline, deps_type=Context, instructions="Help users with their orders.")


class Text(BaseModel):
    """What is asked, and what is answered."""

    text: str


@model.tool
async def look_up(run: RunContext[Context], order_id: str) -> str:
    """Look up how much of an order there is."""
    try:
        order = await run.deps.call(read, Order(order_id=order_id))
    except Denied as denied:
        return f"denied: {', '.join(denied.reasons)}"
    return f"order {order.order_id} is {order.quantity}"


@model.tool
async def set_quantity(run: RunContext[Context], order_id: str, quantity: int) -> str:
    """Change how much of an order there is."""
    changed = await run.deps.submit(change, Order(order_id=order_id, quantity=quantity), wait=WEEK)
    async with aclosing(changed.statuses()) as statuses:
        async for status in statuses:
            if status.state == "input-required":  # a person has to approve it, which may take days
                return f"order {order_id}: {status.note}"
    try:
        order = await changed.result()
    except Denied as denied:
        return f"denied: {', '.join(denied.reasons)}"
    return f"order {order.order_id} is now {order.quantity}"


@agent.task("ask", timeout=120, once=True, retry=0)
async def ask(body: Text, ctx: Context) -> Text:
    """Answer a question, or do what it asks for."""
    return Text(text=(await model.run(body.text, deps=ctx)).output)
