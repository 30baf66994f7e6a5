"""The agent's tests as its user writes them: its functions alone, and the agent on a bus in memory."""

from __future__ import annotations

import asyncio
from typing import assert_type, cast

from invoicing.invoices import Get, Invoice, agent, get, issue, lines
from sealbus import Context, TaskHandle
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.testing import TestBus

CONTEXT = cast("Context", None)
"""Of handlers that need none."""

OWN = OwnSubject(
    subject="shop.invoices.count",
    kind=Kind.CALL,
    owner=SpiffeId("spiffe://example.org/agent/invoices"),
    action="invoices.count",
)


async def test_a_declared_handler_is_called_like_its_function() -> None:
    assert_type(await get(Get(number=1), CONTEXT), Invoice)
    assert await asyncio.create_task(get(Get(number=1), CONTEXT)) == Invoice(number=1, cents=100)
    assert [text async for text in lines(Get(number=2), CONTEXT)] == ["line 0", "line 1"]


async def test_the_starter_policy_does_not_know_the_agent() -> None:
    async with TestBus(agent, own=[OWN]) as bus:
        client = await bus.client("shop-web")
        handle = await client.submit(issue, Invoice(number=1, cents=2), user=bus.user("alice", "shop-web"))
        assert_type(handle, TaskHandle[int])
        await bus.idle()
        await bus.assert_task(handle, "rejected", "denied")
        await bus.assert_denied("invoices.issue", reason="unknown_action")
        assert handle.action == issue.action
        assert (await bus.statuses(handle))[-1].final
