"""`sealbus task ls`: the newest tasks with their states, each verified as far as that is possible now."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import click

from sealbus.agents.cli.options import Moment, agent_option, as_option, config_option, json_option, workload_named
from sealbus.agents.cli.output import note, print_json, printable, shown_time

if TYPE_CHECKING:
    from sealbus.bus.inspection.tasks import ListedTask, TaskFilter

__all__ = ["as_document", "as_line", "ls"]

_STATES: Final = (
    "submitted", "working", "input-required", "completed", "failed", "rejected", "canceled", "expired",
)  # fmt: skip
"""Those of `bus.sending.status`, and that of a task without a status; written out, because `--help` imports no bus."""


@click.command("ls")
@agent_option("Only tasks for this agent")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(_STATES),
    help="Only tasks in this state; may be given several times.",
)
@click.option("--user", default=None, metavar="ID", help="Only tasks for this user.")
@click.option(
    "--older",
    type=Moment(),
    default=None,
    metavar="TIME",
    help="Stored before this time: RFC 3339, or 10m, 2h, 1d ago.",
)
@click.option("--newer", type=Moment(), default=None, metavar="TIME", help="Stored at this time or later.")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many to show, the newest first."
)
@config_option
@as_option("operator")
@json_option
def ls(
    agent: str | None,
    states: tuple[str, ...],
    user: str | None,
    older: int | None,
    newer: int | None,
    limit: int,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """List the newest tasks of the last 24 hours, whoever sent them, with their states.

    Agent, sender and user are what the stored task says. It is verified as its agent verifies it, as of its stored time, and
    marked UNVERIFIED with a code if that fails. The state is the newest status that its agent sealed for it: `submitted` if
    there is none yet, `expired` if its end has passed without a final one. Statuses that do not verify are named, and change
    no state.

    Not verified: that the list is complete (a broker can withhold what it stored), stored times, which are the broker's, and
    revocations. Only the trust bundles of now are known: what a key signed that has left them is unknown_key. Results are not
    shown; what was decided, and why, is in the audit stream (sealbus audit replay --message ID). Calls are not stored.
    """
    from sealbus.bus.inspection.tasks import TaskFilter

    wanted = TaskFilter(states=frozenset(states), user=user, since=newer or 0, before=older)
    asyncio.run(_list(agent, wanted, limit, config, as_name, as_json=as_json))


async def _list(
    agent: str | None, wanted: TaskFilter, limit: int, config: str | None, as_name: str, *, as_json: bool
) -> None:
    from sealbus.agents.runtime.open import open_connection, open_key_book, reading_profile
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.inspection.tasks import TaskList, task_subjects
    from sealbus.bus.nats.api import existing_stream
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.stream_names import TASKS
    from sealbus.bus.streams.held import current_only
    from sealbus.bus.streams.key_book import nothing_restored
    from sealbus.envelopes.trust.bundles import Trust

    settings = load_settings(config).for_command()
    of = workload_named(settings.names, agent)
    async with open_connection(as_name, settings) as (identity, connection):
        profile = reading_profile(settings, identity.spiffe_id)
        state = await existing_stream(connection.jetstream, TASKS)
        transport = NatsTransport(connection)
        book = open_key_book(settings, identity, transport)
        tasks = TaskList(
            transport=transport,
            profile=profile,
            trust=lambda: Trust(bundles=identity.bundles()),
            past=book or current_only,
            restored=book or nothing_restored,
        )
        found = tasks.newest(task_subjects(profile, of), wanted, first=state.first, last=state.last, most=limit)
        async with aclosing(found) as listed:
            async for one in listed:
                if as_json:
                    print_json(as_document(one))
                else:
                    click.echo(printable(as_line(one)))
    if tasks.unreadable:
        note(f"{tasks.unreadable} messages on these subjects are no tasks: no agent handles them")


def as_document(task: ListedTask) -> dict[str, object]:
    """Return one task as the JSON object that `--json` prints."""
    header = task.header
    return {
        "message": header.id.hex(),
        "hash": header.digest.hex(),
        "handle": _handle(task),
        "subject": header.to,
        "action": task.action,
        "agent": str(header.aud or ""),
        "from": str(header.iss),
        "user": task.user,
        "root": header.par is None,
        "verified": not task.refused,
        "refused": task.refused,
        "time": shown_time(task.stored),
        "until": shown_time(header.exp),
        "sequence": task.sequence,
        "state": task.told.state,
        "code": task.told.code,
        "reasons": list(task.told.reasons),
        "note": task.told.note,
        "by": task.told.by,
        "unverified_statuses": list(task.told.unverified),
    }


def _handle(task: ListedTask) -> str:
    """Return the handle of a task, by which an operator may cancel it; empty for one that is no agent's work."""
    from sealbus.agents.sdk.task_handle import handle_text
    from sealbus.bus.gate.status_reader import AskedTask
    from sealbus.envelopes.accept.open_request import PendingRequest

    if task.refused or not task.action:
        return ""
    return handle_text(AskedTask(pending=PendingRequest.of(task.header), action=task.action))


def as_line(task: ListedTask) -> str:
    """Return one task as one line for people."""
    header, told = task.header, task.told
    said = [told.code, ", ".join(told.reasons), f"by {told.by}" if told.by else "", told.note]
    if told.unverified:
        said.append(f"UNVERIFIED STATUS: {', '.join(told.unverified)}")
    if task.refused:
        said.append(f"UNVERIFIED: {task.refused}")
    return (
        f"{shown_time(task.stored)} {header.id.hex()} {told.state:<14} {task.action or header.to:<24} "
        f"from {header.iss.path:<20} for {task.user or '-':<10} {'  '.join(one for one in said if one)}"
    ).rstrip()
