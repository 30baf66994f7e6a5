"""What a handler is told of its message, and that what it sends goes along with it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.engines import ScriptedEngine, allow
from support.shop import Shop, Update

from sealbus import Agent, Context
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(shop: Shop, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(shop.inventory, shop.pricing, engine=engine) as running:
        yield running


async def test_its_facts_are_those_that_were_decided_on(bus: TestBus, shop: Shop, engine: ScriptedEngine) -> None:
    engine.verdict = lambda _: allow(obligations=({"type": "mask", "field": "price"},))
    client = await bus.client("shop-web")
    sent = await client.submit("inventory.update", Update(item_id="1"), user=bus.user("alice", "shop-web"))
    await bus.idle()
    (context,) = shop.contexts
    assert context.message_id == sent.message_id == engine.asked[0]["context"]["message_id"]
    assert context.action == "inventory.update"
    assert context.caller == bus.names.id_of("shop-web")
    assert context.chain == (context.caller,)
    assert context.delivery == 1
    assert context.obligations == ({"type": "mask", "field": "price"},)
    assert context.user is not None
    assert context.user.sub == "alice"


async def test_without_a_user_there_is_none(bus: TestBus, shop: Shop) -> None:
    await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
    await bus.idle()
    assert shop.contexts[0].user is None


async def test_a_second_attempt_says_so(bus: TestBus, shop: Shop) -> None:
    shop.fail = 1
    await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
    await bus.idle()
    assert [one.delivery for one in shop.contexts] == [1, 2]


async def test_what_it_sends_carries_user_and_chain_and_is_in_the_outcome(bus: TestBus, shop: Shop) -> None:
    client = await bus.client("shop-web")
    await client.submit("inventory.order", Update(item_id="1"), user=bus.user("alice", "shop-web"))
    await bus.idle()
    (asked,) = [one for one in shop.contexts if one.action == "pricing.quote"]
    assert asked.chain == (bus.names.id_of("shop-web"), bus.names.id_of("inventory"))
    assert asked.user is not None
    assert asked.user.sub == "alice"
    (told,) = [one for one in shop.contexts if one.action == "inventory.ordered"]
    assert told.user is None
    assert told.chain == (bus.names.id_of("inventory"),)
    (event,) = [one for one in bus.stored("EVENTS") if one.subject == "event.inventory.ordered"]
    header = parse_header(parse_envelope(event.payload).header)
    assert header.re == parse_header(parse_envelope(bus.stored("TASKS")[0].payload).header).digest
    outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert max(len(one.sent) for one in outcomes) == 2
    assert header.digest in next(one.sent for one in outcomes if len(one.sent) == 2)


async def test_a_task_sent_from_a_handler_cannot_be_granted_more(bus: TestBus) -> None:
    """A hop may narrow what the next may do; what is outside of it is refused by who consumes it."""
    sender = Agent("sender")
    sent: list[Context] = []

    @sender.task("go", retry=0)
    async def go(body: Update, ctx: Context) -> None:
        sent.append(ctx)
        await ctx.submit("inventory.update", body)

    async with TestBus(sender, Shop().inventory, engine=ScriptedEngine()) as own:
        client = await own.client("shop-web")
        await client.submit("sender.go", Update(item_id="1"), grants=["pricing.*"])
        await own.idle()
        assert len(sent) == 1
        assert "grant_exceeded" in [one["code"] for one in await own.flush_refusals()]


async def test_only_a_task_has_statuses(bus: TestBus, shop: Shop) -> None:
    client = await bus.client("shop-web")
    await client.call(shop.pricing.handlers["call.pricing.quote"], Update(item_id="1"))
    with pytest.raises(SealError):
        await shop.contexts[0].progress("half way")
