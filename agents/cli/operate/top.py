"""`sealbus top`: rates of decisions and handling now, by agent and action, from the audit stream."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import (
    Invocation,
    invocation_options,
    stop_signalled,
)
from sealbus.agents.cli.output import note, print_json, print_table
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.bus.audit.trail import AuditTrail
    from sealbus.bus.inspection.rates import Rate, Rates


_COLUMNS = ("agent", "action", "allowed/s", "denied/s", "failed/s", "p50 ms", "p99 ms")


@click.command("top")
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(0.2, 60), help="Seconds between two looks."
)
@click.option("--times", default=0, type=click.IntRange(0), help="Looks, then end; by default until Ctrl-C.")
@invocation_options("operator")
async def command(every: float, times: int, invocation: Invocation) -> None:
    """Show rates of decisions and handling over 10 seconds, by agent and action, the busiest first.

    Only records since the start of the command count. With --json each look is one line, an array.
    Everything comes from the audit stream, and each record is verified as it is read.
    """
    from sealbus.agents.runtime.open import open_audit_trail, open_connection
    from sealbus.bus.clocks import wall_clock
    from sealbus.bus.inspection.rates import Rates
    from sealbus.bus.nats.api import audit_stream

    settings, stop, rates, looks = invocation.settings(), stop_signalled(), Rates(), 0
    async with open_connection(invocation.as_name, settings) as (_, connection):
        after = (await audit_stream(connection.jetstream)).last
    async with open_audit_trail(invocation.as_name, settings, after=after) as trail, asyncio.TaskGroup() as group:
        following = group.create_task(_follow(trail, rates))
        while not stop.is_set() and (not times or looks < times):
            try:
                async with asyncio.timeout(every):
                    await stop.wait()
            except TimeoutError:
                looks += 1
                print_rates(rates.rows(wall_clock()), as_json=invocation.as_json)
        following.cancel()


async def _follow(trail: AuditTrail, rates: Rates) -> None:
    from sealbus.bus.audit.trail import Finding

    async with aclosing(trail.entries(follow=True)) as entries:
        async for entry in entries:
            if isinstance(entry, Finding):
                note(f"#{entry.sequence} DOES NOT VERIFY: {entry.code} at step {entry.step}")
            else:
                rates.add(entry)


def print_rates(rows: list[Rate], *, as_json: bool) -> None:
    """Print one look: a table, in a terminal in place of the former one, or a JSON array."""
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    if sys.stdout.isatty():
        click.clear()
    cells = [
        [
            printable(row.agent),
            printable(row.action),
            *map(_number, (row.allowed, row.denied, row.failed, row.p50, row.p99)),
        ]
        for row in rows
    ]
    print_table(f"the last 10 s: {len(rows)} actions", _COLUMNS, cells)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
