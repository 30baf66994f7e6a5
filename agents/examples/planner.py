"""`planner`: an agent that works for a user through other agents. It asks inventory, which asks pricing: three hops.

Run it with `sealbus worker run sealbus.agents.examples.planner:agent`.

The planner knows no owners and no limits. The policy of each agent on the way decides whether the planner may do this for
this user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Denied
from sealbus.agents.examples import inventory
from sealbus.agents.examples.store import Store

agent = Agent("planner")
store = Store()

ONLY_PRICES = ("pricing.quote",)
"""The only actions that may follow from our messages: inventory has more rights, and cannot use them here."""


class Plan(BaseModel):
    """Bring these items to this stock."""

    item_ids: list[str] = Field(max_length=20)
    quantity: int


class Stocktake(BaseModel):
    """Count these items, one after the other."""

    items: list[inventory.Count] = Field(max_length=20)


class Line(BaseModel):
    """How many of an item are missing. `refused`: the policy of inventory denies this user the answer."""

    item_id: str
    missing: int = 0
    refused: bool = False


class Proposal(BaseModel):
    """The missing number of each requested item."""

    lines: list[Line]


@agent.lifespan
async def lifespan() -> AsyncIterator[None]:
    """Keep the store open while the worker runs."""
    async with store:
        yield


@agent.call("plan", facts=["quantity"])
async def plan(body: Plan, ctx: Context) -> Proposal:
    """Return what is missing; nothing is changed."""
    return await _proposal(body, ctx)


# `once`: a second copy of this task must not order a second time.
@agent.task("replan", facts=["quantity"], once=True)
async def replan(body: Plan, ctx: Context) -> Proposal:
    """Order the missing items: an update of the inventory for each, about which the policy of inventory decides later."""
    proposal = await _proposal(body, ctx)
    for line in proposal.lines:
        if line.missing:
            await _order(line.item_id, body.quantity, ctx)
    return proposal


@agent.task("stocktake", timeout=600.0)
async def stocktake(body: Stocktake, ctx: Context) -> list[inventory.Stock]:
    """Count items, each in a task of the inventory. If the user cancels this task, the current count stops with it."""
    stocks = []
    for count in body.items:
        handle = await ctx.submit(inventory.stocktake, count, grants=("pricing.appraise",))
        stocks.append(await handle.result())
    return stocks


@agent.on("event.inventory.updated")
async def updated(body: inventory.Update, ctx: Context) -> None:
    """Close the orders that an update of the inventory fulfils. An event has no user, and starts no work for one."""
    del ctx
    await store.change("DELETE FROM orders WHERE item_id = ? AND quantity <= ?", body.item_id, body.quantity)


async def _proposal(body: Plan, ctx: Context) -> Proposal:
    return Proposal(lines=[await _line(item_id, body.quantity, ctx) for item_id in body.item_ids])


async def _line(item_id: str, quantity: int, ctx: Context) -> Line:
    try:
        stock = await ctx.call(inventory.read, inventory.Read(item_id=item_id), grants=ONLY_PRICES)
    except Denied:
        return Line(item_id=item_id, refused=True)
    return Line(item_id=item_id, missing=max(0, quantity - stock.quantity))


async def _order(item_id: str, quantity: int, ctx: Context) -> None:
    await store.change("INSERT OR REPLACE INTO orders VALUES (?, ?)", item_id, quantity)
    await ctx.submit(inventory.update, inventory.Update(item_id=item_id, quantity=quantity), grants=ONLY_PRICES)
