"""`sealbus refused`: counts of messages that failed verification, by code, subject, agent and claimed sender."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import Invocation, Moment, invocation_options
from sealbus.agents.cli.output import print_json, print_table
from sealbus.bus.inspection.documents import shown_time

if TYPE_CHECKING:
    from sealbus.bus.inspection.refused import RefusedMessages


_COLUMNS = ("count", "code", "subject", "refused by", "claims to be", "last minute", "detail")


@click.command("refused")
@click.option(
    "--newer", type=Moment(), default="1h", show_default=True, help="Since when: RFC 3339, or 10m, 2h, 3d ago."
)
@invocation_options("operator")
async def command(newer: int, invocation: Invocation) -> None:
    """Show messages that failed verification (steps 1 to 13), and connections that NATS refused, the most frequent first.

    Counts are unsigned. A refused message proves nothing: `claims to be` is the sender that the first of them names. For a
    connection, it is the workload whose certificate was verified.
    """
    counts = await read_counts(newer, invocation)
    if invocation.as_json:
        for count in counts:
            print_json({**asdict(count), "minute": shown_time(count.minute)})
    else:
        print_table("", _COLUMNS, [_cells(count) for count in counts])


def _cells(count: RefusedMessages) -> list[str]:
    claimed, minute = count.claimed or "-", shown_time(count.minute)
    return [str(count.count), count.code, count.subject, count.by, claimed, minute, count.detail]


async def read_counts(since: int, invocation: Invocation) -> list[RefusedMessages]:
    """Read the counts since a time (microseconds), summed over all minutes."""
    from sealbus.agents.runtime.open import open_connection
    from sealbus.bus.inspection.refused import refused_messages, summed
    from sealbus.bus.nats.transport import NatsTransport

    async with open_connection(invocation.as_name, invocation.settings()) as (_, connection):
        return summed([count async for count in refused_messages(NatsTransport(connection), since=since)])
