"""`sealbus token`: the access token of who is logged in, or with `--user` one of a user of `sealbus dev`, for scripts."""

from __future__ import annotations

import asyncio

import click
from click.core import ParameterSource

from sealbus.agents.cli.bus.on_behalf import kept
from sealbus.agents.cli.options import config_option, json_option
from sealbus.agents.cli.output import print_json

__all__ = ["command"]


@click.command("token")
@click.option("--user", default=None, metavar="ID", help="A user of `sealbus dev`: alice, bob, or one of [dev.users].")
@click.option("--client", default="dev", show_default=True, metavar="ID", help="The OAuth client that gets the token.")
@click.option(
    "--audience", default="", metavar="URI", help="Who the token is for; the edge of `sealbus dev` by default."
)
@click.option("--scope", default="", help="Scopes, separated by spaces.")
@click.option(
    "--expires-in",
    default=900,
    show_default=True,
    type=click.IntRange(-86_400, 86_400),
    help="Seconds; below 0 the token is already expired.",
)
@click.option("--session", default="", metavar="ID", help="The login session; by default a new one.")
@click.option("--acr", default="", metavar="URI", help="How strong the login was.")
@click.option("--amr", default="", help="How the user logged in: methods, separated by spaces.")
@click.option("--login-age", default=None, type=click.IntRange(0), help="Seconds since the user logged in.")
@config_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    user: str | None,
    client: str,
    audience: str,
    scope: str,
    expires_in: int,
    session: str,
    acr: str,
    amr: str,
    login_age: int | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Print the access token of the login that `sealbus login` keeps, renewed if it is about to end.

    With --user it is one of a user of `sealbus dev`, without a login; all other options go with that.
    """
    if user is None:
        for name in ("client", "audience", "scope", "expires_in", "session", "acr", "amr", "login_age"):
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name.replace('_', '-')} goes with --user")
        _print_own(config, as_json=as_json)
        return
    from sealbus.agents.dev.idp.access import fetch_token, read_access
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config).for_command()
    if settings.dev.access is None:
        raise ConfigurationError("--user needs a running `sealbus dev`: elsewhere log in by `sealbus login`")
    answer = fetch_token(
        read_access(settings.dev.access),
        {
            "user": user,
            "client": client,
            "resource": audience,
            "scope": scope,
            "expires_in": str(expires_in),
            "session": session,
            "acr": acr,
            "amr": amr,
            "login_age": "" if login_age is None else str(login_age),
        },
    )
    if as_json:
        print_json({**answer, "issuer": settings.dev.issuer})
    else:
        click.echo(str(answer["access_token"]))


def _print_own(config: str | None, *, as_json: bool) -> None:
    from sealbus.agents.runtime.settings.settings import load_client
    from sealbus.bus.clocks import wall_clock
    from sealbus.envelopes.limits import SECOND

    login = asyncio.run(kept(load_client(config)))
    tokens = login.tokens
    if as_json:
        life = (tokens.expires - wall_clock()) // SECOND
        said = {"token_type": "Bearer", "expires_in": life, "scope": tokens.scope, "issuer": login.issuer}
        print_json({"access_token": tokens.access_token, **said})
    else:
        click.echo(tokens.access_token)
