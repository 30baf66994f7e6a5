"""`sealbus task ls`: the newest tasks with their states, each verified with the current trust bundles."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Final

import click

from sealbus.agents.cli.merging import merged
from sealbus.agents.cli.options import (
    Invocation,
    Moment,
    agent_option,
    invocation_options,
    limit_option,
    workload_named,
)
from sealbus.agents.cli.output import note, print_json
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sealbus.bus.inspection.documents import TaskDocument
    from sealbus.bus.inspection.tasks import ListedTask


_STATES: Final = (
    "submitted", "working", "input-required", "completed", "failed", "rejected", "canceled", "expired",
)  # fmt: skip
"""States of `bus.sending.status`, and that of a task without a status. Written out, because `--help` imports no bus."""


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
@limit_option
@invocation_options("operator", several=True)
async def ls(
    agent: str | None,
    states: tuple[str, ...],
    user: str | None,
    older: int | None,
    newer: int | None,
    limit: int,
    invocation: Invocation,
) -> None:
    """List the newest tasks of the last 24 hours, of all senders, with their states.

    Agent, sender and user are those in the stored task. The task is verified as its agent verifies it, as of its stored time,
    and marked UNVERIFIED with a code if that fails. The state is the newest status that the agent sealed for it: `submitted`
    without a status, `expired` if the task's end has passed without a final status. Statuses that do not verify are named,
    and change no state.

    Not verified: that the list is complete (a broker can withhold messages), stored times, which are the broker's, and
    revocations. Only the current trust bundles are known: if a key has left them, the code is unknown_key. Results are not
    shown. Decisions and reasons are in the audit stream (sealbus audit replay --message ID). Calls are not stored.

    Where there are cells, an identity reads its own. With --as several times, once for each cell, the tasks of all of them
    are one list, with the statuses that are stored in another of them; each line begins with the identity that read it.
    """
    from sealbus.agents.runtime.open import open_connection, open_key_book, reading_profile
    from sealbus.bus.inspection.tasks import TaskFilter, TaskList
    from sealbus.bus.nats.transport import NatsTransport
    from sealbus.bus.streams.held import current_only
    from sealbus.bus.streams.key_book import nothing_restored
    from sealbus.envelopes.trust.bundles import Trust

    wanted = TaskFilter(states=frozenset(states), user=user, since=newer or 0, before=older)
    settings = invocation.settings()
    receiver = workload_named(settings.names, agent)
    async with AsyncExitStack() as stack:
        opened = {
            name: await stack.enter_async_context(open_connection(name, settings)) for name in invocation.as_names
        }
        transports = {name: NatsTransport(connection) for name, (_, connection) in opened.items()}
        lists: dict[str, TaskList] = {}
        sources: dict[str, AsyncGenerator[ListedTask, None]] = {}
        for name, (identity, connection) in opened.items():
            book = open_key_book(settings, identity, transports[name])
            lists[name] = TaskList(
                transport=transports[name],
                profile=reading_profile(settings, identity.spiffe_id),
                trust=lambda identity=identity: Trust(bundles=identity.bundles()),  # type: ignore[misc]
                past=book or current_only,
                restored=book or nothing_restored,
                results=tuple(transports.values()),
            )
            listed = lists[name].listed(connection.jetstream, receiver, wanted, most=limit)
            sources[name] = await stack.enter_async_context(aclosing(listed))
        rows = await stack.enter_async_context(aclosing(merged(sources, lambda task: task.stored, newest=True)))
        left = limit
        async for name, task in rows:
            if invocation.as_json:
                print_json({**as_document(task), **({"as": name} if invocation.also else {})})
            else:
                click.echo(printable(f"{name}  " if invocation.also else "") + printable(as_line(task)))
            left -= 1
            if not left:
                break
    if unreadable := sum(tasks.unreadable for tasks in lists.values()):
        note(f"{unreadable} messages on these subjects are no tasks: no agent handles them")


def as_document(task: ListedTask) -> TaskDocument:
    """Return one task as the JSON object that `--json` prints: workloads are named by their SPIFFE IDs."""
    from sealbus.agents.sdk.task_handle import handle_text

    return task.document(name=str, handle=handle_text)


def as_line(task: ListedTask) -> str:
    """Return one task as one line for people."""
    header, status = task.header, task.status
    texts = [status.code, ", ".join(status.reasons), f"by {status.by}" if status.by else "", status.note]
    if status.unverified:
        texts.append(f"UNVERIFIED STATUS: {', '.join(status.unverified)}")
    if task.refused:
        texts.append(f"UNVERIFIED: {task.refused}")
    return (
        f"{shown_time(task.stored)} {header.id.hex()} {status.state:<14} {task.action or header.to:<24} "
        f"from {header.iss.path:<20} for {task.user or '-':<10} {'  '.join(text for text in texts if text)}"
    ).rstrip()
