"""`pricing`: tells what an item costs. The smallest of the three agents; read this one first.

Run it with `sealbus worker run sealbus.agents.examples.pricing:agent`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel

from sealbus import Agent, Context, Resource, ResourceNotFound
from sealbus.agents.examples.store import Store

__all__ = ["Price", "Quote", "agent", "quote"]

agent = Agent("pricing")
store = Store()


class Quote(BaseModel):
    """Ask what an item costs."""

    item_id: str


class Price(BaseModel):
    """What one piece of an item costs."""

    item_id: str
    cents: int


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


async def price(body: Quote) -> Resource:
    """Load what is asked about, before the policy is: the body says which item, our own data says whether there is one."""
    if await store.row("SELECT item_id FROM prices WHERE item_id = ?", body.item_id) is None:
        raise ResourceNotFound("no such item")
    return Resource("price", body.item_id)


@agent.call("quote", resource=price)
async def quote(body: Quote, ctx: Context) -> Price:
    """Answer from the price list. Whoever calls was allowed to by the policy: nothing about rights stands here."""
    del ctx
    return Price.model_validate(await store.row("SELECT item_id, cents FROM prices WHERE item_id = ?", body.item_id))
