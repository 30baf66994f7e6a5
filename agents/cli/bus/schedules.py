"""`sealbus schedule add|ls|pause|resume|rm`: tasks that an identity sends at a set time, or repeatedly."""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from sealbus.agents.cli.bus.body_argument import json_body
from sealbus.agents.cli.options import Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from sealbus.agents.sdk.schedules import KnownSchedule, ScheduleKeywords, Schedules


_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Span(click.ParamType[timedelta]):
    """Parameter type for a duration such as `90s`, `10m`, `8h` or `30d`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration that `value` stands for, or fail with a usage error."""
        if isinstance(value, timedelta):
            return value
        matched = _SPAN.fullmatch(str(value))
        if matched is None:
            self.fail(f"{str(value)!r} is not a number with s, m, h or d", param, ctx)
        return timedelta(**{_UNITS[matched[2]]: int(matched[1])})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A change of schedules: the owner that is asked for it, the time limit of its confirmation (s), and the invocation."""

    owner: str | None
    timeout: float
    invocation: Invocation

    async def request(self, ask: Callable[[Schedules], Awaitable[None]], name: str, state: str) -> None:
        """Ask the owner by `ask`, and print that the schedule `name` is in `state`."""
        owner = self.owner or self.invocation.as_name
        async with open_schedules(self.invocation) as schedules:
            try:
                await ask(schedules)
            except TimeoutError as error:
                raise click.ClickException(
                    f"{owner} did not confirm within {self.timeout:g} s: is a worker of it running? It makes the change "
                    "if a worker runs within an hour"
                ) from error
        if self.invocation.as_json:
            print_json({"name": name, "state": state, "owner": owner})
        else:
            note(f"{name}: {state}")


def _change_options(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Add `--owner`, `--wait`, `--config`, `--as` and `--json`, which become one `_Change`, `change`."""

    @functools.wraps(function)
    def with_change(*, owner: str | None, wait: float, invocation: Invocation, **others: Any) -> Awaitable[None]:
        return function(change=_Change(owner=owner, timeout=wait, invocation=invocation), **others)

    changing = invocation_options()(with_change)
    for option in (
        click.option("--wait", default=10.0, show_default=True, type=click.FloatRange(0.1, 3_600), help="Seconds."),
        click.option(
            "--owner",
            default=None,
            metavar="NAME",
            help="The agent that sends the tasks, whose policy decides; by default yourself (--as).",
        ),
    ):
        changing = option(changing)
    return changing


@click.group("schedule")
def command() -> None:
    """Send tasks at a set time, or repeatedly, as long as a process of their sender runs.

    Each change is a message to the owner, the identity that sends the tasks. The owner's policy decides about it
    (<owner>._schedule), and a worker of the owner has to run.
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
    help="How late a task may be sent where no process ran: 0s to 1d; by default 1m, and 1h for a task that is sent once.",
)
@click.option(
    "--until", default=None, type=Span(), metavar="SPAN", help="How long it lasts: at most 366d, unless said."
)
@click.option("--life", default=None, type=click.IntRange(1, 86_400), help="Seconds that each task may wait.")
@click.option("--partition", default=None)
@click.option("--grant", "grants", multiple=True, metavar="ACTION", help="The only actions that may follow; repeat it.")
@_change_options
async def add(
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
    change: _Change,
) -> None:
    """Send a task for ACTION (<agent>.<verb>) with BODY (JSON, or - for standard input) by a schedule called NAME.

    A schedule of that name is replaced.
    """
    from sealbus.agents.sdk.bodies import JSON
    from sealbus.bus.sending.message import Content

    if sum(value is not None for value in (cron, every, at, after)) != 1:
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
                action, content, at=at, after=seconds, name=name, owner=change.owner, timeout=change.timeout, **options
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
            owner=change.owner,
            timeout=change.timeout,
            **options,
        )

    await change.request(ask, name, "on")


@command.command("pause")
@click.argument("name")
@_change_options
async def pause(name: str, change: _Change) -> None:
    """Pause the schedule NAME: it sends nothing until it is resumed."""
    await change.request(
        lambda schedules: schedules.pause(name, owner=change.owner, timeout=change.timeout), name, "paused"
    )


@command.command("resume")
@click.argument("name")
@_change_options
async def resume(name: str, change: _Change) -> None:
    """Resume the schedule NAME. Tasks that were due while it was paused are not sent."""
    await change.request(
        lambda schedules: schedules.resume(name, owner=change.owner, timeout=change.timeout), name, "on"
    )


@command.command("rm")
@click.argument("name")
@_change_options
async def rm(name: str, change: _Change) -> None:
    """End the schedule NAME. Tasks that it has sent continue."""
    await change.request(
        lambda schedules: schedules.remove(name, owner=change.owner, timeout=change.timeout), name, "removed"
    )


@command.command("ls")
@invocation_options()
async def ls(invocation: Invocation) -> None:
    """List the schedules of your own identity (--as). You cannot list the schedules of other identities."""
    async with open_schedules(invocation) as schedules:
        listed = await schedules.list()
    if invocation.as_json:
        for schedule in listed:
            print_json(_object(schedule))
        return
    rows = [
        [schedule.name, schedule.state, schedule.action, schedule.when, _shown(schedule.next)] for schedule in listed
    ]
    print_table("", ["name", "state", "action", "when", "next"], rows)


@asynccontextmanager
async def open_schedules(invocation: Invocation) -> AsyncGenerator[Schedules, None]:
    """Open the schedules as the workload of the invocation."""
    from sealbus.agents.runtime.client import Client

    async with Client(invocation.as_name, settings=invocation.settings()) as bus:
        yield bus.schedules


def _object(schedule: KnownSchedule) -> dict[str, object]:
    return {
        "name": schedule.name,
        "state": schedule.state,
        "action": schedule.action,
        "when": schedule.when,
        "overlap": schedule.overlap,
        "catchup": schedule.catchup,
        "next": _shown(schedule.next) or None,
        "until": _shown(schedule.until),
        "asked_by": str(schedule.asked_by),
        "grant": schedule.grant.hex(),
    }


def _shown(time: datetime | None) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z") if time is not None else ""
