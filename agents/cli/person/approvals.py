"""`sealbus approvals ls|show|approve|deny|withdraw`: tasks that wait for a person, at the edge, with the person's login."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from sealbus.agents.cli.options import as_command, config_option, json_option
from sealbus.agents.cli.output import note, print_json, print_table
from sealbus.agents.cli.person.on_behalf import kept
from sealbus.envelopes.printable import printable

if TYPE_CHECKING:
    from sealbus.agents.login.approvals import Approvals


_SHORT = 16
"""Characters of an id that a table shows. They are enough to name a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovingPerson:
    """The edge, and the person whose login is used: that of `sealbus login`, or of `user`, a user of `sealbus dev`."""

    edge: str | None
    user: str | None
    acr: str
    config: str | None
    as_json: bool

    async def approvals(self) -> Approvals:
        """Return the approvals at the edge, with the login of the person. Raises `ConfigurationError`, `UsageError`."""
        from sealbus.agents.login.approvals import Approvals
        from sealbus.agents.runtime.settings.settings import load_client, load_settings
        from sealbus.envelopes.errors import ConfigurationError

        if self.user is None:
            if self.acr:
                raise click.UsageError("--acr goes with --user; otherwise log in again: sealbus login --acr URI")
            table = load_client(self.config)
            url, token = self.edge or table.resource, (await kept(table)).tokens.access_token
        else:
            from sealbus.agents.dev.users import approver_token

            settings = load_settings(self.config).for_command()
            token = await asyncio.to_thread(approver_token, settings, self.user, acr=self.acr)
            url = self.edge or settings.edge.resource
        if url is None:
            raise ConfigurationError("name the edge: --edge URL, or client.resource in the settings")
        return Approvals(url, token)


def _person_options(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Add `--edge`, `--user`, `--acr`, `--config` and `--json`, which become one `ApprovingPerson`, `person`."""
    run_command = as_command(function)

    @functools.wraps(function)
    def command(
        *, edge: str | None, user: str | None, acr: str, config: str | None, as_json: bool, **others: Any
    ) -> None:
        run_command(person=ApprovingPerson(edge=edge, user=user, acr=acr, config=config, as_json=as_json), **others)

    for option in (
        json_option,
        config_option,
        click.option("--acr", default="", metavar="URI", help="How strong the login of --user was."),
        click.option("--user", default=None, metavar="ID", help="A user of `sealbus dev`, who has just logged in."),
        click.option("--edge", default=None, metavar="URL", help="The edge; by default the resource of your login."),
    ):
        command = option(command)
    return command


@click.group("approvals")
def command() -> None:
    """List tasks that wait for an approval, and approve or deny them.

    You act with the login of `sealbus login`. A verdict needs a token with the scope sealbus:approve.
    """


@command.command("ls")
@click.option("--queue", default="managers", show_default=True, help="The queue.")
@_person_options
async def ls(queue: str, person: ApprovingPerson) -> None:
    """List the tasks in a queue that you may see."""
    async with await person.approvals() as approvals:
        tasks = await approvals.waiting(queue)
    if person.as_json:
        for task in tasks:
            print_json(task)
    elif tasks:
        rows = [[str(task["id"])[:_SHORT], str(task["text"]), _asked_by(task), str(task["until"])] for task in tasks]
        print_table("", ["id", "what", "asked by", "until"], rows)
    else:
        note(f"nothing waits in {queue}")


@command.command("show")
@click.argument("identifier", metavar="ID")
@click.option("--queue", default="managers", show_default=True, help="The queue, if ID is only its beginning.")
@_person_options
async def show(identifier: str, queue: str, person: ApprovingPerson) -> None:
    """Show action, resource, body and user of a task. ID may be shortened, as in `ls`."""
    async with await person.approvals() as approvals:
        task = await _named(approvals, identifier, queue)
    if person.as_json:
        print_json(task)
    else:
        for line in _lines(task):
            click.echo(line)


def _verdict(verdict: str, help_: str) -> None:
    @command.command(verdict, help=help_)
    @click.argument("identifier", metavar="ID")
    @click.option("--note", "text", default="", help="A line for the record, at most 256 bytes.")
    @click.option("--yes", is_flag=True, help="Do not show it and ask first.")
    @click.option("--queue", default="managers", show_default=True, help="The queue, if ID is only its beginning.")
    @_person_options
    async def decide(identifier: str, text: str, yes: bool, queue: str, person: ApprovingPerson) -> None:
        async with await person.approvals() as approvals:
            task = await _named(approvals, identifier, queue)
            if not yes:
                for line in _lines(task):
                    note(line)
                click.confirm(f"{verdict}?", abort=True, err=True)
            await approvals.submit_verdict(str(task["id"]), verdict, decision=str(task["decision"]), note=text)
        if person.as_json:
            print_json({"id": task["id"], "verdict": verdict})
        else:
            note(f"{verdict}: counted, and recorded")


_verdict("approve", "Approve the task ID: exactly the message that is shown, and nothing else.")
_verdict("deny", "Deny the task ID: say that it should not be done.")
_verdict("withdraw", "Withdraw your verdict on the task ID, as long as it waits.")


async def _named(approvals: Approvals, text: str, queue: str) -> dict[str, Any]:
    """Return the task with the id `text`, or the only task in `queue` whose id begins with it."""
    if len(text) == 64:
        return await approvals.approval(text)
    tasks = [task for task in await approvals.waiting(queue) if str(task["id"]).startswith(text)]
    if not tasks:
        raise click.ClickException(
            f"no task that waits in {queue} and that you may approve begins with {text}: the policy says who may "
            "approve, and the requester never may"
        )
    if len(tasks) != 1:
        raise click.ClickException(f"{len(tasks)} tasks in {queue} begin with {text}: give the whole id")
    return tasks[0]


def _asked_by(task: Mapping[str, Any]) -> str:
    user = task.get("user")
    return f"{user['id']}, {task['requester']}" if isinstance(user, Mapping) else str(task["requester"])


def _lines(task: Mapping[str, Any]) -> list[str]:
    """Return the lines that a person sees of a task before deciding about it."""
    from json import dumps

    def shown(name: str) -> str:
        return dumps(task.get(name), ensure_ascii=False)

    needs = task.get("needs") or {}
    strong = f"by {' or '.join(needs['acr'])}" if needs.get("acr") else ""
    fresh = f"at most {needs['max_age']} s ago" if needs.get("max_age") is not None else ""
    verdicts = [
        f"{verdict['verdict']} by {verdict['user']} at {verdict['time']}" for verdict in task.get("verdicts", [])
    ]
    lines = [
        str(task["text"]),
        f"  action     {task['action']} of {task['agent']}",
        f"  resource   {shown('resource')}",
        f"  facts      {shown('facts')}",
        f"  body       {shown('body') if 'body' in task else '(not shown)'}",
        f"  asked by   {_asked_by(task)}",
        f"  through    {' > '.join(task.get('chain', []))}",
        f"  waits      {task['since']} to {task['until']}",
        f"  login      {', '.join(filter(None, (strong, fresh))) or 'any'}",
        f"  follows    {', '.join(task.get('follows', [])) or 'nothing'}",
        f"  said       {'; '.join(verdicts) or 'nothing'}",
        f"  id         {task['id']}",
    ]
    return [printable(line) for line in lines]
