"""`pricing`: returns the price of an item. The smallest of the agents: read it first.

Run it with `sealbus worker run sealbus.agents.examples.pricing:agent`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Resource, ResourceNotFound
from sealbus.agents.examples.store import Store

agent = Agent("pricing")
store = Store()


class Quote(BaseModel):
    """Ask for the price of an item."""

    item_id: str


class Appraise(BaseModel):
    """Ask for an appraisal of an item, which takes `seconds`."""

    item_id: str
    seconds: float = Field(default=1.0, ge=0, le=25)


class Price(BaseModel):
    """The price of one piece of an item."""

    item_id: str
    cents: int


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


async def price(body: Quote | Appraise) -> Resource:
    """Load the resource before the policy is asked: the body names the item, and our own data has it or not."""
    if await store.row("SELECT item_id FROM prices WHERE item_id = ?", body.item_id) is None:
        raise ResourceNotFound("no such item")
    return Resource("price", body.item_id)


@agent.call("quote", resource=price)
async def quote(body: Quote, ctx: Context) -> Price:
    """Answer from the price list. The policy has already allowed the caller, so the handler checks no rights."""
    del ctx
    return Price.model_validate(await store.row("SELECT item_id, cents FROM prices WHERE item_id = ?", body.item_id))


@agent.call("appraise", resource=price, timeout=30.0)
async def appraise(body: Appraise, ctx: Context) -> Price:
    """Appraise an item for a while, then return its price. If this call is canceled, the wait ends at once."""
    await asyncio.sleep(body.seconds)
    return await quote(Quote(item_id=body.item_id), ctx)
