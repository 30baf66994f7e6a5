"""What a replayed handler is told: the facts of the record, and nothing of now."""

from __future__ import annotations

from types import FunctionType

import pytest
from support.engines import ScriptedEngine, allow
from support.shop import Price, Shop, Update

from sealbus import Context
from sealbus.agents.runtime.replay.context import NotSent, ReplayContext, Unsent
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.testing import TestBus


@pytest.fixture
async def contexts() -> tuple[Context, ReplayContext, Unsent]:
    """Return the context of a handled task, and that of its replay."""
    shop = Shop()
    async with TestBus(shop.inventory, engine=ScriptedEngine(lambda _: allow(obligations=({"type": "mask"},)))) as bus:
        client = await bus.client("shop-web")
        await client.submit("inventory.update", Update(item_id="42"), user=bus.user("alice", "shop-web"))
        await bus.idle()
        (entry,) = [one for one in await bus.audit() if isinstance(one.record, DecisionRecord)]
        unsent = Unsent(own=bus.names.id_of("inventory"), names=bus.names)
    assert entry.message is not None
    assert isinstance(entry.record, DecisionRecord)
    (live,) = shop.contexts
    return live, ReplayContext(entry.message, entry.record, ({"type": "mask"},), unsent), unsent


async def test_it_tells_what_the_handler_was_told(contexts: tuple[Context, ReplayContext, Unsent]) -> None:
    live, replayed, _ = contexts
    for fact in ("message_id", "action", "caller", "chain", "user", "delivery", "obligations"):
        assert getattr(replayed, fact) == getattr(live, fact), fact
    assert (live.replay, replayed.replay) == (False, True)


async def test_nothing_that_looks_at_the_permitted_message_is_left_to_the_base(
    contexts: tuple[Context, ReplayContext, Unsent],
) -> None:
    # What were inherited would reach for a message that the gate permitted, and there is none.
    _, context, unsent = contexts
    functions = {name: getattr(member, "fget", member) for name, member in vars(Context).items()}
    looks = {
        name
        for name, function in functions.items()
        if isinstance(function, FunctionType) and "_permitted" in function.__code__.co_names
    } - {"__init__"}
    assert {"action", "_message", "_tell", "_sent", "_origin"} < looks
    assert looks <= vars(ReplayContext).keys()
    assert "_permitted" not in vars(context)
    assert context._sending is unsent


async def test_everything_it_sends_is_noted(contexts: tuple[Context, ReplayContext, Unsent]) -> None:
    _, context, unsent = contexts
    body = Update(item_id="42")
    await context.progress("half")
    await context.input_required("which one?")
    await context.emit("ordered", body)
    await context.submit("pricing.quote", body)
    with pytest.raises(NotSent):
        await context.call("pricing.quote", body, returns=Price)
    with pytest.raises(NotSent):
        await anext(context.stream("pricing.count", body, returns=int))
    with pytest.raises(ValueError, match="a note is"):
        await context.progress("two\nlines")
    assert [(one.kind, one.subject) for one in unsent.noted] == [
        ("status", "working"), ("status", "input-required"), ("event", "event.inventory.ordered"),
        ("task", "task.pricing.quote"), ("call", "call.pricing.quote"), ("call", "call.pricing.count"),
    ]  # fmt: skip
