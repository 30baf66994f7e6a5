"""`sealbus pub SUBJECT BODY`: publish a task or an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.body_argument import json_body
from sealbus.agents.cli.bus.task import finish, result_option
from sealbus.agents.cli.options import Invocation, invocation_options
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.person.on_behalf import OnBehalf, user_options

if TYPE_CHECKING:
    from sealbus.agents.sdk.sender import Receipt
    from sealbus.agents.sdk.task_handle import TaskHandle


@click.command("pub")
@click.argument("subject")
@click.argument("body")
@user_options
@click.option("--life", default=3_600.0, show_default=True, type=click.FloatRange(1, 86_400), help="Seconds.")
@click.option("--partition", default=None)
@click.option(
    "--count", default=1, show_default=True, type=click.IntRange(1, 100_000), help="How many times to publish it."
)
@result_option
@invocation_options()
async def command(
    subject: str,
    body: str,
    on_behalf: OnBehalf,
    life: float,
    partition: str | None,
    count: int,
    wait: float | None,
    invocation: Invocation,
) -> None:
    """Publish BODY (JSON, or - for standard input) to SUBJECT: task.<agent>.<verb>, event.<own name>.<name> or your own.

    Without --wait a task's handle is printed, for `sealbus task status` and `sealbus task result`.
    """
    from sealbus.agents.runtime.client import Client
    from sealbus.agents.sdk.bodies import JSON
    from sealbus.bus.sending.message import Content

    content = Content(body=json_body(body), typ=JSON)
    settings = invocation.settings()
    declared = next((own for own in settings.own_subjects if own.subject == subject), None)
    if declared is not None:
        kind, action, name = str(declared.kind), subject, subject
    else:
        kind, _, action = subject.partition(".")
        name = action.partition(".")[2]
    if kind not in ("task", "event") or not name:
        raise click.UsageError("SUBJECT is task.<agent>.<verb> or event.<own name>.<name>; `sealbus call` is for calls")
    if wait is not None and kind != "task":
        raise click.UsageError("--wait is for tasks: events have no result")
    token = await on_behalf.token(settings)
    async with Client(invocation.as_name, settings=settings) as bus:
        statement = await bus.user_context(token) if token is not None else None
        for _ in range(count):
            if kind == "task":
                handle = await bus.submit(action, content, user=statement, life=life, partition=partition)
                _show(handle, {"handle": handle.text}, as_json=invocation.as_json)
                if wait is None and not invocation.as_json:
                    click.echo(handle.text)
                elif wait is not None:
                    await finish(handle, wait, as_json=invocation.as_json)
            else:
                _show(await bus.emit(name, content), {}, as_json=invocation.as_json)


def _show(stored: Receipt | TaskHandle, more: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "message": stored.message_id,
                "subject": stored.subject,
                "stream": stored.stream,
                "sequence": stored.sequence,
                **more,
            }
        )
    else:
        note(f"{stored.subject}: stored as {stored.stream} #{stored.sequence}, message {stored.message_id}")
