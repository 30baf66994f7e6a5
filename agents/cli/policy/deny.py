"""`sealbus deny add|ls|rm`: stop a workload, user, session or client without waiting for a release."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import Moment, as_option, config_option, json_option
from sealbus.agents.cli.output import print_json, print_table, shown_time
from sealbus.agents.cli.policy.key_option import key_option, read_key
from sealbus.agents.cli.policy.push import open_store, tell

if TYPE_CHECKING:
    from sealbus.agents.runtime.policy.deny_list import Denial

__all__ = ["command"]

_kind = click.argument("kind", type=click.Choice(["workload", "user", "session", "client"]))
_one = click.argument("one", metavar="ID")


@click.group("deny")
def command() -> None:
    """Deny a workload, user, session or client from the next message on."""


@command.command("add")
@_kind
@_one
@click.option(
    "--issued-before",
    type=Moment(),
    default=None,
    help="Deny only a workload's credentials issued before then, for instance after its keys were replaced.",
)
@click.option("--reason", default="", help="Shown to readers of the list.")
@key_option()
@config_option
@as_option("operator")
@json_option
def add(
    kind: str, one: str, issued_before: int | None, reason: str, key_file: Path, config: str | None, as_name: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Deny ID: a SPIFFE ID or an agent's name, a user's, session's or client's id."""
    if issued_before is not None and kind != "workload":
        raise click.UsageError("--issued-before is for workloads")
    asyncio.run(_add(kind, one, issued_before or 0, reason, key_file, config, as_name, as_json=as_json))


@command.command("ls")
@config_option
@as_option("operator")
@json_option
def ls(config: str | None, as_name: str, as_json: bool) -> None:
    """List everything that is denied."""
    asyncio.run(_ls(config, as_name, as_json=as_json))


@command.command("rm")
@_kind
@_one
@key_option()
@config_option
@as_option("operator")
@json_option
def rm(kind: str, one: str, key_file: Path, config: str | None, as_name: str, as_json: bool) -> None:
    """Remove ID from the deny list."""
    asyncio.run(_rm(kind, one, key_file, config, as_name, as_json=as_json))


async def _add(
    kind: str, one: str, before: int, reason: str, key_file: Path, config: str | None, as_name: str, *, as_json: bool
) -> None:
    from sealbus.agents.runtime.policy import deny_list as denials
    from sealbus.agents.runtime.policy.push import change_platform
    from sealbus.bus.clocks import wall_clock

    denial = denials.Denial(
        kind=kind, id=_named(kind, one, config), before=before, at=shown_time(wall_clock()), reason=reason
    )
    async with open_store(config, as_name) as (store, anchors):
        tell(await change_platform(store, anchors, denials.add(denial), read_key(key_file)), as_json=as_json)


async def _rm(kind: str, one: str, key_file: Path, config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.runtime.policy import deny_list as denials
    from sealbus.agents.runtime.policy.push import change_platform

    change = denials.forget(kind, _named(kind, one, config))
    async with open_store(config, as_name) as (store, anchors):
        tell(await change_platform(store, anchors, change, read_key(key_file)), as_json=as_json)


async def _ls(config: str | None, as_name: str, *, as_json: bool) -> None:
    from sealbus.agents.runtime.policy.deny_list import denials
    from sealbus.agents.runtime.policy.push import stored_parts
    from sealbus.policies.bundle.ownership import PLATFORM

    async with open_store(config, as_name) as (store, anchors):
        parts, _ = await stored_parts(store, anchors)
    platform = parts.bundle(PLATFORM)
    found = list(denials(platform.data)) if platform is not None else []
    if as_json:
        for one in found:
            print_json(_document(one))
    else:
        rows = [tuple(_document(one).values()) for one in found]
        print_table("", ("kind", "id", "issued before", "since", "reason"), rows)


def _document(one: Denial) -> dict[str, str]:
    return {
        "kind": one.kind,
        "id": one.id,
        "issued_before": shown_time(one.before) if one.before else "",
        "at": one.at,
        "reason": one.reason,
    }


def _named(kind: str, one: str, config: str | None) -> str:
    """Return the id as the registry has it: for a workload its SPIFFE ID, even if it was given by name."""
    if kind != "workload":
        return one
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError, EnvelopeError
    from sealbus.envelopes.trust.spiffe_id import SpiffeId

    if not one.startswith("spiffe://"):
        return str(load_settings(config).names.id_of(one))
    try:
        return str(SpiffeId.parse(one))
    except EnvelopeError as error:
        raise ConfigurationError(f"{one[:255]!r} is not a SPIFFE ID") from error
