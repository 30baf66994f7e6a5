"""An agent that handles own subjects of every kind, and their declarations: for memory and for a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from support.shop import Price, Update

from sealbus import Agent, Context
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

__all__ = ["OWN", "Orders"]

_NAMES = Names(TrustDomain("example.org"))
_ORDERS = _NAMES.id_of("orders")

OWN = (
    OwnSubject(subject="shop.orders.ship", kind=Kind.TASK, owner=_ORDERS, action="orders.ship"),
    OwnSubject(subject="shop.orders.price", kind=Kind.CALL, owner=_ORDERS, action="orders.price"),
    OwnSubject(subject="shop.orders.count", kind=Kind.CALL, owner=_ORDERS, action="orders.count"),
    OwnSubject(subject="shop.sold", kind=Kind.EVENT, owner=_NAMES.id_of("shop-web"), action="shop.sold"),
)


@dataclass
class Orders:
    """One agent named `orders`, and what it handled: a task of the ordinary scheme, and own subjects of every kind."""

    handled: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("orders")

        @self.agent.task("cancel")
        async def cancel(body: Update, ctx: Context) -> None:
            self.handled.put_nowait((ctx.action, body.item_id))

        @self.agent.on("shop.orders.ship")
        async def ship(body: Update, ctx: Context) -> None:
            self.handled.put_nowait((ctx.action, body.item_id))

        @self.agent.on("shop.orders.price")
        async def price(body: Update, ctx: Context) -> Price:
            return Price(item_id=body.item_id, price=3 * body.quantity)

        @self.agent.on("shop.orders.count")
        async def count(body: Update, ctx: Context) -> AsyncIterator[int]:
            for number in range(body.quantity):
                yield number

        @self.agent.on("shop.sold")
        async def sold(body: Update, ctx: Context) -> None:
            self.handled.put_nowait((ctx.action, body.item_id))
