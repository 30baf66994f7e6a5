"""`sealbus top`: what is decided and handled now, by agent and action, from the audit stream."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import as_option, config_option, json_option, stop_signalled
from sealbus.agents.cli.output import note, print_json, print_table, printable

if TYPE_CHECKING:
    from sealbus.bus.audit.trail import AuditTrail
    from sealbus.bus.inspection.rates import Rate, Rates

__all__ = ["command"]

_COLUMNS = ("agent", "action", "allowed/s", "denied/s", "failed/s", "p50 ms", "p99 ms")


@click.command("top")
@click.option(
    "--every", default=1.0, show_default=True, type=click.FloatRange(0.2, 60), help="Seconds between two looks."
)
@click.option("--times", default=0, type=click.IntRange(0), help="Looks, then end; by default until Ctrl-C.")
@config_option
@as_option("operator")
@json_option
def command(every: float, times: int, config: str | None, as_name: str, as_json: bool) -> None:
    """Show what is decided and handled now, by agent and action, the busiest first: rates over 10 seconds, from its start on.

    With --json each look is one line, an array.
    Everything comes from the audit stream, and each record is verified as it is read.
    """
    asyncio.run(_top(every, times, config, as_name, as_json=as_json))


async def _top(every: float, times: int, config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.runtime.open import open_audit_trail, open_connection
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.clocks import wall_clock
    from sealbus.bus.inspection.rates import Rates
    from sealbus.bus.nats.api import audit_stream

    settings, stop, rates, looks = load_settings(config).for_command(), stop_signalled(), Rates(), 0
    async with open_connection(as_name, settings) as (_, connection):
        after = (await audit_stream(connection.jetstream)).last
    async with open_audit_trail(as_name, settings, after=after) as trail, asyncio.TaskGroup() as group:
        following = group.create_task(_follow(trail, rates))
        while not stop.is_set() and (not times or looks < times):
            try:
                async with asyncio.timeout(every):
                    await stop.wait()
            except TimeoutError:
                looks += 1
                _show(rates.rows(wall_clock()), as_json=as_json)
        following.cancel()


async def _follow(trail: AuditTrail, rates: Rates) -> None:
    from sealbus.bus.audit.trail import Finding

    async with aclosing(trail.entries(follow=True)) as entries:
        async for entry in entries:
            if isinstance(entry, Finding):
                note(f"#{entry.sequence} DOES NOT VERIFY: {entry.code} at step {entry.step}")
            else:
                rates.add(entry)


def _show(rows: list[Rate], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(one) for one in rows])
        return
    if sys.stdout.isatty():
        click.clear()
    shown = [
        [
            printable(one.agent),
            printable(one.action),
            *map(_number, (one.allowed, one.denied, one.failed, one.p50, one.p99)),
        ]
        for one in rows
    ]
    print_table(f"the last 10 s: {len(rows)} actions", _COLUMNS, shown)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
