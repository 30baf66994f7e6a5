"""`sealbus agent ls`: the agents, from their consumers at the broker and the policy in force.

And `sealbus agent schema`: the JSON schemas of an agent's tasks and calls, from its code.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import FILE, Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json, renamed
from sealbus.agents.files import file_errors
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.inspection.agents import AgentSeen, Queue
    from sealbus.bus.inspection.documents import QueueDocument
    from sealbus.bus.nats.connection.connection import Connection


@click.group("agent")
def command() -> None:
    """List agents, or print the schemas of an agent."""


@command.command("ls")
@invocation_options("operator")
async def ls(invocation: Invocation) -> None:
    """List agents with their processes, the messages that wait for them, and the messages that they have in hand.

    Agents do not register themselves: everything here is from the consumers that they have at the broker. A process is
    counted by its pull request, and for up to 5 seconds after it was killed. `ready`: there is a process. `full`: it gets no
    more messages before it has settled some. `away`: there is no process, and messages wait. `unknown`: the policy declares
    actions for the agent, which was never there.

    Not known here: which verbs an agent handles (the actions are those that the starter policy declares for it), calls under
    way, and the health of a process that asks for work, which its /readyz reports. Nothing here is signed.
    """
    for agent in await seen(invocation.as_name, invocation.settings()):
        if invocation.as_json:
            print_json(as_document(agent))
        else:
            for line in as_lines(agent):
                click.echo(printable(line))


@command.command("schema")
@click.argument("target", metavar="MODULE:AGENT")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Write it to FILE.")
def schema(target: str, output: Path | None) -> None:
    """Print the JSON schemas of an agent's tasks and calls, for the edge's setting edge.schemas.

    AGENT in MODULE (a dotted name, or a file such as app.py) is loaded as `sealbus worker run` does, and not run.
    """
    from sealbus.agents.cli.run.worker import load_agent
    from sealbus.agents.sdk.schema import AgentSchema

    text = AgentSchema.of(load_agent(target)).text()
    if output is None:
        click.echo(text, nl=False)
        return
    with file_errors(f"{output}"):
        output.write_text(text, encoding="utf-8")


async def seen(as_name: str, settings: Settings) -> list[AgentSeen]:
    """Return the agents that the workload `as_name` finds at the broker. Raises as `open_connection` does."""
    from sealbus.agents.runtime.open import deployment_of, open_connection
    from sealbus.bus.inspection.agents import find_agents

    async with open_connection(as_name, settings) as (_, connection):
        actions = await _actions(as_name, settings, connection)
        own = deployment_of(settings).own_subjects
        return await find_agents(connection.jetstream, actions, names=settings.names, own=own)


async def _actions(name: str, settings: Settings, connection: Connection) -> dict[str, tuple[str, ...]]:
    """Return the actions that the policy in force declares. Print a note and return none if it cannot be read."""
    from sealbus.agents.runtime.policy.source import open_source
    from sealbus.bus.inspection.agents import actions_of
    from sealbus.envelopes.errors import ConfigurationError

    try:
        async with open_source(name, settings.policy, connection) as source:
            bundle = source.in_force.bundle
    except ConfigurationError as error:
        note(f"no actions are shown: {error.detail}")
        return {}
    return actions_of(bundle.data if bundle is not None else None)


def as_document(agent: AgentSeen) -> dict[str, object]:
    """Return one agent as the JSON object that `--json` prints."""
    document = agent.document()
    queues = {"tasks": _queue(document["tasks"]), "events": _queue(document["events"])}
    return renamed({**document, **queues}, name="agent")


def _queue(queue: QueueDocument | None) -> dict[str, object] | None:
    if queue is None:
        return None
    return renamed({**queue, "active": queue["active"] or ""}, active="last_delivered")


def as_lines(agent: AgentSeen) -> list[str]:
    """Return one agent as lines for people."""
    count = f"{agent.processes} process" + ("" if agent.processes == 1 else "es")
    queues = [
        f"{name} {_queue_text(queue)}" for name, queue in (("tasks", agent.tasks), ("events", agent.events)) if queue
    ]
    lines = [f"{agent.token:<20} {agent.state:<8} {count:<13} {'; '.join(queues)}".rstrip()]
    if agent.actions:
        lines.append(f"  actions {', '.join(agent.actions)}")
    if agent.listens:
        lines.append(f"  listens {', '.join(agent.listens)}")
    return lines


def _queue_text(queue: Queue) -> str:
    active = f", last delivered {shown_time(queue.active)}" if queue.active else ""
    again = f", {queue.redelivered} of these again" if queue.redelivered else ""
    return f"{queue.waiting} waiting, {queue.in_hand} in hand{again}{active}"
