"""The user for whom a command acts: nobody, the person who logged in (`--me`), or a user of `sealbus dev` (`--user`)."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from sealbus.agents.login.login_file import KeptLogin, LoginFile
    from sealbus.agents.runtime.settings.schema import ClientTable
    from sealbus.agents.runtime.settings.settings import Settings


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBehalf:
    """The values of the options of `user_options`. Raises `UsageError` for options that exclude each other."""

    me: bool
    user: str | None
    session: str

    def __post_init__(self) -> None:
        if self.me and self.user is not None:
            raise click.UsageError("--me is the person who logged in, --user a user of `sealbus dev`: give one of them")
        if self.session and self.user is None:
            raise click.UsageError("--session goes with --user")

    async def token(self, settings: Settings) -> str | None:
        """Return the access token to exchange at the edge, `None` to act for nobody."""
        if self.me:
            return (await kept(settings.client)).tokens.access_token
        if self.user is None:
            return None
        from sealbus.agents.dev.users import dev_token

        return await asyncio.to_thread(dev_token, settings, self.user, self.session)


def user_options(function: F) -> F:
    """Add `--me`, `--user ID` and `--session ID`, which become one `OnBehalf`, `on_behalf`."""

    @functools.wraps(function)
    def with_user(*, me: bool, user: str | None, session: str, **others: Any) -> Any:
        return function(on_behalf=OnBehalf(me=me, user=user, session=session), **others)

    for option in (
        click.option("--session", default="", metavar="ID", help="The login session of --user; by default a new one."),
        click.option("--user", default=None, metavar="ID", help="Act for this user; only where `sealbus dev` runs."),
        click.option("--me", is_flag=True, help="Act for yourself, by what `sealbus login` keeps."),
    ):
        with_user = option(with_user)
    return cast("F", with_user)


def login_file(table: ClientTable) -> LoginFile:
    """Return the file in which logins are kept: `client.logins`, or the user's own."""
    from sealbus.agents.login.login_file import LoginFile, default_file

    return LoginFile(table.logins if table.logins is not None else default_file(os.environ))


async def kept(table: ClientTable) -> KeptLogin:
    """Return the login that the settings choose, with an access token that is valid now."""
    from sealbus.agents.login.kept_login import Choice, current_login

    return await current_login(login_file(table), Choice.of(table))
