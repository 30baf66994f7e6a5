"""`sealbus token --user ID`: an access token of a demo user, for scripts; only where `sealbus dev` runs."""

from __future__ import annotations

import click

from sealbus.agents.cli.options import config_option, json_option
from sealbus.agents.cli.output import print_json

__all__ = ["command"]


@click.command("token")
@click.option(
    "--user", required=True, metavar="ID", help="A demo user: alice, bob, carol, dave, or one from [dev.users]."
)
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
@config_option
@json_option
def command(
    user: str, client: str, audience: str, scope: str, expires_in: int, session: str, config: str | None, as_json: bool
) -> None:
    """Print an access token as a login at the development identity provider would issue it."""
    from sealbus.agents.dev.idp.access import fetch_token, read_access
    from sealbus.agents.runtime.settings.settings import load_settings
    from sealbus.envelopes.errors import ConfigurationError

    settings = load_settings(config).for_command()
    if settings.dev.access is None:
        raise ConfigurationError("tokens without a login exist only where `sealbus dev` runs: start it in this folder")
    answer = fetch_token(
        read_access(settings.dev.access),
        {
            "user": user,
            "client": client,
            "resource": audience,
            "scope": scope,
            "expires_in": str(expires_in),
            "session": session,
        },
    )
    if as_json:
        print_json({**answer, "issuer": settings.dev.issuer})
    else:
        click.echo(str(answer["access_token"]))
