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

Out = TypeVar("Out")


def bus_tools(*actions: Handler[Any, Any], timeout: float = 30.0) -> list[Tool[Context]]:
    """Return declared calls and tasks as tools of a model that runs with the handler's context as `deps`.

    A tool's answer is a text, also for a denial, a wait for an approval or a failure (`BusTool.use`); one use takes at most
    `timeout` seconds. Raises `ConfigurationError` for an action that cannot be a tool.
    """
    return [_framework_tool(BusTool(action, timeout)) for action in actions]


def as_handler(model: AbstractAgent[Context, Out]) -> Callable[[str, Context], Coroutine[Any, Any, Out]]:
    """Return a handler body that asks the model: `ask = agent.task("ask", timeout=120)(as_handler(model))`.

    It takes the user's text and returns a value of the model's `output_type`, which has to be one type.
    """

    async def ask(text: str, ctx: Context) -> Any:
        return (await model.run(text, deps=ctx)).output

    if not isinstance(model.output_type, type):
        raise ConfigurationError("a model that answers a message has one type as its output_type")
    ask.__annotations__ |= {"text": str, "ctx": Context, "return": model.output_type}
    return ask


def as_streaming_handler(model: AbstractAgent[Context, str]) -> Callable[[str, Context], AsyncGenerator[str, None]]:
    """Return a handler body that answers in parts with all that the model writes, also between uses of its tools."""

    async def words(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        async with model.run_stream_events(text, deps=ctx) as events:
            async for event in events:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    yield event.part.content
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    yield event.delta.content_delta

    return in_pieces(words)


def _framework_tool(bus_tool: BusTool) -> Tool[Context]:
    schema = bus_tool.arguments.model_json_schema()

    async def use(run: RunContext[Context], /, **arguments: Any) -> str:
        return await bus_tool.use(run.deps, arguments)

    async def prepare(run: RunContext[Context], tool: ToolDefinition) -> ToolDefinition:
        return replace(tool, parameters_json_schema=schema)

    # Not `Tool.from_schema`: it unpacks any arguments of the model as keywords, and a non-object ends the run.
    return Tool(use, takes_ctx=True, name=bus_tool.name, description=bus_tool.description, prepare=prepare)
