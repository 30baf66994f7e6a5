"""An agent whose handlers tell everything they know to whoever asks, in answers and in errors: others must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from support.backstage import in_development

from sealbus.agents.dev.demo.stage import STRANGER, Stage
from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.resource import Resource
from sealbus.envelopes.errors import ConfigurationError, ResourceNotFound

__all__ = ["Told", "Wanted", "granted", "loose_agent"]


class Told(BaseModel):
    """A body with room for a secret."""

    text: str
    label: str = ""


class Wanted(BaseModel):
    """What `Told` does not fit."""

    text: int


def loose_agent(secret: Callable[[str], str]) -> Agent:
    """Return the agent; `secret` gives what its errors tell, by the name of the handler."""
    agent = Agent(STRANGER)

    async def missing(body: Told) -> Resource:
        raise LookupError(secret("loader") + body.text)

    async def absent(body: Told) -> Resource:
        del body
        raise ResourceNotFound(secret("absent item"))

    @agent.call("echo")
    async def echo(body: Told, ctx: Context) -> Told:
        del ctx
        return body

    @agent.task("noted", facts=["label"])
    async def noted(body: Told, ctx: Context) -> Told:
        await ctx.emit("noted", body)
        return body

    @agent.task("explode", retry=0)
    async def explode(body: Told, ctx: Context) -> None:
        del ctx
        raise RuntimeError(secret("task") + body.text)

    @agent.call("burst")
    async def burst(body: Told, ctx: Context) -> Told:
        del ctx
        raise RuntimeError(secret("call") + body.text)

    @agent.call("own")
    async def own(body: Told, ctx: Context) -> Told:
        del ctx
        raise ConfigurationError(body.text)

    @agent.call("misfit")
    async def misfit(body: Told, ctx: Context) -> Wanted:
        del ctx
        return Wanted.model_construct(text=body.text)

    @agent.call("gone", resource=absent)
    async def gone(body: Told, ctx: Context) -> Told:
        del ctx
        return body

    @agent.call("lost", resource=missing)
    async def lost(body: Told, ctx: Context) -> Told:
        del ctx
        return body

    return agent


async def granted(agent: Agent, stage: Stage, *callers: str) -> None:
    """Have the stage's policy allow the agent's actions to it and to `callers`; to others they stay unknown."""
    open_to_all = {"user": "none", "resource": "any", "limits": {}, "hours": False}
    asked = {one.action for one in agent.handlers.values()}
    actions = sorted(asked | {f"{action}.reply" for action in asked})

    def known(registry: dict[str, object]) -> None:
        registry.update(dict.fromkeys(actions, open_to_all))

    def permitted(registry: dict[str, object]) -> None:
        names = in_development(stage).environment.names
        for name in (agent.name, *callers):
            entry: Any = registry.setdefault(names.id_of(name).value, {"actions": {}})
            entry["actions"].update(dict.fromkeys(actions, True))

    await stage.backstage.change_data("actions", known)
    await stage.backstage.change_data("agents", permitted)
