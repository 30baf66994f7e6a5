"""A tool for a model is a message for its user: what it says of itself, and what the model is told of what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.refunds import Refunds, asked, refunds

from sealbus import Agent, CallExpired, Context
from sealbus.agents.adapters.bus_tool import APPROVAL_SECONDS, BusTool
from sealbus.agents.sdk.agent import Handler
from sealbus.envelopes.errors import BusUnavailable, Code, ConfigurationError, HandlingError, IdentityUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus


class Use(BaseModel):
    tool: str
    arguments: dict[str, Any]
    timeout: float = 30.0


def desk(beside: Refunds, agent: Agent) -> None:
    @agent.task("ask", retry=0)
    async def ask(body: Use, ctx: Context) -> str:
        tool: Handler[Any, Any] = beside.read if body.tool == "read" else beside.pay
        return await BusTool(tool, body.timeout).use(ctx, body.arguments)


async def used(
    bus: TestBus, tool: str, arguments: Mapping[str, Any], user: str = "alice", timeout: float = 30.0
) -> str:
    body = Use(tool=tool, arguments=dict(arguments), timeout=timeout)
    return str(await (await asked(bus, body, user)).result(str))


def test_a_tool_says_what_its_handler_says() -> None:
    beside = Refunds()
    read, pay = BusTool(beside.read, 1), BusTool(beside.pay, 1)
    assert (read.name, pay.name) == ("orders_read", "refunds_pay")
    assert read.description == "Look up an order.\n\nIt says what was bought."
    assert pay.description == "refunds.pay"
    assert pay.arguments.model_json_schema()["properties"]["cents"]["description"] == "how much to pay back"


async def test_it_asks_for_the_user_and_gives_the_answer_as_json() -> None:
    async with refunds(desk) as (beside, bus):
        assert await used(bus, "read", {"order_id": "1"}) == '"order 1: a cup"'
        assert await used(bus, "pay", {"order_id": "1", "cents": "50"}) == '{"cents":50}'
        assert (beside.users, beside.paid) == (["alice"], [50])
        [decided] = await bus.decisions("refunds.pay")
        assert decided.allow


async def test_a_denial_is_a_text_with_its_reasons() -> None:
    async with refunds(desk) as (beside, bus):
        said = await used(bus, "read", {"order_id": "1"}, "mallory")
        assert said == "orders.read: denied: the recipient's policy denies the call (not_owner)."
        said = await used(bus, "pay", {"order_id": "1", "cents": 50}, "mallory")
        assert said == "refunds.pay: denied: the other side's policy denies this (not_owner)."
        assert (beside.users, beside.paid) == ([], [])


async def test_what_waits_for_a_person_is_told_and_not_waited_for() -> None:
    async with refunds(desk) as (beside, bus):
        said = await used(bus, "pay", {"order_id": "1", "cents": 6_000})
        assert said.startswith("refunds.pay: waits for an approval until ")
        assert said.endswith(". It goes on by itself; asking again would do it again.")
        [waiting] = await bus.waiting()
        # People are away for days; without a word of it a task waits an hour.
        assert (APPROVAL_SECONDS - 3_600) * SECOND < waiting.until - waiting.since <= APPROVAL_SECONDS * SECOND
        beside.go.set()
        await bus.approve(waiting, "bob", acr="urn:example:silver")
        await bus.idle()
        assert beside.paid == [6_000]


async def test_what_takes_too_long_goes_on() -> None:
    async with refunds(desk) as (beside, bus):
        said = await used(bus, "pay", {"order_id": "1", "cents": 5_000}, timeout=0.2)
        assert said == "refunds.pay: not done within 0.2 s. It goes on by itself; asking again would do it again."
        beside.go.set()
        await bus.idle()
        assert beside.paid == [5_000]


async def test_a_rejection_is_told_with_its_note() -> None:
    async with refunds(desk) as (_, bus):
        said = await used(bus, "pay", {"order_id": "1", "cents": 13})
        assert said.startswith("refunds.pay: unlucky: ")
        assert said.endswith("(13 is never paid).")


async def test_arguments_that_do_not_fit_are_not_sent() -> None:
    async with refunds(desk) as (_, bus):
        said = await used(bus, "pay", {"cents": "a secret"})
        assert said == "refunds.pay: bad_body: does not fit at cents; lacks order_id."
        assert await bus.decisions("refunds.pay") == []


def denying_answers(document: dict[str, Any]) -> Verdict:
    name = document["action"]["name"]
    if name == "orders.read.reply":
        return deny("our_reason")
    if name == "refunds.pay":
        remedy = {"type": "remedy", "kind": "login", "acr": "urn:example:gold", "max_age": 60}
        return deny("weak_login", obligations=({"type": "show_reasons"}, remedy))
    return allow()


async def test_the_model_learns_what_would_help_and_nothing_of_our_own_policy() -> None:
    beside, agent = Refunds(), Agent("desk")
    desk(beside, agent)
    async with TestBus(agent, *beside.agents, engine=ScriptedEngine(denying_answers)) as bus:
        said = await used(bus, "pay", {"order_id": "1", "cents": 5})
        assert "(weak_login)" in said
        assert said.endswith('What would help: {"kind": "login", "acr": "urn:example:gold", "max_age": 60}.')
        said = await used(bus, "read", {"order_id": "1"})
        assert said == "orders.read: denied: our policy denies the answer to orders.read."


shop = Agent("shop")


@shop.call("names")
async def names(body: list[str], ctx: Context) -> AsyncIterator[str]:
    for one in body:
        yield one


@shop.task("sizes")
async def sizes(body: int, ctx: Context) -> AsyncIterator[int]:
    for one in range(body):
        yield one


@shop.call("forget")
async def forget(body: None, ctx: Context) -> None:
    return None


@shop.call("shown")
async def shown(body: Use, ctx: Context) -> str:
    return await BusTool(shop.handlers[f"{body.tool}"], 30.0).use(ctx, body.arguments)


absent = Agent("absent")


@absent.call("look")
async def look(body: str, ctx: Context) -> str:
    return body


async def test_values_and_parts_are_arguments_and_answers_too() -> None:
    shop.handlers.setdefault("absent", look)
    try:
        async with TestBus(shop, engine=ScriptedEngine()) as bus:
            client = await bus.client("web")
            for subject, value, answer in (
                ("call.shop.names", ["a", "b"], '["a","b"]'),
                ("task.shop.sizes", 3, "[0,1,2]"),
                ("call.shop.forget", None, "done"),
            ):
                body = Use(tool=subject, arguments={"value": value})
                assert await client.call("shop.shown", body, returns=str) == answer
    finally:
        del shop.handlers["absent"]


@pytest.mark.parametrize("error", [BusUnavailable("down"), IdentityUnavailable("none"), ConfigurationError("no")])
async def test_what_our_own_side_cannot_do_comes_out(error: Exception) -> None:
    with pytest.raises(type(error)):
        await BusTool(look, 1).use(failing(error), {"value": "x"})


async def test_cancellation_comes_out_and_a_silent_agent_is_told() -> None:
    with pytest.raises(HandlingError):
        await BusTool(look, 1).use(failing(HandlingError(Code.CANCELED)), {"value": "x"})
    with pytest.raises(asyncio.CancelledError):
        await BusTool(look, 1).use(failing(asyncio.CancelledError()), {"value": "x"})
    assert await BusTool(look, 1).use(failing(CallExpired("nobody")), {"value": "x"}) == "absent.look: expired: nobody."
    failed = HandlingError(Code.BAD_RESULT, "the answer does not fit at cents")
    assert "bad_result" in await BusTool(look, 1).use(failing(failed), {"value": "x"})


def failing(error: BaseException) -> Context:
    """Return a context whose calls raise this."""

    class Failing:
        async def call(self, *_: object, **__: object) -> object:
            raise error

    return cast("Context", Failing())


class Silent(BaseModel):
    text: str


odd = Agent("odd")


@odd.on("event.shop.changed")
async def changed(body: Silent, ctx: Context) -> None:
    return None


@odd.call("bytes")
async def taking_bytes(body: bytes, ctx: Context) -> str:
    return ""


@odd.call("given")
async def giving_bytes(body: str, ctx: Context) -> bytes:
    return b""


@odd.task("silent", status=False)
async def silent(body: Silent, ctx: Context) -> None:
    return None


@pytest.mark.parametrize("handler", [changed, taking_bytes, giving_bytes, silent])
def test_what_a_model_can_neither_ask_for_nor_read_is_no_tool(handler: Handler[Any, Any]) -> None:
    with pytest.raises(ConfigurationError, match=handler.action):
        BusTool(handler, 1)
