"""Agents that the tests of the gate run: an inventory that calls a pricing, and handlers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from pydantic import BaseModel

from sealbus import Agent, Context, Resource, ResourceNotFound

__all__ = ["Price", "Shop", "Update"]


class Update(BaseModel):
    item_id: str
    quantity: int = 1


class Price(BaseModel):
    item_id: str
    price: int


@dataclass
class Shop:
    """Two agents and what they saw. `fail` makes the inventory raise so many times."""

    handled: list[tuple[str, int]] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    fail: int = 0
    hang: asyncio.Event = field(default_factory=asyncio.Event)
    inventory: Agent = field(init=False)
    pricing: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.inventory = Agent("inventory")
        self.pricing = Agent("pricing")

        @self.pricing.call("quote")
        async def quote(body: Update, ctx: Context) -> Price:
            self.contexts.append(ctx)
            self.handled.append(("quote", body.quantity))
            return Price(item_id=body.item_id, price=7 * body.quantity)

        @self.pricing.call("broken")
        async def broken(body: Update, ctx: Context) -> Price:
            return Price.model_construct(item_id=body.item_id, price=object())

        @self.pricing.call("count", chunks=True)
        async def count(body: Update, ctx: Context) -> AsyncIterator[int]:
            self.handled.append(("count", body.quantity))
            for number in range(body.quantity):
                yield number

        async def item(body: Update) -> Resource:
            if body.item_id == "none":
                raise ResourceNotFound("no such item")
            if body.item_id == "down":
                raise ConnectionError("the database is away")
            return Resource("item", body.item_id, owner="alice", customer="acme")

        @self.inventory.task("update", resource=item, facts=["quantity"], retry=2, timeout=5, honours=["mask"])
        async def update(body: Update, ctx: Context) -> None:
            self.contexts.append(ctx)
            if self.fail:
                self.fail -= 1
                raise ValueError("a secret that no record may hold")
            self.handled.append((body.item_id, body.quantity))

        @self.inventory.task("order", retry=0)
        async def order(body: Update, ctx: Context) -> None:
            price = await ctx.call("pricing.quote", body, returns=Price)
            self.handled.append((body.item_id, price.price))
            await ctx.emit("ordered", Update(item_id=body.item_id))

        @self.inventory.task("hang", retry=0, timeout=0.05)
        async def hang(body: Update, ctx: Context) -> None:
            await self.hang.wait()

        @self.pricing.on("event.inventory.ordered")
        async def ordered(body: Update, ctx: Context) -> None:
            self.contexts.append(ctx)
            self.handled.append(("ordered", body.quantity))
