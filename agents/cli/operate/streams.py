"""`sealbus streams plan|apply|roll`: the declared streams, compared and created under an operator's identity."""

from __future__ import annotations

import asyncio

import click

from sealbus.agents.cli.options import as_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json
from sealbus.bus.stream_names import AUDIT

__all__ = ["command"]


@click.group("streams")
def command() -> None:
    """Compare the streams with their declaration, and repair them."""


@command.command("plan")
@config_option
@as_option("operator")
@json_option
def plan(config: str | None, as_name: str, as_json: bool) -> None:
    """Print what would change; exit code 1 if anything would."""
    raise SystemExit(1 if asyncio.run(_streams(config, as_name, as_json=as_json, change=False)) else 0)


@command.command("apply")
@config_option
@as_option("operator")
@json_option
def apply(config: str | None, as_name: str, as_json: bool) -> None:
    """Create or change the streams so that they match their declaration."""
    asyncio.run(_streams(config, as_name, as_json=as_json, change=True))


@command.command("roll")
@click.option("--to", "to", required=True, metavar="NAME", help="Stream of the new period, for instance AUDIT-2026-12.")
@click.option("--from", "since", metavar="NAME", help="The closed stream, if an earlier run was interrupted.")
@config_option
@as_option("operator")
@json_option
def roll(to: str, since: str | None, config: str | None, as_name: str, as_json: bool) -> None:
    """Begin a new period of the audit stream: the current stream is closed and kept, NAME takes its place.

    Nothing is restarted or deleted. Then let the notary reach the end of the closed stream, export and verify that log, and
    give the notary a new one (`control.notary`: folder, origin, stream and previous).
    """
    asyncio.run(_roll(to, since, config, as_name, as_json=as_json))


async def _roll(to: str, since: str | None, config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.runtime.open import open_connection, streams_of
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.streams import periods
    from sealbus.bus.streams.declared import stream_named

    settings = load_settings(config).for_command()
    declared = stream_named(streams_of(settings), AUDIT)
    async with open_connection(as_name, settings) as (_, connection):
        rolled = await periods.roll(declared, to, connection.jetstream, since=since)
    if as_json:
        print_json({"former": rolled.former, "current": rolled.current})
    else:
        click.echo(f"{rolled.former} is closed and kept; {rolled.current} takes the records")


async def _streams(config: str | None, as_name: str, *, as_json: bool, change: bool) -> int:
    from sealbus.agents.runtime.open import open_connection, streams_of
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.bus.streams import plan as stream_plan
    from sealbus.bus.streams.durability import acknowledged_means
    from sealbus.bus.streams.periods import in_period

    settings = load_settings(config).for_command()
    async with open_connection(as_name, settings) as (_, connection):
        declared = await in_period(streams_of(settings), connection.jetstream)
        changes = await stream_plan.apply(declared, connection.jetstream) if change else []
        found = await stream_plan.read_streams([one.name for one in declared], connection.jetstream)
        if not change:
            changes = stream_plan.plan(declared, found)
    for one in changes:
        if as_json:
            print_json({"change": type(one).__name__.lower(), "text": str(one)})
        else:
            click.echo(str(one))
    if not as_json:
        if not changes:
            note("every stream is as declared")
        note(acknowledged_means({name: state for name, state in found.items() if state is not None}))
    return len(changes)
