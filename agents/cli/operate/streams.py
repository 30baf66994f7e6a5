"""`sealbus streams plan|apply|roll|size`: the declared streams, compared, created and sized under an operator's identity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import Invocation, config_option, invocation_options, json_option
from sealbus.agents.cli.output import note, print_json, print_table
from sealbus.bus.stream_names import AUDIT, SUBJECTS

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.schema import StreamsTable
    from sealbus.agents.runtime.settings.settings import Settings
    from sealbus.bus.streams.declared import Stream
    from sealbus.bus.streams.estimate import ExpectedLoad


_RATE, _SHARE, _NUMBER = click.FloatRange(min=0), click.FloatRange(0, 1), click.IntRange(min=0)
_DAYS = click.FloatRange(min=0, min_open=True)
_REPLICAS = click.Choice(["1", "3", "5"])


@click.group("streams")
def command() -> None:
    """Compare the streams with their declaration, and repair them."""


_mirror = click.option(
    "--mirror", is_flag=True, help="Of the mirror of AUDIT in this region, instead (streams.mirror)."
)


@command.command("plan")
@_mirror
@invocation_options("operator")
async def plan(mirror: bool, invocation: Invocation) -> int:
    """Print what would change in streams and the bucket of policies; exit code 1 if anything would."""
    return 1 if await _streams(invocation, change=False, mirror=mirror) else 0


@command.command("apply")
@_mirror
@invocation_options("operator")
async def apply(mirror: bool, invocation: Invocation) -> None:
    """Create or change the streams, and the bucket of policies, so that they match their declaration."""
    await _streams(invocation, change=True, mirror=mirror)


@command.command("roll")
@click.option("--to", "to", required=True, metavar="NAME", help="Stream of the new period, for instance AUDIT-2026-12.")
@click.option("--from", "since", metavar="NAME", help="The closed stream, if an earlier run was interrupted.")
@invocation_options("operator")
async def roll(to: str, since: str | None, invocation: Invocation) -> None:
    """Begin a new period of the audit stream: the current stream is closed and kept, NAME takes its place.

    Nothing is restarted or deleted. Then let the notary reach the end of the closed stream, export and verify that log, and
    give the notary a new one (`control.notary`: folder, origin, stream and previous).
    """
    from sealbus.agents.runtime.open import open_connection, streams_of
    from sealbus.bus.streams import periods
    from sealbus.bus.streams.declared import stream_named

    settings = invocation.settings()
    declared = stream_named(streams_of(settings), AUDIT)
    async with open_connection(invocation.as_name, settings) as (_, connection):
        rolled = await periods.roll(declared, to, connection.jetstream, since=since)
    if invocation.as_json:
        print_json({"former": rolled.former, "current": rolled.current})
    else:
        click.echo(f"{rolled.former} is closed and kept; {rolled.current} takes the records")


@command.command("size")
@click.option("--rate", type=_RATE, required=True, metavar="R", help="Tasks a second, as a mean of a day.")
@click.option("--calls", type=_RATE, default=0.0, metavar="R", help="Calls a second.  [default: 0]")
@click.option("--days", type=_DAYS, required=True, metavar="D", help="Days that AUDIT holds.")
@click.option("--denied", type=_SHARE, default=0.0, metavar="SHARE", help="Share that is denied.  [default: 0]")
@click.option("--once", type=_SHARE, default=0.0, metavar="SHARE", help="Share of tasks with `once`.  [default: 0]")
@click.option("--body", type=_NUMBER, default=1_024, show_default=True, metavar="BYTES", help="Mean body of a task.")
@click.option("--result", type=_NUMBER, default=256, show_default=True, metavar="BYTES", help="Mean body of a result.")
@click.option("--agents", type=_NUMBER, default=0, metavar="N", help="Agents with consumers.  [default: not said]")
@click.option("--listening", type=_NUMBER, default=0, metavar="N", help="Agents that listen to events.  [default: 0]")
@click.option("--cells", type=_NUMBER, default=1, metavar="N", help="Cells, which are taken as alike.  [default: 1]")
@click.option("--processes", type=_NUMBER, default=0, metavar="N", help="Processes of all agents.  [default: not said]")
@click.option("--moved", type=_NUMBER, default=0, metavar="N", help="Agents moved within 33 days.  [default: 0]")
@click.option("--replicas", type=_REPLICAS, metavar="N", help="Replicas: 1, 3 or 5.  [default: streams.replicas]")
@config_option
@json_option
def size(
    rate: float,
    calls: float,
    days: float,
    denied: float,
    once: float,
    body: int,
    result: int,
    agents: int,
    listening: int,
    cells: int,
    processes: int,
    moved: int,
    replicas: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Print how many bytes the streams will hold, the settings with room for that, and what the agents take of a server.

    All numbers are those of the whole deployment. With --cells the streams and settings are those of each cell, which has an
    equal share.

    Settings are compared if there are any; exit code 1 if one of their streams is too small, or the agents are too many. No
    server is asked.
    """
    from sealbus.agents.runtime.settings.settings import load_streams
    from sealbus.bus.streams.declared import DEFAULT_MAX_BYTES
    from sealbus.bus.streams.estimate import ExpectedAgents, ExpectedLoad, bytes_held, room_for

    table = load_streams(config)
    copies = int(replicas or table.replicas)
    expected = ExpectedAgents(
        agents=agents,
        listening=listening,
        cells=cells,
        processes=processes,
        moved=moved,
        replicas=copies,
        replicated_consumers=table.replicated_consumers,
    )
    load = ExpectedLoad(tasks=rate / cells, calls=calls / cells, denied=denied, once=once, body=body, result=result)
    held = bytes_held(load, days=days)
    room = {name: room_for(name, bytes_) for name, bytes_ in held.items()}
    disk = cells * sum({**DEFAULT_MAX_BYTES, **room}.values())
    small = list(_too_small(table, held, load, days))
    many = list(expected.warnings())
    if as_json:
        streams = {name: {"held": held[name], "max_bytes": room[name]} for name in held}
        taken = {
            "consumers": expected.consumers,
            "event_consumers": expected.listening,
            "stop_readers": expected.processes,
            "replicated_assets": expected.replicated_assets,
            "memory": expected.memory,
        }
        print_json(
            {
                "streams": streams,
                "replicas": copies,
                "disk": disk,
                "agents": taken,
                "too_small": small,
                "too_many": many,
            }
        )
    else:
        rows = [[name, _shown(held[name]), _shown(room[name])] for name in SUBJECTS if name in held]
        print_table("", ["stream", "holds", "max_bytes"], rows)
        lines = [f'{name.lower()} = "{_shown(room[name])}"' for name in SUBJECTS if name in held]
        click.echo("\n".join([f"[streams]\nreplicas = {copies}\n\n[streams.max_bytes]", *lines]))
        of_cells = f" of {cells} cells" if cells > 1 else ""
        note(f"disk of a server that holds all eight streams{of_cells}: {_shown(disk)}")
        if agents:
            others = f", {listening:,} of EVENTS and {processes:,} of STATE" if cells > 1 or processes else ""
            note(
                f"{agents:,} agents{of_cells.replace(' of ', ' in ')}: {expected.consumers:,} consumers of TASKS{others}"
                f"{' in each' if of_cells else ''}; on each server {expected.replicated_assets:,} replicated assets, and "
                f"{_shown(expected.memory)} of memory for consumers"
            )
        for line in small:
            note(f"too small: {line}")
        for line in many:
            note(f"too many: {line}")
    raise SystemExit(1 if small or many else 0)


def _too_small(table: StreamsTable, held: Mapping[str, int], load: ExpectedLoad, days: float) -> Iterator[str]:
    """Yield a line for each stream of the settings that is too small for `held`."""
    from sealbus.bus.streams.declared import DEFAULT_MAX_BYTES
    from sealbus.bus.streams.estimate import DAY, seconds_until_full

    configured = {name.upper(): bytes_ for name, bytes_ in table.max_bytes if bytes_ is not None}
    for name, bytes_ in held.items():
        most = configured.get(name) if configured else None
        if configured and most is None:
            most = DEFAULT_MAX_BYTES.get(name)
        if most is None or most >= bytes_:
            continue
        full = seconds_until_full(load, most) if name == AUDIT else None
        until = f": full after {full / DAY:.1f} of {days:g} days, and then nothing is handled" if full else ""
        yield f"streams.max_bytes.{name.lower()} is {_shown(most)}, for {_shown(bytes_)}{until}"


def _shown(bytes_: int) -> str:
    """Return a size as written in settings: exact in the largest possible unit, or large sizes rounded up."""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if bytes_ >= 8 * size or (bytes_ >= size and bytes_ % size == 0):
            return f"{-(-bytes_ // size)}{unit}"
    return f"{-(-bytes_ // (1 << 20))}MiB"


async def _streams(invocation: Invocation, *, change: bool, mirror: bool) -> int:
    from sealbus.agents.runtime.open import mirror_of, open_connection, streams_of
    from sealbus.bus.audit.mirror import describe_mirror
    from sealbus.bus.streams import plan as stream_plan
    from sealbus.bus.streams.durability import acknowledged_means
    from sealbus.bus.streams.periods import in_period

    settings = invocation.settings()
    async with open_connection(invocation.as_name, settings) as (_, connection):
        if mirror:
            declared: tuple[Stream, ...] = (await mirror_of(settings).declared(connection.jetstream),)
        else:
            declared = (*await in_period(streams_of(settings), connection.jetstream), *_bucket_of(settings))
        changes = await stream_plan.apply(declared, connection.jetstream) if change else []
        states = await stream_plan.read_streams([stream.name for stream in declared], connection.jetstream)
        if not change:
            changes = stream_plan.plan(declared, states)
    for planned in changes:
        if invocation.as_json:
            print_json({"change": type(planned).__name__.lower(), "text": str(planned)})
        else:
            click.echo(str(planned))
    if not invocation.as_json:
        if not changes:
            note("every stream is as declared")
        existing = {name: state for name, state in states.items() if state is not None}
        note(acknowledged_means(existing))
        if mirror:
            for state in existing.values():
                note(describe_mirror(state))
    return len(changes)


def _bucket_of(settings: Settings) -> tuple[Stream, ...]:
    """Return the declaration of the bucket of policies, if the settings name one."""
    from sealbus.agents.runtime.policy.store import policy_stream

    bucket = settings.policy.bucket
    return (policy_stream(bucket, replicas=settings.streams.replicas),) if bucket is not None else ()
