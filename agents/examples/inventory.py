"""`inventory`: keeps the stock of items that belong to people, and asks `pricing` for their worth.

Run it with `sealbus worker run sealbus.agents.examples.inventory:agent`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Resource, ResourceNotFound
from sealbus.agents.examples import pricing
from sealbus.agents.examples.store import Store

agent = Agent("inventory")
store = Store()


class Update(BaseModel):
    """Set the stock of an item."""

    item_id: str
    quantity: int


class Read(BaseModel):
    """Ask for the stock of an item."""

    item_id: str


class Count(BaseModel):
    """Count an item and have it appraised, which takes `seconds`."""

    item_id: str
    seconds: float = Field(default=1.0, ge=0, le=25)


class Stock(BaseModel):
    """The stock of an item, and its total worth."""

    item_id: str
    quantity: int
    cents: int


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


async def item(body: Update | Read | Count) -> Resource:
    """Load the item for the policy. The owner comes from our own data, never from the message."""
    row = await store.row("SELECT owner, customer, region FROM items WHERE item_id = ?", body.item_id)
    if row is None:
        raise ResourceNotFound("no such item")
    return Resource("item", body.item_id, **row)


# `facts` names the fields that reach the policy: the limit stands in the policy, not in the agent.
@agent.task("update", resource=item, facts=["quantity"], once=True)
async def update(body: Update, ctx: Context) -> Stock:
    """Set the stock, and publish an event about it. The requester reads the result from the task's handle."""
    # The user and the chain go along with each message sent through `ctx`; pricing decides with both.
    price = await ctx.call(pricing.quote, pricing.Quote(item_id=body.item_id))
    await store.change("UPDATE items SET quantity = ? WHERE item_id = ?", body.quantity, body.item_id)
    await ctx.emit("updated", body)
    return Stock(item_id=body.item_id, quantity=body.quantity, cents=body.quantity * price.cents)


@agent.call("read", resource=item)
async def read(body: Read, ctx: Context) -> Stock:
    """Return the stock and its worth."""
    price = await ctx.call(pricing.quote, pricing.Quote(item_id=body.item_id))
    return await _stock(body.item_id, price)


@agent.task("stocktake", resource=item)
async def stocktake(body: Count, ctx: Context) -> Stock:
    """Have an item appraised, and store its worth."""
    request = pricing.Appraise(item_id=body.item_id, seconds=body.seconds)
    stock = await _stock(body.item_id, await ctx.call(pricing.appraise, request))
    await store.change("INSERT OR REPLACE INTO stocktakes VALUES (?, ?, ?)", stock.item_id, stock.quantity, stock.cents)
    return stock


async def _stock(item_id: str, price: pricing.Price) -> Stock:
    row = await store.row("SELECT quantity, quantity * ? AS cents FROM items WHERE item_id = ?", price.cents, item_id)
    return Stock.model_validate({"item_id": item_id, **(row or {})})
