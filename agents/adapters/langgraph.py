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


@dataclass(frozen=True)
class BusContext:
    """The context of a graph's run, whose tools ask for the user of the message that `bus` handles."""

    bus: Context


Graph = Pregel[Any, BusContext, Any, Any]


def bus_tools(*actions: Handler[Any, Any], timeout: float = 30.0) -> list[BaseTool]:
    """Return declared calls and tasks as tools of a model, whose graph runs with a `BusContext`.

    A tool's answer is a text, also for a denial, a wait for an approval or a failure (`BusTool.use`); one use takes at most
    `timeout` seconds. Raises `ConfigurationError` for an action that cannot be a tool.
    """
    return [_framework_tool(BusTool(action, timeout)) for action in actions]


def as_handler(graph: Graph) -> Callable[[str, Context], Coroutine[Any, Any, str]]:
    """Return a handler body that gives the graph a user's text and returns its last message's text.

    `ask = agent.task("ask", timeout=120)(as_handler(graph))`.
    """

    async def ask(text: str, ctx: Context) -> str:
        state = await graph.ainvoke(_user_message(text), context=BusContext(ctx))
        return str(state["messages"][-1].text)

    return ask


def as_streaming_handler(graph: Graph) -> Callable[[str, Context], AsyncGenerator[str, None]]:
    """Return a handler body that answers in parts with all that the models write, also between uses of tools."""

    async def words(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        async for message, _ in graph.astream(_user_message(text), context=BusContext(ctx), stream_mode="messages"):
            if isinstance(message, AIMessage):  # a whole message, or a part of it
                yield str(message.text)

    return in_pieces(words)


def _user_message(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


def _framework_tool(tool: BusTool) -> BaseTool:
    async def use(**arguments: Any) -> str:
        return await tool.use(get_runtime(BusContext).context.bus, arguments)

    return StructuredTool(
        name=tool.name, description=tool.description, args_schema=tool.arguments.model_json_schema(), coroutine=use
    )
