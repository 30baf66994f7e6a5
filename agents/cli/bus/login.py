"""`sealbus login`: log in at an identity provider, in a browser or by a code on another device."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.bus.on_behalf import login_file
from sealbus.agents.cli.options import config_option, json_option, login_options
from sealbus.agents.cli.output import note, print_json, shown_time

if TYPE_CHECKING:
    from sealbus.agents.login.public_client import PublicClient
    from sealbus.agents.login.token_answer import Tokens
    from sealbus.agents.runtime.settings.source import Flag

__all__ = ["command"]


@click.command("login")
@click.option("--device", "way", flag_value="device", help="By a code that you type on any device.")
@click.option("--browser", "way", flag_value="browser", help="In a browser on this machine.")
@click.option("--scope", default=None, help="Scopes, separated by spaces (client.scope).")
@click.option("--acr", default=None, metavar="URI", help="How strong the login is to be, as a denial may ask for.")
@click.option("--max-age", default=None, type=click.IntRange(0), help="Seconds: log in again if it was longer ago.")
@login_options
@config_option
@json_option
def command(
    way: str | None,
    scope: str | None,
    acr: str | None,
    max_age: int | None,
    flags: list[Flag],
    config: str | None,
    as_json: bool,
) -> None:
    """Log in at your identity provider and keep the login, for `sealbus token` and for --me of `pub` and `call`.

    By a code on any device where the provider can do that, otherwise in a browser on this machine. The login is kept in a
    private file, and is renewed as long as the provider allows it. Where `sealbus dev` runs, its own provider is asked.
    """
    from sealbus.agents.login.kept_login import keep_login
    from sealbus.agents.login.public_client import PublicClient
    from sealbus.agents.runtime.settings.settings import load_client
    from sealbus.agents.runtime.settings.source import Flag

    table = load_client(config, flags=[*flags, Flag(option="--scope", key="client.scope", value=scope)])
    client, file = PublicClient.of(table, acr=acr, max_age=max_age), login_file(table)
    # Before anybody goes to the trouble: what cannot be kept is not asked for.
    file.read()

    async def logged_in() -> None:
        kept = await keep_login(file, client, await _tokens(client, way))
        lasts = "it is renewed when needed" if kept.tokens.refresh_token is not None else "then log in again"
        note(
            f"You are logged in at {client.issuer} until {shown_time(kept.tokens.expires)}; {lasts}. Kept in {file.path}"
        )
        if as_json:
            print_json(
                {
                    "issuer": kept.issuer,
                    "client_id": kept.client_id,
                    "resource": kept.resource,
                    "scope": kept.tokens.scope,
                    "expires": shown_time(kept.tokens.expires),
                    "renewed": kept.tokens.refresh_token is not None,
                    "file": str(file.path),
                }
            )

    asyncio.run(logged_in())


async def _tokens(client: PublicClient, way: str | None) -> Tokens:
    from sealbus.agents.login.code_flow import by_browser
    from sealbus.agents.login.device_flow import by_device
    from sealbus.agents.login.provider import open_provider

    async with open_provider(client) as provider:
        if way == "device" or (way is None and provider.endpoints.device_authorization is not None):
            return await by_device(provider, note)
        return await by_browser(provider, note, _open)


def _open(page: str) -> None:
    # Only where a window can show it: a browser of the terminal would take the terminal from us.
    if sys.stderr.isatty() and (sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        click.launch(page)
