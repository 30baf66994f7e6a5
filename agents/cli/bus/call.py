"""`sealbus call ACTION BODY`: call an action and print its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.body_argument import json_body
from sealbus.agents.cli.options import Invocation, invocation_options
from sealbus.agents.cli.output import print_json
from sealbus.agents.cli.person.on_behalf import OnBehalf, user_options

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings


_LOOKING = 3.0
"""Seconds for finding out whether the agent is there."""


@click.command("call")
@click.argument("action")
@click.argument("body")
@user_options
@click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1, 60), help="Seconds.")
@click.option("--chunks", is_flag=True, help="Print each chunk of the answer as it comes.")
@invocation_options(json_help="Accepted as everywhere; answers are always JSON.")
async def command(
    action: str, body: str, on_behalf: OnBehalf, timeout: float, chunks: bool, invocation: Invocation
) -> None:
    """Call ACTION (<agent>.<verb>, or call.<agent>.<verb>) with BODY (JSON, or - for standard input)."""
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.bodies import JSON
    from sealbus.bus.sending.answer import NoListener
    from sealbus.bus.sending.message import Content

    action, content = action.removeprefix("call."), Content(body=json_body(body), typ=JSON)
    settings = invocation.settings()
    token = await on_behalf.token(settings)
    try:
        async with Client(invocation.as_name, settings=settings) as bus:
            statement = await bus.user_context(token) if token is not None else None
            if chunks:
                async for chunk in bus.stream(action, content, returns=object, user=statement, timeout=timeout):
                    print_json(chunk)
            else:
                print_json(await bus.call(action, content, returns=object, user=statement, timeout=timeout))
    except NoListener as error:
        # Only operators may know which agents there are. Where `sealbus dev` runs, the developer is the operator.
        if settings.development and (hint := await _agent_hint(action.partition(".")[0], settings)):
            raise NoListener(f"{error.detail}\n{hint}") from error
        raise


async def _agent_hint(token: str, settings: Settings) -> str:
    """Return a line about the called agent, as an operator sees it; empty if it cannot be read."""
    from sealbus.agents.cli.bus.agent import seen
    from sealbus.envelopes.errors import SealbusError

    try:
        async with asyncio.timeout(_LOOKING):
            agents = {agent.token: agent for agent in await seen("operator", settings)}
    except (SealbusError, TimeoutError):
        return ""
    if token not in agents:
        return f"no agent {token} is known; there is {', '.join(agents) or 'none'}"
    agent = agents[token]
    declared = f"; the policy declares for it {', '.join(agent.actions)}" if agent.actions else ""
    return f"{token} {'runs' if agent.processes else 'does not run'} now{declared}"
