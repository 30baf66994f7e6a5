"""The sender of messages: what is stored, what a handle knows, and what of the other side's answer reaches the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Price, Shop, Update

from sealbus import Agent, Context, Denied
from sealbus.agents.sdk.agent import Handler
from sealbus.agents.sdk.bodies import MSGPACK
from sealbus.agents.sdk.messages import Origin
from sealbus.agents.sdk.sender import Receipt, encoded
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import Code, EnvelopeError, HandlingError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.decision.decision import Decision
from sealbus.testing import TestBus

PRICES = Agent("prices")
"""Its tasks give something back."""


@PRICES.task("work_out", retry=0)
async def work_out(body: Update, ctx: Context) -> Price:
    if body.quantity > 100:
        raise ValueError("a secret that no status may hold")
    return Price(item_id=body.item_id, price=7 * body.quantity)


@PRICES.task("pass_on", retry=0)
async def pass_on(body: Update, ctx: Context) -> Price:
    handle = await ctx.submit(work_out, body)
    return await handle.result()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(PRICES, Shop().pricing, engine=engine, development=False) as running:
        yield running


async def decided(bus: TestBus, action: str) -> list[DecisionRecord]:
    """Return the decisions on `action`, whose records are noted and not awaited."""
    async with asyncio.timeout(60):
        while True:
            if found := await bus.decisions(action):
                return found
            await asyncio.sleep(0.001)


async def test_a_task_gives_its_result_back(bus: TestBus, engine: ScriptedEngine) -> None:
    client = await bus.client("shop-web")
    handle = await client.submit("prices.work_out", Update(item_id="1", quantity=3), user=bus.user("ola", "shop-web"))
    assert isinstance(handle, TaskHandle)
    assert (handle.subject, handle.stream, handle.sequence) == ("task.prices.work_out", "TASKS", 1)
    assert await handle.result(Price) == Price(item_id="1", price=21)
    reply = next(one for one in engine.asked if one["action"]["name"] == "prices.work_out.reply")
    assert (reply["context"]["kind"], reply["context"]["user"]["id"]) == ("status", "ola")
    [record] = await decided(bus, "prices.work_out.reply")
    assert record.allow


async def test_a_declared_handler_says_what_its_task_gives(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    handle = await client.submit(work_out, Update(item_id="1", quantity=2), user=bus.user("ola", "shop-web"))
    assert handle.action == "prices.work_out"
    assert await handle.result() == Price(item_id="1", price=14)
    assert await handle.result(dict[str, Any]) == {"item_id": "1", "price": 14}
    assert await (await client.submit(pass_on, Update(item_id="2"))).result() == Price(item_id="2", price=7)
    # A text says nothing of its answer, and a handle that was read again doesn't either.
    named = await client.submit("prices.work_out", Update(item_id="1"))
    assert await named.result() == await client.handle(str(named)).result() == {"item_id": "1", "price": 7}


async def test_a_declared_handler_is_asked_for_as_what_it_is(bus: TestBus) -> None:
    # A task on its subject would be stored, and nobody would ever handle it.
    client = await bus.client("shop-web")
    quote: Handler[Any, Any] = bus.workers["pricing"].agent.handlers["call.pricing.quote"]
    count: Handler[Any, Any] = bus.workers["pricing"].agent.handlers["call.pricing.count"]
    ordered: Handler[Any, Any] = bus.workers["pricing"].agent.handlers["event.inventory.ordered"]
    body = Update(item_id="1")
    for wrong in (quote, count, ordered):
        with pytest.raises(SealError, match="another kind: it cannot be requested as a task"):
            await client.submit(wrong, body)
    for other in (work_out, ordered):
        with pytest.raises(SealError, match="another kind: it cannot be requested as a call"):
            await client.call(other, body)
    assert bus.stored("TASKS") == []


async def test_a_handle_read_from_text_gives_the_same(bus: TestBus, engine: ScriptedEngine) -> None:
    sending = (await bus.client("shop-web")).node.sending
    handle: TaskHandle = await sending.submit(
        "prices.work_out", Update(item_id="1"), origin=Origin.user(bus.user("ola", "shop-web"))
    )
    again = sending.handle(str(handle))
    assert (again.text, again.digest, again.message_id) == (handle.text, handle.digest, handle.message_id)
    assert (again.subject, again.stream, again.sequence) == ("", "", 0)
    assert await again.result(Price) == Price(item_id="1", price=7)
    # Whom we asked for is known only to the process that asked.
    reply = next(one for one in engine.asked if one["action"]["name"] == "prices.work_out.reply")
    assert reply["context"]["user"]["present"] is False
    with pytest.raises(EnvelopeError):
        sending.handle("no handle")


async def test_anothers_handle_never_answers(bus: TestBus) -> None:
    handle = await (await bus.client("shop-web")).submit("prices.work_out", Update(item_id="1"))
    await handle.result(Price)
    stranger = (await bus.client("stranger")).handle(handle.text)
    assert await stranger.status() is None


async def test_a_task_that_hands_on_waits_for_its_own_task(bus: TestBus) -> None:
    handle = await (await bus.client("shop-web")).submit("prices.pass_on", Update(item_id="2"))
    assert await handle.result(Price) == Price(item_id="2", price=7)


@pytest.mark.parametrize("shown", [True, False])
async def test_a_denial_is_seen_with_its_code(bus: TestBus, engine: ScriptedEngine, shown: bool) -> None:
    obligations: tuple[dict[str, object], ...] = ({"type": "show_reasons"},) if shown else ()
    engine.verdict = lambda _: deny("not_owner", obligations=obligations)
    handle = await (await bus.client("shop-web")).submit("prices.work_out", Update(item_id="1"))
    with pytest.raises(Denied) as caught:
        await handle.result(Price)
    assert caught.value.reasons == (("not_owner",) if shown else ())
    async with aclosing(handle.statuses()) as statuses:
        [last] = [one async for one in statuses]
    assert (last.state, last.code, last.final) == (State.REJECTED, "denied", True)


async def test_a_handler_that_fails_is_seen_with_its_code_and_no_text(bus: TestBus) -> None:
    handle = await (await bus.client("shop-web")).submit("prices.work_out", Update(item_id="1", quantity=101))
    with pytest.raises(RemoteError) as caught:
        await handle.result(Price)
    assert caught.value.code is Code.HANDLER_FAILED
    assert not any(b"secret" in one.payload for one in bus.stored("RESULTS"))


async def test_a_result_that_our_own_policy_refuses_is_not_given(bus: TestBus, engine: ScriptedEngine) -> None:
    def verdict(document: dict[str, Any]) -> Decision:
        return deny("no_answers") if document["action"]["name"].endswith(".reply") else allow()

    engine.verdict = verdict
    handle = await (await bus.client("shop-web")).submit("prices.work_out", Update(item_id="1"))
    with pytest.raises(Denied) as caught:
        await handle.result(Price)
    assert caught.value.reasons == ("no_answers",)
    assert [one.code for one in await decided(bus, "prices.work_out.reply")] == [Code.DENIED]


async def test_the_handle_of_an_own_subject_has_its_declared_action(engine: ScriptedEngine) -> None:
    bus = TestBus(engine=engine)
    own = OwnSubject(subject="plant.press", kind=Kind.TASK, owner=bus.names.id_of("prices"), action="prices.press")
    async with TestBus(engine=engine, own=(own,)) as running:
        handle = await (await running.client("shop-web")).submit("plant.press", Update(item_id="1"))
        assert (handle.subject, handle.action) == ("plant.press", "prices.press")


async def test_an_event_has_a_receipt(bus: TestBus) -> None:
    receipt = await (await bus.client("shop-web")).emit("opened", Update(item_id="1"))
    assert isinstance(receipt, Receipt)
    assert (receipt.subject, receipt.stream, receipt.sequence) == ("event.shop-web.opened", "EVENTS", 1)
    assert receipt.message_id == bus.stored("EVENTS")[0].header_block.split(b": ")[1].strip().decode()


async def test_what_a_call_returns_must_be_known(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    sending = client.node.sending
    with pytest.raises(SealError, match="returns"):
        await sending.call("pricing.quote", Update(item_id="1"))
    with pytest.raises(HandlingError) as caught:
        await sending.call("pricing.quote", Update(item_id="1"), returns=int)
    assert caught.value.code is Code.BAD_RESULT


def test_a_body_is_encoded_by_its_own_type() -> None:
    assert encoded(Update(item_id="1"), "application/json").body == b'{"item_id":"1","quantity":1}'
    assert encoded(Update(item_id="1"), MSGPACK).typ == MSGPACK
    ready = Content(body=b"{", typ="text/plain")
    assert encoded(ready, MSGPACK) is ready
    with pytest.raises(SealError, match="object"):
        encoded(object(), "application/json")


@pytest.mark.parametrize("timeout", [60.1, 120, 0, -1])
async def test_a_call_that_may_not_last_so_long_is_refused_with_what_it_may(bus: TestBus, timeout: float) -> None:
    client = await bus.client("shop-web")
    with pytest.raises(SealError, match=f"at most 60 s for a call, not {timeout} s: submit a task"):
        await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=timeout)
    with pytest.raises(SealError, match="at most 60 s for a call"):
        async for _ in client.stream("pricing.count", Update(item_id="1"), returns=int, timeout=timeout):
            pass
    await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=60)


async def test_a_life_is_given_as_asked_or_refused_with_what_is_allowed(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    user = bus.user("alice", "shop-web")
    day, hour, body = 86_400, 3_600, Update(item_id="1")
    for life in (30 * day, day + 1, 0, -1):
        with pytest.raises(SealError, match=f"at most 86400 s for a task, not {life} s"):
            await client.submit("inventory.update", body, life=life)
    for life in (30 * day, day + 1):
        with pytest.raises(SealError, match="at most 86400 s for a task"):
            await client.submit("inventory.update", body, user=user, life=life)
    with pytest.raises(SealError, match="at most 28800 s here, not 72000 s: the user's context"):
        await client.submit("inventory.update", body, user=user, life=20 * hour)
    await client.submit("inventory.update", body, life=day)
    await client.submit("inventory.update", body, user=user, life=8 * hour)
    await client.submit("inventory.update", body, user=user)
    headers = [parse_header(parse_envelope(one.payload).header) for one in bus.stored("TASKS")]
    assert [(one.exp - one.iat) // SECOND for one in headers][0::2] == [day, hour]
    assert 8 * hour - 60 <= (headers[1].exp - headers[1].iat) // SECOND <= 8 * hour
    assert (headers[0].end or 0) - headers[0].iat == day * SECOND


async def test_a_client_takes_its_own_options_alone(bus: TestBus) -> None:
    client: Any = await bus.client("shop-web")
    with pytest.raises(TypeError, match="detached"):
        await client.submit("inventory.update", Update(item_id="1"), detached=True)
    with pytest.raises(TypeError, match="life"):
        await client.call("pricing.quote", Update(item_id="1"), returns=int, life=1)
    assert bus.stored("TASKS") == []
