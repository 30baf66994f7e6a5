"""An agent that pays once somebody has approved, and a policy that asks for that; both do what a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow, deny

from sealbus import Agent, Context
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.envelopes.message.wire import Statement
from sealbus.testing import TestBus

__all__ = ["ASKED", "Pay", "Payments"]

ASKED: dict[str, object] = {"type": "approval", "queue": "managers", "text": "Pay ACME", "until": 604_800}
"""What the policy asks for, unless a test says more."""


class Pay(BaseModel):
    invoice: str = "42"
    amount: int = 5_000


@dataclass
class Payments:
    """The agent, what it paid and with whose approvals, and its policy.

    The policy allows what has `enough` approvals and no denial, and asks for `asked` otherwise. `may` says who may approve,
    and `decide` replaces all of it.
    """

    asked: dict[str, object] = field(default_factory=lambda: dict(ASKED))
    enough: int = 1
    may: Callable[[str], bool] = lambda _: True
    decide: Callable[[dict[str, Any]], Verdict | None] = lambda _: None
    paid: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    raises: Callable[[Context], None] = lambda _: None
    contexts: list[Context] = field(default_factory=list)
    fail: int = 0
    once: bool = False
    timeout: float = 30.0
    retry: int | RetryPolicy = 3
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(init=False)
    engine: ScriptedEngine = field(init=False)

    def __post_init__(self) -> None:
        self.hold.set()
        self.agent = Agent("payments")
        self.engine = ScriptedEngine(self._verdict)

        @self.agent.task("pay", facts=["amount"], retry=self.retry, once=self.once, timeout=self.timeout)
        async def pay(body: Pay, ctx: Context) -> str:
            self.contexts.append(ctx)
            self.raises(ctx)
            self.begun.set()
            await self.hold.wait()
            if self.fail:
                self.fail -= 1
                raise RuntimeError("down")
            self.paid.append((body.invoice, tuple(one.user for one in ctx.approvals)))
            return "paid"

        @self.agent.task("note")
        async def note(body: Pay, ctx: Context) -> str:
            self.contexts.append(ctx)
            return "noted"

    def _verdict(self, document: dict[str, Any]) -> Verdict:
        said = self.decide(document)
        if said is not None:
            return said
        if "of" in document:
            user = document["context"]["user"]["id"]
            return allow() if self.may(user) else deny("not_a_manager", obligations=({"type": "show_reasons"},))
        if document["action"]["name"] != "payments.pay":
            return allow()
        verdicts = [one["verdict"] for one in document["context"]["approvals"]]
        if "deny" in verdicts:
            return deny("not_approved")
        if len(verdicts) >= self.enough:
            return allow()
        return deny("over_limit", obligations=(self.asked,))

    async def submitted(
        self, bus: TestBus, *, user: str = "alice", invoice: str = "42", client: str = "shop", **options: Any
    ) -> TaskHandle:
        """Submit a payment for `user`, and return once it waits."""
        context: Statement = bus.user(user, client)
        handle = await (await bus.client(client)).submit("payments.pay", Pay(invoice=invoice), user=context, **options)
        await bus.idle()
        return handle
