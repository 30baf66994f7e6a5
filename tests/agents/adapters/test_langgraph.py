"""LangGraph on the bus, with offline models of langchain-core: tools are messages for users, and a graph is a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from support.refunds import Refunds, asked, refunds

from sealbus import Agent, Context, RemoteError
from sealbus.agents.adapters.langgraph import BusContext, as_handler, as_streaming_handler, bus_tools
from sealbus.envelopes.errors import BusUnavailable

Desk = Callable[[Refunds, Agent], None]


def call(name: str, **arguments: Any) -> AIMessage:
    return AIMessage("", tool_calls=[ToolCall(name=name, args=arguments, id="t", type="tool_call")])


def graph(tools: Sequence[BaseTool], *says: AIMessage, told: list[str] | None = None) -> Any:
    """Return a graph whose model says these messages in each run; what its tools answered is put into `told`."""

    async def speak(state: MessagesState) -> dict[str, list[BaseMessage]]:
        said = state["messages"]
        if told is not None:
            told.extend(str(one.text) for one in said[-1:] if isinstance(one, ToolMessage))
        next_one = says[sum(isinstance(one, AIMessage) for one in said)]
        # The offline model that streams leaves out tool calls.
        model = GenericFakeChatModel(messages=iter([next_one]), disable_streaming=bool(next_one.tool_calls))
        return {"messages": [await model.ainvoke(said)]}

    drawn = StateGraph(MessagesState, context_schema=BusContext)
    drawn.add_node("model", speak)
    drawn.add_node("tools", ToolNode(tools))
    drawn.add_edge(START, "model")
    drawn.add_conditional_edges("model", tools_condition)
    drawn.add_edge("tools", "model")
    return drawn.compile()


def desk(told: list[str], *says: AIMessage) -> Desk:
    def declare(beside: Refunds, agent: Agent) -> None:
        tools = bus_tools(beside.read, beside.pay)
        agent.task("ask", retry=0)(as_handler(graph(tools, *says, told=told)))

    return declare


def test_a_model_is_shown_the_actions() -> None:
    beside = Refunds()
    read, pay = bus_tools(beside.read, beside.pay)
    assert (read.name, read.description) == ("orders_read", "Look up an order.\n\nIt says what was bought.")
    assert (pay.name, pay.args["cents"]["description"]) == ("refunds_pay", "how much to pay back")


async def test_a_model_uses_actions_for_the_user() -> None:
    told: list[str] = []
    async with refunds(desk(told, call("refunds_pay", order_id="1", cents=50), AIMessage("done"))) as (beside, bus):
        assert await (await asked(bus, "pay")).result() == "done"
        assert (beside.paid, told) == ([50], ['{"cents":50}'])
        await bus.assert_allowed("refunds.pay")


async def test_a_denial_and_wrong_arguments_do_not_end_the_run() -> None:
    told: list[str] = []
    says = call("refunds_pay", order_id="1", cents=50), call("refunds_pay", cents="much"), AIMessage("sorry")
    async with refunds(desk(told, *says)) as (beside, bus):
        assert await (await asked(bus, "pay", "mallory")).result() == "sorry"
        assert told[0] == "refunds.pay: denied: the other side's policy denies this (not_owner)."
        assert told[1] == "refunds.pay: bad_body: does not fit at cents; lacks order_id."
        assert beside.paid == []
        await bus.assert_denied("refunds.pay", reason="not_owner")


async def test_canceling_the_question_ends_the_run_and_what_it_asked_for() -> None:
    async with refunds(desk([], call("refunds_pay", order_id="1", cents=5_000), AIMessage("done"))) as (beside, bus):
        handle = await asked(bus, "pay")
        await beside.began.wait()
        await handle.cancel("enough")
        with pytest.raises(RemoteError) as ended:
            await handle.result()
        assert ended.value.code == "canceled"
        await bus.idle()
        assert (beside.canceled, beside.paid) == ([5_000], [])


async def test_what_our_own_side_cannot_do_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> None:
        raise BusUnavailable("down")

    monkeypatch.setattr(Context, "submit", down)
    told: list[str] = []
    async with refunds(desk(told, call("refunds_pay", order_id="1", cents=50), AIMessage("done"))) as (_, bus):
        with pytest.raises(RemoteError) as failed:
            await (await asked(bus, "pay")).result()
        assert (failed.value.code, told) == ("handler_failed", [])


async def test_two_questions_at_a_time_are_each_for_their_own_user() -> None:
    async with refunds(desk([], call("orders_read", order_id="1"), AIMessage("done"))) as (_, bus):
        handles = [await asked(bus, "read", user) for user in ("alice", "mallory")]
        await asyncio.gather(*[one.result() for one in handles])
        decided = {(one.allow, one.reasons) for one in await bus.decisions("orders.read")}
        assert decided == {(True, ()), (False, ("not_owner",))}


async def test_what_a_model_says_comes_in_parts_also_before_it_uses_a_tool() -> None:
    def declare(beside: Refunds, agent: Agent) -> None:
        first = AIMessage("I look. ", tool_calls=call("orders_read", order_id="1").tool_calls)
        drawn = graph(bus_tools(beside.read), first, AIMessage("It is a cup. " * 20))
        agent.task("ask", retry=0)(as_streaming_handler(drawn))

    async with refunds(declare) as (beside, bus):
        handle = await asked(bus, "read")
        parts = [one.value async for one in handle.parts(str)]
        assert "".join(parts) == "I look. " + "It is a cup. " * 20
        assert beside.users == ["alice"]
        assert len(parts) == 3
