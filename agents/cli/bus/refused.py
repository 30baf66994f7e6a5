"""`sealbus refused`: what failed verification, counted by code, subject, agent and claimed sender."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import Moment, as_option, config_option, json_option
from sealbus.agents.cli.output import print_json, print_table, shown_time

if TYPE_CHECKING:
    from sealbus.bus.inspection.refused import RefusedMessages

__all__ = ["command"]

_COLUMNS = ("count", "code", "subject", "refused by", "claims to be", "last minute", "detail")


@click.command("refused")
@click.option(
    "--newer", type=Moment(), default="1h", show_default=True, help="Since when: RFC 3339, or 10m, 2h, 3d ago."
)
@config_option
@as_option("operator")
@json_option
def command(newer: int, config: str | None, as_name: str, as_json: bool) -> None:
    """Show what failed verification (steps 1 to 13), and connections that NATS refused, the most frequent first.

    Counts are unsigned. A message that is refused proves nothing: `claims to be` is what the first of them says of its
    sender, and of a connection the workload whose certificate was verified.
    """
    found = asyncio.run(_read(newer, config, as_name))
    if as_json:
        for one in found:
            print_json({**asdict(one), "minute": shown_time(one.minute)})
    else:
        print_table("", _COLUMNS, [_cells(one) for one in found])


def _cells(one: RefusedMessages) -> list[str]:
    return [str(one.count), one.code, one.subject, one.by, one.claimed or "-", shown_time(one.minute), one.detail]


async def _read(since: int, config: str | None, as_name: str) -> list[RefusedMessages]:
    from sealbus.agents.runtime.open import open_connection
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.inspection.refused import refused_messages, summed
    from sealbus.bus.nats.transport import NatsTransport

    settings = load_settings(config).for_command()
    async with open_connection(as_name, settings) as (_, connection):
        return summed([one async for one in refused_messages(NatsTransport(connection), since=since)])
