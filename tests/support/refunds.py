"""What models ask for in tests: orders and refunds under the policy of examples/llm_team, and a desk that a test declares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sealbus import Agent, Context, Reject, Resource, TaskHandle
from sealbus.agents.sdk.agent import Handler
from sealbus.testing import TestBus

__all__ = ["Order", "Refund", "Refunded", "Refunds", "asked", "refunds"]

POLICY = Path(__file__).parent.parent.parent / "examples" / "llm_team" / "policy"


class Order(BaseModel):
    order_id: str


class Refund(BaseModel):
    order_id: str
    cents: int = Field(description="how much to pay back")


class Refunded(BaseModel):
    cents: int


async def _order(body: Order | Refund) -> Resource:
    return Resource("order", body.order_id, owner={"1": "alice"}.get(body.order_id, "mallory"), customer="acme")


@dataclass
class Refunds:
    """The agents beside the desk, and what was asked of them. What is over 4,000 cents is paid once `go` is set."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    paid: list[int] = field(default_factory=list)
    canceled: list[int] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        orders, payments = Agent("orders"), Agent("refunds")
        self.agents = (orders, payments)

        @orders.call("read", resource=_order)
        async def read(body: Order, ctx: Context) -> str:
            """Look up an order.

            It says what was bought.
            """
            self.users.append(ctx.user.sub if ctx.user is not None else "")
            return f"order {body.order_id}: a cup"

        @payments.task("pay", resource=_order, facts=["cents"], retry=0)
        async def pay(body: Refund, ctx: Context) -> Refunded:
            if body.cents == 13:
                raise Reject("unlucky", note="13 is never paid")
            if body.cents > 4_000:
                self.began.set()
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    self.canceled.append(body.cents)
                    raise
            self.paid.append(body.cents)
            return Refunded(cents=body.cents)

        self.read: Handler[Order, Any] = read
        self.pay: Handler[Refund, Any] = pay


@asynccontextmanager
async def refunds(desk: Callable[[Refunds, Agent], None]) -> AsyncIterator[tuple[Refunds, TestBus]]:
    """Run the agents, with the desk whose handler `ask` the function `desk` declares."""
    beside, agent = Refunds(), Agent("desk")
    desk(beside, agent)
    async with TestBus(agent, *beside.agents, policy=POLICY) as bus:
        try:
            yield beside, bus
        finally:
            beside.go.set()


async def asked(bus: TestBus, body: object, user: str = "alice") -> TaskHandle[Any]:
    """Ask the desk for a user."""
    return await (await bus.client("web")).submit("desk.ask", body, user=bus.user(user, "web"))
