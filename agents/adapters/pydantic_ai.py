"""pydantic-ai (extra `pydantic-ai`): `Model(..., deps_type=Context, tools=bus_tools(read, pay))`, and `as_handler(model)`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from pydantic_ai import PartDeltaEvent, PartStartEvent, RunContext, TextPart, TextPartDelta, Tool, ToolDefinition
from pydantic_ai.agent import AbstractAgent

from sealbus.agents.adapters.bus_tool import BusTool
from sealbus.agents.adapters.pieces import in_pieces
from sealbus.agents.sdk.agent import Handler
from sealbus.agents.sdk.context import Context
from sealbus.envelopes.errors import ConfigurationError

__all__ = ["as_handler", "as_streaming_handler", "bus_tools"]

Out = TypeVar("Out")


def bus_tools(*actions: Handler[Any, Any], timeout: float = 30.0) -> list[Tool[Context]]:
    """Return declared calls and tasks as tools of a model that runs with the handler's context as `deps`.

    A tool's answer is a text, also where it is denied, waits for an approval or fails (`BusTool.use`); it waits `timeout`
    seconds. Raises `ConfigurationError` for an action that cannot be a tool.
    """
    return [_tool(BusTool(one, timeout)) for one in actions]


def as_handler(model: AbstractAgent[Context, Out]) -> Callable[[str, Context], Coroutine[Any, Any, Out]]:
    """Return a handler body that asks the model: `ask = agent.task("ask", timeout=120)(as_handler(model))`.

    It takes the user's text and gives what the model's `output_type` says, which has to be one type.
    """

    async def ask(text: str, ctx: Context) -> Any:
        return (await model.run(text, deps=ctx)).output

    if not isinstance(model.output_type, type):
        raise ConfigurationError("a model that answers a message has one type as its output_type")
    ask.__annotations__ |= {"text": str, "ctx": Context, "return": model.output_type}
    return ask


def as_streaming_handler(model: AbstractAgent[Context, str]) -> Callable[[str, Context], AsyncGenerator[str, None]]:
    """Return a handler body that gives all that the model says in parts, as it says it, also between uses of its tools."""

    async def words(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        async with model.run_stream_events(text, deps=ctx) as events:
            async for event in events:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    yield event.part.content
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    yield event.delta.content_delta

    return in_pieces(words)


def _tool(one: BusTool) -> Tool[Context]:
    schema = one.arguments.model_json_schema()

    async def use(run: RunContext[Context], /, **arguments: Any) -> str:
        return await one.use(run.deps, arguments)

    async def shown(run: RunContext[Context], tool: ToolDefinition) -> ToolDefinition:
        return replace(tool, parameters_json_schema=schema)

    # Not `Tool.from_schema`: it takes whatever a model gives for keywords, and arguments that are no object end the run.
    return Tool(use, takes_ctx=True, name=one.name, description=one.description, prepare=shown)
