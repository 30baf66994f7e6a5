"""`sealbus approvals ls|show|approve|deny|withdraw`: what waits for a person, at the edge, with a login of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealbus.agents.cli.bus.on_behalf import kept
from sealbus.agents.cli.options import config_option, json_option
from sealbus.agents.cli.output import note, print_json, print_table, printable

if TYPE_CHECKING:
    from sealbus.agents.login.approvals import Approvals

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

_SHORT = 16
"""Characters of an id that a table shows; as many are enough to name one."""


def _person(function: F) -> F:
    """Add the options that say at which edge, and who."""
    for option in (
        click.option("--acr", default="", metavar="URI", help="How strong the login of --user was."),
        click.option("--user", default=None, metavar="ID", help="A user of `sealbus dev`, who has just logged in."),
        click.option("--edge", default=None, metavar="URL", help="The edge; by default what your login is for."),
    ):
        function = option(function)
    return function


@click.group("approvals")
def command() -> None:
    """See what waits for somebody's approval, and say something about it.

    You are who `sealbus login` logged in; the token needs the scope sealbus:approve to say something.
    """


@command.command("ls")
@click.option("--queue", default="managers", show_default=True, help="The queue.")
@_person
@config_option
@json_option
def ls(queue: str, edge: str | None, user: str | None, acr: str, config: str | None, as_json: bool) -> None:
    """List what waits in a queue and you may see."""

    async def run() -> None:
        async with await _opened(edge, user, acr, config) as approvals:
            found = await approvals.waiting(queue)
        if as_json:
            for one in found:
                print_json(one)
        elif found:
            rows = [[str(one["id"])[:_SHORT], str(one["text"]), _asked_by(one), str(one["until"])] for one in found]
            print_table("", ["id", "what", "asked by", "until"], rows)
        else:
            note(f"nothing waits in {queue}")

    asyncio.run(run())


@command.command("show")
@click.argument("one", metavar="ID")
@click.option("--queue", default="managers", show_default=True, help="The queue, if ID is only its beginning.")
@_person
@config_option
@json_option
def show(one: str, queue: str, edge: str | None, user: str | None, acr: str, config: str | None, as_json: bool) -> None:
    """Show what would be done, to what, for whom; ID, or its beginning, as `ls` shows it."""

    async def run() -> None:
        async with await _opened(edge, user, acr, config) as approvals:
            found = await _named(approvals, one, queue)
        if as_json:
            print_json(found)
        else:
            for line in _lines(found):
                click.echo(line)

    asyncio.run(run())


def _verdict(verdict: str, help_: str) -> None:
    @command.command(verdict, help=help_)
    @click.argument("one", metavar="ID")
    @click.option("--note", "text", default="", help="A line for the record, at most 256 bytes.")
    @click.option("--yes", is_flag=True, help="Do not show it and ask first.")
    @click.option("--queue", default="managers", show_default=True, help="The queue, if ID is only its beginning.")
    @_person
    @config_option
    @json_option
    def say(
        one: str, text: str, yes: bool, queue: str, edge: str | None, user: str | None, acr: str,
        config: str | None, as_json: bool,
    ) -> None:  # fmt: skip
        async def run() -> None:
            async with await _opened(edge, user, acr, config) as approvals:
                found = await _named(approvals, one, queue)
                if not yes:
                    for line in _lines(found):
                        note(line)
                    click.confirm(f"{verdict}?", abort=True, err=True)
                await approvals.submit_verdict(str(found["id"]), verdict, decision=str(found["decision"]), note=text)
            if as_json:
                print_json({"id": found["id"], "verdict": verdict})
            else:
                note(f"{verdict}: counted, and recorded")

        asyncio.run(run())


_verdict("approve", "Approve the task ID: exactly the message that is shown, and nothing else.")
_verdict("deny", "Deny the task ID: say that it should not be done.")
_verdict("withdraw", "Withdraw what you have said about the task ID, as long as it waits.")


async def _opened(edge: str | None, user: str | None, acr: str, config: str | None) -> Approvals:
    from sealbus.agents.login.approvals import Approvals
    from sealbus.agents.runtime.settings.settings import load_client, load_settings
    from sealbus.envelopes.errors import ConfigurationError

    if user is None:
        if acr:
            raise click.UsageError("--acr goes with --user; otherwise log in again: sealbus login --acr URI")
        table = load_client(config)
        url, token = edge or table.resource, (await kept(table)).tokens.access_token
    else:
        settings = load_settings(config).for_command()
        from sealbus.agents.dev.users import approver_token

        token = await asyncio.to_thread(lambda: approver_token(settings, user, acr=acr))
        url = edge or settings.edge.resource
    if url is None:
        raise ConfigurationError("name the edge: --edge URL, or client.resource in the settings")
    return Approvals(url, token)


async def _named(approvals: Approvals, text: str, queue: str) -> dict[str, Any]:
    """Return the one task whose id is `text`, or begins with it in `queue`."""
    if len(text) == 64:
        return await approvals.approval(text)
    found = [one for one in await approvals.waiting(queue) if str(one["id"]).startswith(text)]
    if not found:
        raise click.ClickException(
            f"no task that waits in {queue} and that you may approve begins with {text}: the policy says who may, "
            "and never who asked for it"
        )
    if len(found) != 1:
        raise click.ClickException(f"{len(found)} tasks in {queue} begin with {text}: give the whole id")
    return found[0]


def _asked_by(one: Mapping[str, Any]) -> str:
    user = one.get("user")
    return f"{user['id']}, {one['requester']}" if isinstance(user, Mapping) else str(one["requester"])


def _lines(one: Mapping[str, Any]) -> list[str]:
    """Return what is shown of a task to who decides about it."""
    from json import dumps

    def shown(name: str) -> str:
        return dumps(one.get(name), ensure_ascii=False)

    needs = one.get("needs") or {}
    strong = f"by {' or '.join(needs['acr'])}" if needs.get("acr") else ""
    fresh = f"at most {needs['max_age']} s ago" if needs.get("max_age") is not None else ""
    said = [f"{known['verdict']} by {known['user']} at {known['time']}" for known in one.get("verdicts", [])]
    lines = [
        str(one["text"]),
        f"  action     {one['action']} of {one['agent']}",
        f"  resource   {shown('resource')}",
        f"  facts      {shown('facts')}",
        f"  body       {shown('body') if 'body' in one else '(not shown)'}",
        f"  asked by   {_asked_by(one)}",
        f"  through    {' > '.join(one.get('chain', []))}",
        f"  waits      {one['since']} to {one['until']}",
        f"  login      {', '.join(filter(None, (strong, fresh))) or 'any'}",
        f"  follows    {', '.join(one.get('follows', [])) or 'nothing'}",
        f"  said       {'; '.join(said) or 'nothing'}",
        f"  id         {one['id']}",
    ]
    return [printable(line) for line in lines]
