"""`sealbus schedule add|ls|pause|resume|rm`: tasks that an identity sends at a time, or again and again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.body_argument import json_body
from sealbus.agents.cli.options import client_option, config_option, json_option
from sealbus.agents.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from sealbus.agents.sdk.schedules import KnownSchedule, ScheduleKeywords, Schedules

__all__ = ["command"]

_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Span(click.ParamType[timedelta]):
    """Parameter type for a duration such as `90s`, `10m`, `8h` or `30d`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration that `value` stands for, or fail with a usage error."""
        if isinstance(value, timedelta):
            return value
        found = _SPAN.fullmatch(str(value))
        if found is None:
            self.fail(f"{str(value)!r} is not a number with s, m, h or d", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


class Instant(click.ParamType[datetime]):
    """Parameter type for an RFC 3339 time; one without a zone is UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the time that `value` stands for, or fail with a usage error."""
        try:
            time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{str(value)!r} is not RFC 3339", param, ctx)
        return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


owner_option = click.option(
    "--owner",
    default=None,
    metavar="NAME",
    help="The agent that sends the tasks, whose policy decides; by default ourselves (--as).",
)
wait_option = click.option(
    "--wait", default=10.0, show_default=True, type=click.FloatRange(0.1, 3_600), help="Seconds."
)


@click.group("schedule")
def command() -> None:
    """Send tasks at a time, or again and again, as long as a process of their sender runs.

    What is asked for is a message to the owner, the identity that sends the tasks: its policy decides about it
    (<owner>._schedule), and one of its workers has to run.
    """


@command.command("add")
@click.argument("name")
@click.argument("action")
@click.argument("body")
@click.option("--cron", default=None, metavar="FIELDS", help='Five fields of cron, for instance "0 7 * * 1-5".')
@click.option("--zone", default="UTC", show_default=True, metavar="ZONE", help="Its time zone, as Europe/Berlin.")
@click.option(
    "--every", default=None, type=Span(), metavar="SPAN", help="At an interval, from 10s on: 90s, 10m, 8h, 1d."
)
@click.option("--at", default=None, type=Instant(), metavar="TIME", help="Once, at an RFC 3339 time.")
@click.option("--after", default=None, type=Span(), metavar="SPAN", help="Once, after so long.")
@click.option(
    "--overlap",
    default="skip",
    show_default=True,
    type=click.Choice(["skip", "queue"]),
    help="Whether a task is left out, or waits, while the one before it has not ended.",
)
@click.option(
    "--catchup",
    default=None,
    type=Span(),
    metavar="SPAN",
    help="How late a task may be sent where no process ran: 0s to 1d; by default 1m, and 1h for what is sent once.",
)
@click.option(
    "--until", default=None, type=Span(), metavar="SPAN", help="How long it lasts: at most 366d, unless said."
)
@click.option("--life", default=None, type=click.IntRange(1, 86_400), help="Seconds that each task may wait.")
@click.option("--partition", default=None)
@click.option("--grant", "grants", multiple=True, metavar="ACTION", help="The only actions that may follow; repeat it.")
@owner_option
@wait_option
@config_option
@client_option
@json_option
def add(
    name: str,
    action: str,
    body: str,
    cron: str | None,
    zone: str,
    every: timedelta | None,
    at: datetime | None,
    after: timedelta | None,
    overlap: str,
    catchup: timedelta | None,
    until: timedelta | None,
    life: int | None,
    partition: str | None,
    grants: tuple[str, ...],
    owner: str | None,
    wait: float,
    config: str | None,
    as_name: str,
    as_json: bool,
) -> None:
    """Send a task for ACTION (<agent>.<verb>) with BODY (JSON, or - for standard input) by a schedule called NAME.

    A schedule of that name is replaced.
    """
    from sealbus.agents.sdk.bodies import JSON
    from sealbus.bus.sending.message import Content

    if sum(one is not None for one in (cron, every, at, after)) != 1:
        raise click.UsageError("give one of --cron, --every, --at and --after")
    content = Content(body=json_body(body), typ=JSON)
    options: ScheduleKeywords = {"overlap": overlap, "life": life, "partition": partition}
    if catchup is not None:
        options["catchup"] = int(catchup.total_seconds())
    if until is not None:
        options["until"] = until
    if grants:
        options["grants"] = grants

    async def ask(schedules: Schedules) -> None:
        if at is not None or after is not None:
            seconds = after.total_seconds() if after is not None else None
            await schedules.submit(
                action, content, at=at, after=seconds, name=name, owner=owner, timeout=wait, **options
            )
            return
        seconds_between = int(every.total_seconds()) if every is not None else None
        await schedules.add(
            name,
            action,
            content,
            cron=cron,
            zone=zone,
            every=seconds_between,
            owner=owner,
            timeout=wait,
            **options,
        )

    asyncio.run(_changed(ask, name, "on", owner, wait, config, as_name, as_json=as_json))


@command.command("pause")
@click.argument("name")
@owner_option
@wait_option
@config_option
@client_option
@json_option
def pause(name: str, owner: str | None, wait: float, config: str | None, as_name: str, as_json: bool) -> None:
    """Have the schedule NAME send nothing until it is resumed."""

    async def ask(schedules: Schedules) -> None:
        await schedules.pause(name, owner=owner, timeout=wait)

    asyncio.run(_changed(ask, name, "paused", owner, wait, config, as_name, as_json=as_json))


@command.command("resume")
@click.argument("name")
@owner_option
@wait_option
@config_option
@client_option
@json_option
def resume(name: str, owner: str | None, wait: float, config: str | None, as_name: str, as_json: bool) -> None:
    """Have the schedule NAME go on; what it did not send while it was paused is not sent."""

    async def ask(schedules: Schedules) -> None:
        await schedules.resume(name, owner=owner, timeout=wait)

    asyncio.run(_changed(ask, name, "on", owner, wait, config, as_name, as_json=as_json))


@command.command("rm")
@click.argument("name")
@owner_option
@wait_option
@config_option
@client_option
@json_option
def rm(name: str, owner: str | None, wait: float, config: str | None, as_name: str, as_json: bool) -> None:
    """End the schedule NAME. Tasks that it has sent go on."""

    async def ask(schedules: Schedules) -> None:
        await schedules.remove(name, owner=owner, timeout=wait)

    asyncio.run(_changed(ask, name, "removed", owner, wait, config, as_name, as_json=as_json))


@command.command("ls")
@config_option
@client_option
@json_option
def ls(config: str | None, as_name: str, as_json: bool) -> None:
    """List the schedules of our own identity (--as): others' are shown to nobody else."""
    asyncio.run(_list(config, as_name, as_json=as_json))


async def _list(config: str | None, as_name: str, *, as_json: bool) -> None:
    async with _opened(config, as_name) as schedules:
        found = await schedules.list()
    if as_json:
        for one in found:
            print_json(_object(one))
        return
    rows = [[one.name, one.state, one.action, one.when, _shown(one.next)] for one in found]
    print_table("", ["name", "state", "action", "when", "next"], rows)


async def _changed(
    ask: Callable[[Schedules], Awaitable[None]],
    name: str,
    state: str,
    owner: str | None,
    wait: float,
    config: str | None,
    as_name: str,
    *,
    as_json: bool,
) -> None:
    async with _opened(config, as_name) as schedules:
        try:
            await ask(schedules)
        except TimeoutError as error:
            raise click.ClickException(
                f"{owner or as_name} did not confirm within {wait:g} s: is a worker of it running? It takes it in when one "
                "runs within an hour"
            ) from error
    if as_json:
        print_json({"name": name, "state": state, "owner": owner or as_name})
    else:
        note(f"{name}: {state}")


@asynccontextmanager
async def _opened(config: str | None, as_name: str) -> AsyncGenerator[Schedules, None]:
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.runtime.settings.settings import load_settings

    async with Client(as_name, settings=load_settings(config).for_command()) as bus:
        yield bus.schedules


def _object(one: KnownSchedule) -> dict[str, object]:
    return {
        "name": one.name,
        "state": one.state,
        "action": one.action,
        "when": one.when,
        "overlap": one.overlap,
        "catchup": one.catchup,
        "next": _shown(one.next) or None,
        "until": _shown(one.until),
        "asked_by": str(one.asked_by),
        "grant": one.grant.hex(),
    }


def _shown(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z") if time is not None else ""
