"""`sealbus task status|result|cancel HANDLE`, by the handle that `sealbus pub` printed; `task ls`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.task_list import ls
from sealbus.agents.cli.options import Invocation, invocation_options
from sealbus.agents.cli.output import explanation_lines, note, print_json
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.sdk.task_handle import TaskHandle
    from sealbus.bus.sending.message import Content
    from sealbus.bus.sending.status import Status


result_option = click.option(
    "--wait",
    is_flag=False,
    flag_value=60.0,
    default=None,
    type=click.FloatRange(0.1, 86_400),
    metavar="[SECONDS]",
    help="Wait for a task's result (60 s by default) and print it; exit with 3 if it was denied.",
)
"""`--wait [SECONDS]` of commands that send a task."""


@click.group("task")
def command() -> None:
    """List tasks, ask for a task's status or result, or cancel it."""


command.add_command(ls)


@command.command("status")
@click.argument("handle")
@click.option("--follow", is_flag=True, help="Print each status as it comes, up to the final one.")
@invocation_options()
async def status(handle: str, follow: bool, invocation: Invocation) -> None:
    """Print the newest status of the task HANDLE."""
    async with _opened(handle, invocation) as task:
        if follow:
            async with aclosing(task.statuses()) as statuses:
                async for report in statuses:
                    print_status(report, as_json=invocation.as_json)
        else:
            print_status(await task.status(), as_json=invocation.as_json)


@command.command("result")
@click.argument("handle")
@click.option("--wait", default=60.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="Seconds.")
@invocation_options()
async def result(handle: str, wait: float, invocation: Invocation) -> None:
    """Print the result of the task HANDLE once it is done; exit with 3 if it was denied."""
    async with _opened(handle, invocation) as task:
        await finish(task, wait, as_json=invocation.as_json)


@command.command("cancel")
@click.argument("handle")
@click.option("--reason", default="", help="A line for people, shown with the task's status.")
@click.option("--operator", is_flag=True, help="Cancel another workload's task, if the agent's policy allows that.")
@click.option("--wait", default=10.0, show_default=True, type=click.FloatRange(0.1, 86_400), help="Seconds.")
@invocation_options()
async def cancel(handle: str, reason: str, operator: bool, wait: float, invocation: Invocation) -> None:
    """Cancel the task HANDLE and everything that follows from it; exit with 3 if the agent's policy denies that.

    Effects that have happened stay. Once the cancel is in force, the task's status is printed, which may still be `working`.
    With --operator no status is printed, because it is for the requester. `sealbus task ls --json` shows the handles of
    others' tasks.
    """
    async with _opened(handle, invocation) as task:
        try:
            await task.cancel(reason, operator=operator, timeout=wait)
        except TimeoutError as error:
            raise click.ClickException(
                f"{task.action}: its agent did not confirm within {wait:g} s; it cancels the task when it runs again"
            ) from error
        if operator:
            note("in force; the requester gets the final status, and `sealbus task ls` shows it")
        else:
            print_status(await task.status(), as_json=invocation.as_json)


async def finish(handle: TaskHandle, wait: float, *, as_json: bool) -> None:
    """Wait for the task's final status and print its result alone or, as JSON, the whole status.

    The parts of a result are printed as they come, one a line. If an attempt fails, they begin again, and a line on standard
    error says so. For a final status without a result, raises its error; the command then ends with its line and exit code.
    """
    from sealbus.agents.sdk.task_handle import failure_of
    from sealbus.bus.sending.parts import PARTS_TYPE, PartsReading
    from sealbus.envelopes.errors import Code

    last: Status | None = None
    reading, parts = PartsReading(), list[object]()
    try:
        async with asyncio.timeout(wait), aclosing(handle.statuses()) as statuses:
            async for report in statuses:
                last = report
                if report.code == Code.UNKNOWN_VERB and not report.final:
                    waits = f"{handle.action}: its agent has no such task, which waits for a process that has"
                    note("\n".join(filter(None, (waits, report.note))))
                if report.part is None:
                    continue
                if reading.take(report):
                    click.echo("the parts begin again: an attempt failed", err=True)
                    parts.clear()
                if as_json:
                    parts.append(_value(report.part))
                else:
                    _print_result(report.part)
    except TimeoutError as error:
        so_far = "no worker has reported on it: is one running?"
        if last is not None:
            so_far = printable("  ".join(text for text in (last.state.value, last.code, last.note) if text))
        raise click.ClickException(
            f"{handle.action}: not done within {wait:g} s ({so_far}); ask again: sealbus task result {handle}"
        ) from error
    if last is None:
        return
    if last.result is not None:
        reading.check(last.result)
    in_parts = last.result is not None and last.result.typ == PARTS_TYPE
    if as_json:
        print_json(_object(last) | ({"result": parts} if in_parts else {}))
    elif last.result is not None and not in_parts:
        _print_result(last.result)
    if last.result is None:
        raise failure_of(last)


@asynccontextmanager
async def _opened(text: str, invocation: Invocation) -> AsyncGenerator[TaskHandle, None]:
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.task_handle import parse_handle
    from sealbus.envelopes.errors import EnvelopeError

    try:
        parse_handle(text)
    except EnvelopeError as error:
        raise click.BadParameter(f"this is not a task handle ({error.detail})", param_hint="HANDLE") from error
    async with Client(invocation.as_name, settings=invocation.settings()) as bus:
        yield bus.handle(text)


def print_status(status: Status | None, *, as_json: bool) -> None:
    """Print a status as a line or as JSON; None is a task without a status."""
    if as_json:
        print_json(_object(status))
    elif status is None:
        click.echo("submitted")
    elif status.part is not None:
        _print_result(status.part)
    else:
        by = f"by {status.by}" if status.by is not None else ""
        texts: Sequence[str] = (status.state.value, status.code, ", ".join(status.reasons), by, status.note)
        click.echo(printable("  ".join(text for text in texts if text)))
        for line in explanation_lines(status.explanation._replace(reasons=())):
            click.echo(f"  {line}")


def _object(status: Status | None) -> dict[str, object]:
    if status is None:
        return {"state": "submitted"}
    document: dict[str, object] = {"state": status.state.value, "final": status.final, "sequence": status.sequence}
    if status.code:
        document["code"] = status.code
    document |= status.explanation.members()
    if status.note:
        document["note"] = status.note
    if status.by is not None:
        document["by"] = status.by.value
    if status.result is not None:
        document["type"] = status.result.typ
        document["result"] = _value(status.result)
    if status.part is not None:
        document |= {"part": status.number, "type": status.part.typ, "value": _value(status.part)}
    return document


def _print_result(answer: Content) -> None:
    from sealbus.agents.sdk.bodies import OCTETS

    if answer.typ == OCTETS:
        sys.stdout.buffer.write(answer.body)
        sys.stdout.buffer.flush()
    else:
        print_json(_value(answer))


def _value(answer: Content) -> object:
    """Return a result as a value for JSON: bytes as base64."""
    from base64 import b64encode

    from sealbus.agents.sdk.bodies import JSON, OCTETS, body_of, decoded
    from sealbus.bus.sending.parts import PARTS_TYPE

    if answer.typ == OCTETS:
        return b64encode(answer.body).decode()
    return decoded(body_of(object), answer._replace(typ=JSON) if answer.typ == PARTS_TYPE else answer)
