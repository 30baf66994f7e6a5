"""`sealbus audit`: decisions, reasons and outcomes in order, each record verified."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.audit.export import export, root_file
from sealbus.agents.cli.audit.log_files import fsck, mirror
from sealbus.agents.cli.audit.receipt import receipt
from sealbus.agents.cli.audit.reveal import command as reveal
from sealbus.agents.cli.audit.show import show
from sealbus.agents.cli.audit.stats import stats
from sealbus.agents.cli.audit.verify import verify
from sealbus.agents.cli.options import HexDigits, Invocation, invocation_options, period_options

if TYPE_CHECKING:
    from sealbus.bus.audit.trail import AuditEntry, AuditFilter, Finding


@click.group("audit")
def command() -> None:
    """Follow and replay the audit stream; export, verify and search its log."""


for _subcommand in (export, verify, receipt, show, stats, root_file, fsck, mirror):
    command.add_command(_subcommand)


command.add_command(reveal)


_stream_option = click.option(
    "--stream", default=None, metavar="NAME", help="The stream of a former period; by default the current one."
)


@command.command("tail")
@click.option("--follow", is_flag=True, help="Wait for more.")
@click.option("--last", default=20, show_default=True, type=click.IntRange(0, 10_000), help="Records to begin with.")
@_stream_option
@invocation_options("operator", several=True)
async def tail(follow: bool, last: int, stream: str | None, invocation: Invocation) -> int:
    """Show the newest records, with --as several times those of several cells."""
    from sealbus.bus.audit.trail import AuditFilter

    return await _show(AuditFilter(), invocation, follow=follow, last=last, stream=stream)


@command.command("replay")
@period_options
@click.option("--subject", default=None, help="Only messages to this subject.")
@click.option("--agent", default=None, help="Only records of this agent.")
@click.option("--decision", type=click.Choice(["allow", "deny"]), default=None)
@click.option("--user", default=None, help="Only messages for this user.")
@click.option(
    "--message", type=HexDigits(32, 64), default=None, metavar="ID", help="Only this message: its id or hash."
)
@click.option(
    "--chain",
    type=HexDigits(64),
    default=None,
    metavar="HASH",
    help="Only the message with this hash and messages that followed from it: sub-tasks, calls, events, answers, retries.",
)
@click.option(
    "--txn",
    type=HexDigits(32),
    default=None,
    metavar="ID",
    help="Only messages that this one request of a user caused.",
)
@click.option("--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--into",
    default=None,
    metavar="MODULE:AGENT",
    help="For debugging, run this agent's handlers again on messages that TASKS still holds: nothing is sent, "
    "acknowledged or recorded, and ctx.replay is true.",
)
@click.option("--last", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Messages for --into.")
@_stream_option
@invocation_options("operator", several=True)
async def replay(
    since: int | None,
    until: int | None,
    subject: str | None,
    agent: str | None,
    decision: str | None,
    user: str | None,
    message: bytes | None,
    chain: bytes | None,
    txn: bytes | None,
    follow: bool,
    into: str | None,
    last: int,
    stream: str | None,
    invocation: Invocation,
) -> int:
    """Print decisions, reasons and outcomes in order.

    With --json each entry has the message's id and hash and, if it has a user, the txn of the user's request. A chain ends
    at events: messages that are sent while an event is handled start another chain.

    Where there are cells, an identity reads the records of its own. With --as several times, once for each cell, the records
    of all of them are in the order in which they were stored, and each has the identity that read it.
    """
    from sealbus.bus.audit.trail import AuditFilter

    wanted = AuditFilter(
        since=since or 0,
        until=until,
        subject=subject,
        agent=agent,
        decision=decision,
        user=user,
        message=message,
        chain=chain,
        txn=txn,
    )
    if into is None:
        return await _show(wanted, invocation, follow=follow, last=None, stream=stream)
    from sealbus.agents.cli.audit.replay import replay_into

    if follow:
        raise click.UsageError("--into replays stored messages: leave --follow out")
    if invocation.also:
        raise click.UsageError("--into replays messages of one cell: give --as once")
    return await replay_into(into, wanted, invocation, most=last, stream=stream)


async def _show(
    wanted: AuditFilter,
    invocation: Invocation,
    *,
    follow: bool,
    last: int | None,
    stream: str | None,
) -> int:
    from sealbus.agents.cli.audit.entries import print_entry
    from sealbus.agents.cli.merging import merged
    from sealbus.agents.runtime.open import open_audit_trail
    from sealbus.bus.audit.trail import Finding

    if follow and invocation.also:
        raise click.UsageError("--follow reads one cell: give --as once")
    findings, settings = 0, invocation.settings()
    # One for all cells: what follows from a message in one may be in another.
    matches = wanted.matcher()
    async with AsyncExitStack() as stack:
        trails = {
            name: await stack.enter_async_context(open_audit_trail(name, settings, stream=stream))
            for name in invocation.as_names
        }

        async def entries(*, follow: bool = False) -> AsyncGenerator[tuple[str, AuditEntry | Finding], None]:
            """Yield the wanted entries of all cells by the times at which they were stored, and every finding."""
            sources = {name: trail.entries(follow=follow) for name, trail in trails.items()}
            async for name, entry in merged(sources, lambda entry: entry.stored):
                if isinstance(entry, Finding) or matches(entry):
                    yield name if invocation.also else "", entry

        newest: deque[tuple[str, AuditEntry | Finding]] = deque(maxlen=last)
        async for name, entry in entries():
            if last is None:
                findings += print_entry(entry, as_json=invocation.as_json, name=name)
            else:
                newest.append((name, entry))
        for name, entry in newest:
            findings += print_entry(entry, as_json=invocation.as_json, name=name)
        if follow:
            async for name, entry in entries(follow=True):
                findings += print_entry(entry, as_json=invocation.as_json, name=name)
    return 4 if findings else 0
