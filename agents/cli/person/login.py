"""`sealbus login` and `sealbus logout`: a login at an identity provider, by a browser or by a code on another device."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import click

from sealbus.agents.cli.options import config_option, json_option, login_options
from sealbus.agents.cli.output import note, print_json
from sealbus.agents.cli.person.on_behalf import login_file
from sealbus.bus.inspection.documents import shown_time

if TYPE_CHECKING:
    from sealbus.agents.login.public_client import PublicClient
    from sealbus.agents.login.token_answer import Tokens
    from sealbus.agents.runtime.settings.source import Flag


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
    # First, so that nobody logs in if the login cannot be kept.
    file.read()

    async def logged_in() -> None:
        login = await keep_login(file, client, await _tokens(client, way))
        lasts = "it is renewed when needed" if login.tokens.refresh_token is not None else "then log in again"
        note(
            f"You are logged in at {client.issuer} until {shown_time(login.tokens.expires)}; {lasts}. Kept in {file.path}"
        )
        if as_json:
            print_json(
                {
                    "issuer": login.issuer,
                    "client_id": login.client_id,
                    "resource": login.resource,
                    "scope": login.tokens.scope,
                    "expires": shown_time(login.tokens.expires),
                    "renewed": login.tokens.refresh_token is not None,
                    "file": str(file.path),
                }
            )

    asyncio.run(logged_in())


@click.command("logout")
@login_options
@config_option
@json_option
def logout(flags: list[Flag], config: str | None, as_json: bool) -> None:
    """Forget your login, and have its tokens revoked where the provider can do that.

    If several logins are kept, choose one by the settings or the options.
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


async def _tokens(client: PublicClient, way: str | None) -> Tokens:
    from sealbus.agents.login.code_flow import by_browser
    from sealbus.agents.login.device_flow import by_device
    from sealbus.agents.login.provider import open_provider

    async with open_provider(client) as provider:
        if way == "device" or (way is None and provider.endpoints.device_authorization is not None):
            return await by_device(provider, note)
        return await by_browser(provider, note, open_page)


def open_page(page: str) -> None:
    """Open a browser at `page`, if this terminal belongs to a window system."""
    # Only with a window system: a browser in the terminal would take the terminal over.
    if sys.stderr.isatty() and (sys.platform == "darwin" or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()):
        click.launch(page)
