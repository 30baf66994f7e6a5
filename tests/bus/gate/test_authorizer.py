"""The authorizer: an engine that fails, in whatever way, decides nothing and ends nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
from support.acceptance import EDGE, context_draft
from support.audit import opened
from support.engines import ScriptedEngine, Verdict, allow
from support.envelopes import NAMES, NOW
from support.lab import until
from support.shop import Price, Shop, Update

from sealbus import Agent, Context, Resource
from sealbus.agents.runtime.endpoint import routes_of
from sealbus.agents.sdk.sender import Sender
from sealbus.bus.gate import authorizer as module
from sealbus.bus.gate.authorizer import Authorizer, caller_for
from sealbus.bus.ports import Delivery
from sealbus.bus.routing.stages import Opened
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import Code, PolicyFailed, PolicyUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.envelopes.message.user_context import UserContext, mint_context, parse_payload
from sealbus.policies.decision.request import Resource as ResourceInput
from sealbus.testing import TestBus


class Raising(ScriptedEngine):
    """Raises `error` until it is taken away, but decides on what `spared` is part of."""

    def __init__(self, error: Exception | None, spared: bytes = b"") -> None:
        super().__init__()
        self.error = error
        self.spared = spared

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        if self.error is not None and not (self.spared and all(self.spared in one for one in inputs)):
            raise self.error
        return await super().decide(inputs)


class Short(ScriptedEngine):
    """Answers one question too few."""

    async def decide(self, inputs: Sequence[bytes]) -> Sequence[Verdict]:
        return [allow()] * (len(inputs) - 1)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolicyUnavailable("away"), Code.POLICY_UNAVAILABLE),
        (PolicyFailed("nonsense"), Code.POLICY_ERROR),
        (RuntimeError("a secret"), Code.POLICY_UNAVAILABLE),
    ],
)
async def test_what_an_engine_raises_is_no_decision_for_all(error: Exception, code: Code) -> None:
    answers = await Authorizer(engine=Raising(error)).decide([b"{}", b"{}"])
    assert [one.code for one in answers if isinstance(one, PolicyUnavailable | PolicyFailed)] == [code, code]
    assert "a secret" not in str(answers)


async def test_an_answer_too_few_is_an_error_for_all() -> None:
    answers = await Authorizer(engine=Short()).decide([b"{}", b"{}"])
    assert [type(one) for one in answers] == [PolicyFailed, PolicyFailed]


async def test_how_long_decisions_take_is_counted_where_the_process_is() -> None:
    counters = Counters()
    await Authorizer(engine=ScriptedEngine(), counters=counters).decide([b"{}", b"{}"])
    assert "sealbus_decision_seconds_count 2" in counters.render()


async def test_an_engine_that_breaks_does_not_end_the_worker() -> None:
    shop, engine = Shop(), Raising(RuntimeError("a secret"), spared=b"pricing.quote.reply")
    async with TestBus(shop.pricing, engine=engine) as bus:
        client = await bus.client("shop-web")
        with pytest.raises(RemoteError) as refused:
            await client.call("pricing.quote", Update(item_id="1"), returns=Price)
        assert refused.value.code is Code.POLICY_UNAVAILABLE
        engine.error = None
        assert await client.call("pricing.quote", Update(item_id="1"), returns=Price) == Price(item_id="1", price=7)
    assert shop.handled == [("quote", 1)]


async def test_nothing_opened_is_nothing_asked() -> None:
    engine = ScriptedEngine()
    assert await Authorizer(engine=engine).authorize([]) == []
    assert engine.asked == []


async def test_what_strangers_can_make_fail_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Bodies are decoded and resources loaded before the policy is asked: whoever has an identity can send these."""
    agent = Agent("fragile")

    async def load(body: Update) -> Resource:
        raise KeyError(body.item_id)

    @agent.task("run", resource=load)
    async def run(body: Update, ctx: Context) -> None:
        raise AssertionError

    async with TestBus(agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("thief")
        for number in range(60):
            await client.submit("fragile.run", Update(item_id=str(number)))
        counters = bus.workers["fragile"].node.counters
        await until(lambda: counters.value("sealbus_refused_total", code="resource_unavailable") >= 60)
    assert 0 < caplog.text.count("loading the resource") <= 20


async def test_resources_that_hang_hold_a_batch_up_no_longer_than_twice_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else whoever has an identity could stop all other senders' messages, and have them delivered twice."""
    monkeypatch.setattr(module, "LOADING", 1)
    agent, asked = Agent("slow"), 0

    async def load(body: Update) -> Resource:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    @agent.task("run", resource=load)
    async def run(body: Update, ctx: Context) -> None:
        raise AssertionError

    async with TestBus(engine=ScriptedEngine()) as bus:
        node = (await bus.client("slow")).node
        [route, _] = routes_of(agent, sending=node.sending, names=bus.names, own_subjects={})
        message = opened()
        message = message._replace(body=b'{"item_id":"1"}', header=message.header._replace(typ="application/json"))
        delivery = Delivery(subject="task.slow.run", payload=b"", header_block=b"")
        one = Opened(delivery=delivery, route=replace(route, resource_timeout=0.05), message=message, time=0)
        found = await Authorizer(engine=ScriptedEngine()).authorize([one] * 50)
    assert {decided.code for decided in found} == {Code.RESOURCE_UNAVAILABLE}
    assert 1 <= asked <= 3


async def test_a_batch_has_the_time_of_the_one_that_may_take_longest() -> None:
    agent, begun = Agent("slow"), asyncio.Event()

    async def load(body: Update) -> Resource:
        if body.item_id == "1":
            begun.set()
            await asyncio.Event().wait()
        await begun.wait()
        await asyncio.sleep(0.3)  # longer than the other's batch would have
        return Resource("item", body.item_id)

    @agent.task("run", resource=load)
    async def run(body: Update, ctx: Context) -> None:
        raise AssertionError

    async with TestBus(engine=ScriptedEngine()) as bus:
        node = (await bus.client("slow")).node
        [route, _] = routes_of(agent, sending=node.sending, names=bus.names, own_subjects={})
        delivery = Delivery(subject="task.slow.run", payload=b"", header_block=b"")
        batch = []
        for item, seconds in (("1", 0.05), ("2", 60.0)):
            message = opened()
            message = message._replace(
                body=b'{"item_id":"%s"}' % item.encode(), header=message.header._replace(typ="application/json")
            )
            at_most = replace(route, resource_timeout=seconds)
            batch.append(Opened(delivery=delivery, route=at_most, message=message, time=0))
        found = await Authorizer(engine=ScriptedEngine()).authorize(batch)
    assert [decided.code for decided in found] == [Code.RESOURCE_UNAVAILABLE, None]


@pytest.mark.parametrize(
    ("grants", "nearest"),
    [
        ((None, ("a.b",), None), ("a.b",)),
        ((None, None, ("a.b",)), ("a.b",)),
        ((("a.b",), None, None), ("a.b",)),
        ((("a.*",), ("a.b",), None), ("a.b",)),
        ((("a.*",), ("a.b",), ()), ()),
        ((None, None, None), None),
    ],
)
def test_the_policy_is_told_what_the_nearest_ancestor_that_limits_allows(
    grants: tuple[tuple[str, ...] | None, ...], nearest: tuple[str, ...] | None
) -> None:
    message = opened()
    header = message.header._replace(grt=("its.own",))
    message = message._replace(chain=(*(header._replace(grt=one) for one in grants), header))
    unsent = cast("Sender", None)  # nothing here sends
    [route, *_] = routes_of(Shop().inventory, sending=unsent, names=NAMES, own_subjects={})
    delivery = Delivery(subject=header.to, payload=b"", header_block=b"")
    one = Opened(delivery=delivery, route=route, message=message, time=0)
    assert module.request_of(one, {}, ResourceInput(type="", id=""), now=0).caller.grant == nearest


@pytest.mark.parametrize("declared", [Declaration.of(model="m-1", prompt="Be brief."), NOTHING_DECLARED])
def test_the_policy_is_told_what_the_sender_declares(declared: Declaration) -> None:
    message = opened()
    message = message._replace(header=message.header._replace(ext=dict(declared.marks) or None))
    request = module.request_about(message, "a.b", {}, ResourceInput(type="", id=""), now=0)
    assert request.caller.declared == declared


def test_a_caller_is_one_for_all_that_a_user_asks_through_the_same_chain_and_for_nobody_else() -> None:
    def context(**changes: object) -> UserContext:
        draft = context_draft()._replace(**changes)  # type: ignore[arg-type]  # fields of their own types
        return parse_payload(mint_context(draft, EDGE).payload)

    own, other = NAMES.id_of("planner"), NAMES.id_of("pricing")
    alice, said = context(clm={"admin": True}), context(clm={"admin": 1})
    same = caller_for(own, alice, ("a", own.value))
    assert caller_for(own, alice, ("a", own.value)) is same
    callers = [
        same,
        caller_for(own, said, ("a", own.value)),
        caller_for(own, context(clm={"admin": True}, sub="bob"), ("a", own.value)),
        caller_for(other, alice, ("a", own.value)),
        caller_for(own, alice, ("b", own.value)),
        caller_for(own, alice, ("a", own.value), ()),
        caller_for(own, alice),
        caller_for(own, context(clm={"admin": True}, ten="acme"), ("a", own.value)),
        caller_for(own, context(clm={"admin": True}, acr="urn:x:2"), ("a", own.value)),
        caller_for(own, context(clm={"admin": True}, aut=NOW - 9 * SECOND), ("a", own.value)),
        caller_for(own, alice, ("a", own.value), None, Declaration.of(model="m-1")),
        caller_for(own, alice, ("a", own.value), None, Declaration.of(model="m-2")),
        caller_for(own, None, ("a", own.value)),
    ]
    documents = {(one.tenant, one.encoded) for one in callers}
    assert len(documents) == len(callers)
    assert b'"admin":true' in same.encoded[1]
    assert caller_for(own, None).chain == (own.value,)
