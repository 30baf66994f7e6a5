"""`sealbus streams plan|apply`: the streams as they are declared, under an operator's identity."""

from __future__ import annotations

import asyncio

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json

__all__ = ["command"]


@click.group("streams")
def command() -> None:
    """Compare the streams with their declaration, and mend them."""


@command.command("plan")
@config_option
@as_option("operator")
@json_option
def plan(config: str | None, as_name: str, as_json: bool) -> None:
    """Print what would be changed; exit code 1 if anything would."""
    raise SystemExit(1 if asyncio.run(_streams(config, as_name, as_json=as_json, change=False)) else 0)


@command.command("apply")
@config_option
@as_option("operator")
@json_option
def apply(config: str | None, as_name: str, as_json: bool) -> None:
    """Create and change the streams so that they are as declared."""
    asyncio.run(_streams(config, as_name, as_json=as_json, change=True))


async def _streams(config: str | None, as_name: str, *, as_json: bool, change: bool) -> int:
    from sealbus.agents.runtime import open_connection, streams_of
    from sealbus.agents.settings import load_settings
    from sealbus.bus import stream_plan

    settings = load_settings(config)
    declared = streams_of(settings)
    async with open_connection(as_name, settings) as (_, connection):
        if change:
            changes = await stream_plan.apply(declared, connection.jetstream)
        else:
            actual = await stream_plan.read_streams([one.name for one in declared], connection.jetstream)
            changes = stream_plan.plan(declared, actual)
    for one in changes:
        if as_json:
            print_json({"change": type(one).__name__.lower(), "text": str(one)})
        else:
            click.echo(str(one))
    if not changes and not as_json:
        note("every stream is as declared")
    return len(changes)
