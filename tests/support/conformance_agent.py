"""Tools with the names that the conformance suite of MCP asks for, as far as an action can be such a tool."""

from __future__ import annotations

from pydantic import BaseModel

from sealbus import Agent, Context

__all__ = ["agent"]

agent = Agent("test")


class Nothing(BaseModel):
    """No arguments."""


@agent.call("simple_text")
async def simple_text(body: Nothing, ctx: Context) -> str:
    """Say something."""
    return "This is a simple text response for testing."


@agent.call("error_handling")
async def error_handling(body: Nothing, ctx: Context) -> str:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


@agent.task("tool_with_progress", retry=0)
async def tool_with_progress(body: Nothing, ctx: Context) -> str:
    """Tell how far it is."""
    for percent in (0, 50, 100):
        await ctx.progress(f"{percent} %")
    return "done"
