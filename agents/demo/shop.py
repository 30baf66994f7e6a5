"""The agents of the demonstration: `inventory` owns items and asks `pricing`; both know only the starter policy's words.

Run one by hand with `sealbus worker run sealbus.agents.demo.shop:inventory`.
"""

from __future__ import annotations

from types import MappingProxyType

from pydantic import BaseModel

from sealbus.agents.agent import Agent
from sealbus.agents.context import Context
from sealbus.agents.resource import Resource
from sealbus.envelopes.errors import ResourceNotFound

__all__ = ["ITEMS", "Item", "Price", "Quote", "Update", "inventory", "pricing"]

inventory = Agent("inventory")
pricing = Agent("pricing")


class Update(BaseModel):
    """Set the stock of one item."""

    item_id: str
    quantity: int


class Quote(BaseModel):
    """Ask what one item costs."""

    item_id: str


class Price(BaseModel):
    """What one item costs, in cents."""

    item_id: str
    cents: int


class Item(BaseModel):
    """An item as its owner sees it."""

    item_id: str
    owner: str
    quantity: int


ITEMS = MappingProxyType(
    {
        "42": {"owner": "alice", "customer": "acme", "region": "always"},
        "43": {"owner": "alice", "customer": "acme", "region": "frozen"},
        "77": {"owner": "carol", "customer": "globex", "region": "always"},
    }
)
"""The inventory's own data: who owns an item is never taken from a message."""

STOCK: dict[str, int] = {}


async def item(body: Update | Quote) -> Resource:
    """Load the item that a message is about."""
    found = ITEMS.get(body.item_id)
    if found is None:
        raise ResourceNotFound(f"no item {body.item_id}")
    return Resource("item", body.item_id, **found)


@inventory.task("update", resource=item, facts=["quantity"])
async def update(body: Update, ctx: Context) -> None:
    """Set the stock, after asking the pricing: the user's context and the chain go along."""
    await ctx.call("pricing.quote", Quote(item_id=body.item_id), returns=Price)
    STOCK[body.item_id] = body.quantity


@inventory.call("read", resource=item)
async def read(body: Quote, ctx: Context) -> Item:
    """Tell the stock of one item."""
    del ctx
    return Item(item_id=body.item_id, owner=ITEMS[body.item_id]["owner"], quantity=STOCK.get(body.item_id, 0))


@pricing.call("quote")
async def quote(body: Quote, ctx: Context) -> Price:
    """Tell what an item costs."""
    del ctx
    return Price(item_id=body.item_id, cents=100 * len(body.item_id))
