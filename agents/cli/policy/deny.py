"""`sealbus deny add|ls|rm`: stop a workload, user, session or client without waiting for a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import Invocation, Moment, invocation_options, workload_id
from sealbus.agents.cli.output import print_json, print_table
from sealbus.agents.cli.policy.key_option import key_option, read_key
from sealbus.agents.cli.policy.push import Act, open_store, print_pushed, reason_option
from sealbus.bus.inspection.documents import shown_time

if TYPE_CHECKING:
    from sealbus.agents.runtime.policy.deny_list import Denial
    from sealbus.agents.runtime.policy.push import Pushed


_kind = click.argument("kind", type=click.Choice(["workload", "user", "session", "client"]))
_identifier = click.argument("identifier", metavar="ID")


@click.group("deny")
def command() -> None:
    """Deny a workload, user, session or client from the next message on."""


@command.command("add")
@_kind
@_identifier
@click.option(
    "--issued-before",
    type=Moment(),
    default=None,
    help="Deny only a workload's credentials issued before then, for instance after its keys were replaced.",
)
@reason_option
@key_option()
@invocation_options("operator")
async def add(
    kind: str, identifier: str, issued_before: int | None, reason: str, key_file: Path, invocation: Invocation,
) -> None:  # fmt: skip
    """Deny ID: a SPIFFE ID or an agent's name, a user's, session's or client's id."""
    if issued_before is not None and kind != "workload":
        raise click.UsageError("--issued-before is for workloads")
    named = _named(kind, identifier, invocation.config)
    pushed = await deny(invocation, kind, named, reason=reason, key_file=key_file, before=issued_before or 0)
    print_pushed(pushed, as_json=invocation.as_json)


async def deny(
    invocation: Invocation,
    kind: str,
    id_: str,
    *,
    reason: str,
    key_file: Path,
    before: int = 0,
    action: str = "deny",
) -> Pushed:
    """Push the denial of `id_`, recorded as `action`; raises as `change_platform` does."""
    from sealbus.agents.runtime.policy import deny_list as denials
    from sealbus.agents.runtime.policy.push import change_platform, push_denial
    from sealbus.bus.clocks import wall_clock

    denial = denials.Denial(kind=kind, id=id_, before=before, at=shown_time(wall_clock()), reason=reason)
    async with open_store(invocation, Act(action, f"{kind} {id_}", reason)) as (store, anchors):
        push = push_denial if invocation.settings().policy.denials == "entry" else change_platform
        return await push(store, anchors, denials.add(denial), read_key(key_file))


@command.command("ls")
@invocation_options("operator")
async def ls(invocation: Invocation) -> None:
    """List everything that is denied."""
    from sealbus.agents.runtime.policy.deny_list import denials
    from sealbus.agents.runtime.policy.push import stored_parts

    async with open_store(invocation) as (store, anchors):
        parts, _ = await stored_parts(store, anchors)
    data = parts.platform_data()
    denied = list(denials(data)) if data is not None else []
    if invocation.as_json:
        for denial in denied:
            print_json(_document(denial))
    else:
        rows = [tuple(_document(denial).values()) for denial in denied]
        print_table("", ("kind", "id", "issued before", "since", "reason"), rows)


@command.command("rm")
@_kind
@_identifier
@reason_option
@key_option()
@invocation_options("operator")
async def rm(kind: str, identifier: str, reason: str, key_file: Path, invocation: Invocation) -> None:
    """Remove ID from the deny list."""
    from sealbus.agents.runtime.policy import deny_list as denials
    from sealbus.agents.runtime.policy.push import change_platform

    named = _named(kind, identifier, invocation.config)
    change = denials.forget(kind, named)
    async with open_store(invocation, Act("allow", f"{kind} {named}", reason)) as (store, anchors):
        print_pushed(await change_platform(store, anchors, change, read_key(key_file)), as_json=invocation.as_json)


def _document(denial: Denial) -> dict[str, str]:
    return {
        "kind": denial.kind,
        "id": denial.id,
        "issued_before": shown_time(denial.before) if denial.before else "",
        "at": denial.at,
        "reason": denial.reason,
    }


def _named(kind: str, identifier: str, config: str | None) -> str:
    """Return the id in the form of the registry: for a workload its SPIFFE ID, even if `identifier` is its name."""
    if kind != "workload":
        return identifier
    from sealbus.agents.runtime.settings.settings import load_settings

    return str(workload_id(identifier, lambda: load_settings(config).names))
