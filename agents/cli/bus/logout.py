"""`sealbus logout`: forget a login, and have its tokens revoked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.on_behalf import login_file
from sealbus.agents.cli.options import config_option, json_option, login_options
from sealbus.agents.cli.output import note, print_json, shown_time

if TYPE_CHECKING:
    from sealbus.agents.runtime.settings.source import Flag

__all__ = ["command"]


@click.command("logout")
@login_options
@config_option
@json_option
def command(flags: list[Flag], config: str | None, as_json: bool) -> None:
    """Forget your login, and have its tokens revoked where the provider can do that.

    If several logins are kept, the settings or the options have to say which.
    """
    from sealbus.agents.login.kept_login import Choice, end_login
    from sealbus.agents.runtime.settings.settings import load_client

    table = load_client(config, flags=flags)
    ended = asyncio.run(end_login(login_file(table), Choice.of(table)))
    tokens = ended.login.tokens
    if ended.revoked:
        note(f"You are logged out at {ended.login.issuer}: its tokens are removed here and revoked there.")
    else:
        note(
            f"You are logged out at {ended.login.issuer}. It cannot revoke the access token, which counts until "
            f"{shown_time(tokens.expires)} for whoever has it."
        )
    if as_json:
        print_json(
            {
                "issuer": ended.login.issuer,
                "client_id": ended.login.client_id,
                "resource": ended.login.resource,
                "revoked": ended.revoked,
            }
        )
