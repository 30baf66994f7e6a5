"""LangGraph (extra `langgraph`): `ToolNode(bus_tools(read, pay))` in a graph, and `as_handler(graph)`.

The graph is compiled from a `StateGraph(MessagesState, context_schema=BusContext)`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.pregel import Pregel
from langgraph.runtime import get_runtime

from sealbus.agents.adapters.bus_tool import BusTool
from sealbus.agents.adapters.pieces import in_pieces
from sealbus.agents.sdk.agent import Handler
from sealbus.agents.sdk.context import Context

__all__ = ["BusContext", "as_handler", "as_streaming_handler", "bus_tools"]


@dataclass(frozen=True)
class BusContext:
    """The context of a graph's run, whose tools ask for the user of the message that `bus` handles."""

    bus: Context


Graph = Pregel[Any, BusContext, Any, Any]


def bus_tools(*actions: Handler[Any, Any], timeout: float = 30.0) -> list[BaseTool]:
    """Return declared calls and tasks as tools of a model, whose graph runs with a `BusContext`.

    A tool's answer is a text, also where it is denied, waits for an approval or fails (`BusTool.use`); it waits `timeout`
    seconds. Raises `ConfigurationError` for an action that cannot be a tool.
    """
    return [_tool(BusTool(one, timeout)) for one in actions]


def as_handler(graph: Graph) -> Callable[[str, Context], Coroutine[Any, Any, str]]:
    """Return a handler body that gives the graph a user's text and returns its last message's text.

    `ask = agent.task("ask", timeout=120)(as_handler(graph))`.
    """

    async def ask(text: str, ctx: Context) -> str:
        state = await graph.ainvoke(_asked(text), context=BusContext(ctx))
        return str(state["messages"][-1].text)

    return ask


def as_streaming_handler(graph: Graph) -> Callable[[str, Context], AsyncGenerator[str, None]]:
    """Return a handler body that gives all that the models say in parts, as they say it, also between uses of tools."""

    async def words(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        async for message, _ in graph.astream(_asked(text), context=BusContext(ctx), stream_mode="messages"):
            if isinstance(message, AIMessage):  # whole, or a part of one
                yield str(message.text)

    return in_pieces(words)


def _asked(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


def _tool(one: BusTool) -> BaseTool:
    async def use(**arguments: Any) -> str:
        return await one.use(get_runtime(BusContext).context.bus, arguments)

    return StructuredTool(
        name=one.name, description=one.description, args_schema=one.arguments.model_json_schema(), coroutine=use
    )
