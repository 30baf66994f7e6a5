"""The agent `console`: who may look at what, and cancel what, is decided and recorded as of any other agent.

The console's server asks it through the edge, with the access token of the person who looks: user, edge and action stand in
the record, and the deployment's policy decides. Whoever may use the console is, to the starter policy, who manages the
customer `console`.
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
"""The areas that a person may be let into; `decision` shows one with the values that its policy looked at."""

_WITHIN: Final = 10.0


class View(BaseModel):
    """Ask to see an area; `item` says what in it, if it is one thing."""

    area: Area
    item: str = Field(default="", max_length=256)


class Viewer(BaseModel):
    """Who may see it."""

    user: str
    idp: str


class Cancel(BaseModel):
    """Cancel somebody's task, whose action is `action`, for a reason that people are told."""

    handle: str = Field(max_length=4_096)
    action: str = Field(max_length=256)
    reason: str = Field(default="", max_length=200)


class Canceled(BaseModel):
    """The cancel is in force."""

    message: str


def console_agent(sender: Sender) -> Agent:
    """Return the agent. Cancels are sent by `sender`, as the console's own, once the console's policy has let the person.

    They name the person in their reason, and are decided again by the policy of the task's agent (`<agent>._cancel`).
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
        said = f"{ctx.user.sub}: {body.reason}" if body.reason else ctx.user.sub
        await sender.cancel(task, reason=said[:250], operator=True, timeout=_WITHIN)
        return Canceled(message=task.pending.id.hex())

    return agent
