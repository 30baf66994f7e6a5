"""pydantic-ai on the bus, with its own offline models: tools are messages for the user, and a model is a handler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent as Model
from pydantic_ai import ModelMessage, ModelResponse, RunContext, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from support.refunds import Refunds, asked, refunds

from sealbus import Agent, Context, RemoteError
from sealbus.agents.adapters.pydantic_ai import as_handler, as_streaming_handler, bus_tools
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

Desk = Callable[[Refunds, Agent], None]


class Sayings(BaseModel):
    orders_read: str
    refunds_pay: str


def desk(model: Any, output: Any = str) -> Desk:
    def declare(beside: Refunds, agent: Agent) -> None:
        tools = bus_tools(beside.read, beside.pay)
        asking = Model(model, deps_type=Context, output_type=output, tools=tools)
        agent.task("ask", retry=0)(as_handler(asking))

    return declare


def paying(cents: int) -> Callable[[list[ModelMessage], AgentInfo], ModelResponse]:
    """Return a model that pays once, and says what it was told."""

    def say(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        last = messages[-1].parts[-1]
        if isinstance(last, ToolReturnPart):
            return ModelResponse(parts=[TextPart(str(last.content))])
        return ModelResponse(parts=[ToolCallPart("refunds_pay", {"order_id": "1", "cents": cents})])

    return say


async def test_a_model_is_shown_the_actions_and_uses_them_for_the_user() -> None:
    seen: list[AgentInfo] = []

    def say(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        seen.append(info)
        return paying(50)(messages, info)

    async with refunds(desk(FunctionModel(say))) as (beside, bus):
        assert await (await asked(bus, "pay")).result() == '{"cents":50}'
        assert beside.paid == [50]
        read, pay = seen[0].function_tools
        assert (read.name, read.description) == ("orders_read", "Look up an order.\n\nIt says what was bought.")
        cents = pay.parameters_json_schema["properties"]["cents"]
        assert (cents["type"], cents["description"]) == ("integer", "how much to pay back")
        [decided] = await bus.decisions("refunds.pay")
        assert decided.allow


async def test_a_denial_does_not_end_the_run() -> None:
    async with refunds(desk(FunctionModel(paying(50)))) as (beside, bus):
        said = await (await asked(bus, "pay", "mallory")).result()
        assert said == "refunds.pay: denied: the other side's policy denies this (not_owner)."
        assert beside.paid == []
        await bus.assert_denied("refunds.pay", reason="not_owner")


async def test_the_models_own_test_model_uses_each_tool_and_answers_typed() -> None:
    """`TestModel` makes arguments from the schemas: order "a" belongs to mallory."""
    said = {"orders_read": "yes", "refunds_pay": "no"}
    async with refunds(desk(TestModel(custom_output_args=said), Sayings)) as (beside, bus):
        handle = await asked(bus, "all", "mallory")
        assert await handle.result(Sayings) == Sayings.model_validate(said)
        assert beside.users == ["mallory"]
        assert beside.paid == [0]


async def test_arguments_that_are_no_object_do_not_end_the_run() -> None:
    def say(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return ModelResponse(parts=[TextPart("sorry")])
        return ModelResponse(parts=[ToolCallPart("orders_read", "[1]"), ToolCallPart("orders_read", {"run": 1})])

    async with refunds(desk(FunctionModel(say))) as (_, bus):
        assert await (await asked(bus, "read")).result() == "sorry"


async def test_canceling_the_question_ends_the_run_and_what_it_asked_for() -> None:
    async with refunds(desk(FunctionModel(paying(5_000)))) as (beside, bus):
        handle = await asked(bus, "pay")
        await beside.began.wait()
        await handle.cancel("enough")
        with pytest.raises(RemoteError) as ended:
            await handle.result()
        assert ended.value.code == "canceled"
        await bus.idle()
        assert (beside.canceled, beside.paid) == ([5_000], [])


async def test_what_our_own_side_cannot_do_ends_the_run() -> None:
    def declare(beside: Refunds, agent: Agent) -> None:
        async def broken(run: RunContext[Context]) -> str:
            raise BusUnavailable("down")

        asking = Model(TestModel(), deps_type=Context, tools=[broken])
        agent.task("ask", retry=0)(as_handler(asking))

    async with refunds(declare) as (_, bus):
        with pytest.raises(RemoteError) as failed:
            await (await asked(bus, "pay")).result()
        assert failed.value.code == "handler_failed"


async def test_what_a_model_says_comes_in_parts_also_before_it_uses_a_tool() -> None:
    async def say(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        if len(messages) == 1:
            yield "I look. "
            yield {1: DeltaToolCall("orders_read", '{"order_id": "1"}', tool_call_id="t")}
            return
        for word in str(messages[-1].parts[-1].content).split(" ") * 20:  # type: ignore[union-attr]  # a text
            yield f"{word} "

    def declare(beside: Refunds, agent: Agent) -> None:
        asking = Model(FunctionModel(stream_function=say), deps_type=Context, tools=bus_tools(beside.read))
        agent.task("ask", retry=0)(as_streaming_handler(asking))

    async with refunds(declare) as (beside, bus):
        handle = await asked(bus, "read")
        parts = [one.value async for one in handle.parts(str)]
        assert "".join(parts) == "I look. " + '"order 1: a cup" ' * 20
        assert beside.users == ["alice"]
        assert len(parts) == 3


def test_a_model_whose_answer_is_no_type_is_no_handler() -> None:
    model: Model[Context, Any] = Model(TestModel(), deps_type=Context, output_type=[str, Sayings])
    with pytest.raises(ConfigurationError):
        as_handler(model)


async def test_a_handler_made_of_a_model_is_called_like_one() -> None:
    model = Model(TestModel(custom_output_text="yes"), deps_type=Context)
    body: Callable[[str, Context], Coroutine[Any, Any, str]] = as_handler(model)
    handler = Agent("desk").call("ask")(body)
    assert (handler.takes.type, handler.gives.type) == (str, str)
