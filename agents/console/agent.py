"""The agent `console`: its policy decides which person may see or cancel something, and each decision is recorded.

The console's server calls this agent through the edge, with the access token of the person who looks. So user, edge and
action are in the record. The starter policy lets a person use the console who manages the customer `console`.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, Field

from sealbus.agents.sdk.agent import Agent
from sealbus.agents.sdk.context import Context
from sealbus.agents.sdk.resource import Resource
from sealbus.agents.sdk.sender import Sender
from sealbus.agents.sdk.task_handle import parse_handle
from sealbus.bus.routing.retry import Reject
from sealbus.envelopes.errors import EnvelopeError

CONSOLE: Final = "console"
"""The name of the agent, and of the workload."""

Area = Literal[
    "live", "decisions", "decision", "tasks", "approvals", "dead", "schedules", "agents", "policy", "log", "what_if"
]
"""The areas that a person may see. `decision` shows one decision with the values that its policy looked at."""

_WITHIN: Final = 10.0


class View(BaseModel):
    """Ask to see an area, or one `item` of it."""

    area: Area
    item: str = Field(default="", max_length=256)


class Viewer(BaseModel):
    """The person who may see it."""

    user: str
    idp: str


class Cancel(BaseModel):
    """Cancel a task of any requester. `action` is the task's; people see `reason` with the task's status."""

    handle: str = Field(max_length=4_096)
    action: str = Field(max_length=256)
    reason: str = Field(default="", max_length=200)


class Canceled(BaseModel):
    """The cancel is in force."""

    message: str


def console_agent(sender: Sender) -> Agent:
    """Return the agent. When the console's policy allows a cancel, `sender` sends it as the console's own.

    Its reason names the person. The policy of the task's agent decides about the cancel again (`<agent>._cancel`).
    """
    agent = Agent(CONSOLE)

    async def place(body: View | Cancel) -> Resource:
        return Resource("console", body.area if isinstance(body, View) else "tasks", customer=CONSOLE, owner="")

    @agent.call("view", resource=place, facts=["area", "item"], timeout=_WITHIN)
    async def view(body: View, ctx: Context) -> Viewer:
        """Let the user behind the call see an area."""
        del body
        if ctx.user is None:
            raise Reject("no_user")
        return Viewer(user=ctx.user.sub, idp=ctx.user.idp)

    @agent.call("cancel", resource=place, facts=["action", "reason"], timeout=_WITHIN)
    async def cancel(body: Cancel, ctx: Context) -> Canceled:
        """Cancel a task as an operator, for the user behind the call."""
        if ctx.user is None:
            raise Reject("no_user")
        try:
            task = parse_handle(body.handle)
        except EnvelopeError as error:
            raise Reject("no_handle") from error
        if task.action != body.action:
            raise Reject("other_action")
        reason = f"{ctx.user.sub}: {body.reason}" if body.reason else ctx.user.sub
        await sender.cancel(task, reason=reason[:250], operator=True, timeout=_WITHIN)
        return Canceled(message=task.pending.id.hex())

    return agent
