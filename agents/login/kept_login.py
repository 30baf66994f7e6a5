"""The login that commands use: chosen from the stored logins, refreshed before it ends, ended by a logout."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from sealbus.agents.login.login_file import KeptLogin, LoginFile
from sealbus.agents.login.provider import LoginFailed, Provider, ProviderUnavailable, open_provider, refusal
from sealbus.agents.login.public_client import PublicClient
from sealbus.agents.login.token_answer import Tokens
from sealbus.agents.runtime.settings.schema import ClientTable
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.envelopes.errors import Code, ConfigurationError, SealbusError
from sealbus.envelopes.limits import SECOND

FRESH: Final = 60 * SECOND
"""Microseconds: an access token that ends sooner is refreshed, so that it lives until the edge has checked it."""
_GONE: Final = frozenset({"invalid_grant"})
"""The provider's errors for a refresh token that has ended."""


class LoginRequired(SealbusError):
    """No login is stored, or it has ended: a person has to log in first."""

    code = Code.LOGIN_REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The choice of a login. `None` fits every value, but only one login may fit."""

    issuer: str | None = None
    client_id: str | None = None
    resource: str | None = None

    @classmethod
    def of(cls, table: ClientTable) -> Self:
        """Return the choice in the settings."""
        return cls(issuer=table.issuer, client_id=table.client_id, resource=table.resource)

    def among(self, logins: Sequence[KeptLogin]) -> KeptLogin:
        """Return the login of `logins` that fits; raises `LoginRequired` for none, `ConfigurationError` for several."""
        fitting = [
            login
            for login in logins
            if self.issuer in (None, login.issuer)
            and self.client_id in (None, login.client_id)
            and self.resource in (None, login.resource)
        ]
        if not fitting:
            at = f" at {self.issuer}" if self.issuer is not None else ""
            raise LoginRequired(f"you are not logged in{at}: run `sealbus login`")
        if len(fitting) > 1:
            names = "; ".join(f"{login.issuer} {login.client_id} {login.resource or ''}".rstrip() for login in fitting)
            raise ConfigurationError(f"several logins fit, so set client.issuer, client_id or resource: {names}")
        return fitting[0]


@dataclass(frozen=True, slots=True)
class Ended:
    """An ended login; `revoked` is false if its provider cannot revoke tokens, which then stay valid until they end."""

    login: KeptLogin
    revoked: bool


async def keep_login(file: LoginFile, client: PublicClient, tokens: Tokens, *, clock: Clock = wall_clock) -> KeptLogin:
    """Store a new login in place of a former login with the same key; return it. Raises `ConfigurationError`."""
    made = KeptLogin(issuer=client.issuer, client_id=client.client_id, resource=client.resource, tokens=tokens)
    async with file.locked():
        _replace(file, made, made, now=clock())
    return made


async def current_login(
    file: LoginFile, choice: Choice, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> KeptLogin:
    """Return the chosen login with an access token that is good now; it is refreshed if it is about to end.

    Of several processes one refreshes, and the others use its tokens: a provider may revoke a login whose refresh token is
    used twice. Raises `LoginRequired`, `LoginFailed`, `ConfigurationError`.
    """
    login = choice.among(file.read())
    if login.tokens.expires > clock() + FRESH:
        return login
    async with file.locked():
        login = choice.among(file.read())
        if login.tokens.expires > clock() + FRESH:
            return login
        if login.tokens.refresh_token is None:
            return _still_good(login, clock())
        try:
            return await _refreshed(file, login, login.tokens.refresh_token, tls, clock)
        except ProviderUnavailable:
            if login.tokens.expires > clock():
                return login
            raise


async def end_login(
    file: LoginFile, choice: Choice, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> Ended:
    """Remove the chosen login from the file, then have its tokens revoked (RFC 7009).

    Raises `LoginRequired` if there is none; `LoginFailed` if the provider did not revoke the tokens, although the login is
    removed.
    """
    async with file.locked():
        login = choice.among(file.read())
        _replace(file, login, None, now=clock())
    trouble = ""
    try:
        async with open_provider(_client(login), tls=tls) as provider:
            return Ended(login, await revoke_tokens(provider, login.tokens))
    except LoginFailed as error:
        trouble = error.detail
    raise LoginFailed(f"the login is removed here, but its tokens are not revoked at the provider: {trouble}")


async def _refreshed(
    file: LoginFile, login: KeptLogin, token: str, tls: ssl.SSLContext | None, clock: Clock
) -> KeptLogin:
    tokens = await refreshed_tokens(_client(login), login.tokens.scope, token, tls=tls, clock=clock)
    if tokens is None:
        _replace(file, login, None, now=clock())
        raise LoginRequired(f"your login at {login.issuer} has ended: run `sealbus login`")
    made = replace(login, tokens=tokens)
    _replace(file, login, made, now=clock())
    return made


async def refreshed_tokens(
    client: PublicClient, scope: str, token: str, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> Tokens | None:
    """Return new tokens for a refresh token that was issued with `scope`, None if it has ended. Raises `LoginFailed`."""
    async with open_provider(client, tls=tls) as provider:
        form = {"grant_type": "refresh_token", "refresh_token": token, **client.target}
        answer = await provider.ask(provider.endpoints.token, form)
    if answer.error in _GONE:
        return None
    if answer.error:
        raise refusal(answer, client.issuer)
    return Tokens.parse(answer.members, scope=scope, now=clock(), refresh_token=token)


async def revoke_tokens(provider: Provider, tokens: Tokens) -> bool:
    """Have all `tokens` revoked; return false if the provider cannot revoke tokens. Raises `LoginFailed` if it refuses."""
    # The refresh token first: most providers then also revoke its access tokens.
    if tokens.refresh_token is not None and not await provider.revoke(tokens.refresh_token, "refresh_token"):
        return False
    return await provider.revoke(tokens.access_token, "access_token")


def _client(login: KeptLogin) -> PublicClient:
    return PublicClient(issuer=login.issuer, client_id=login.client_id, resource=login.resource)


def _still_good(login: KeptLogin, now: int) -> KeptLogin:
    if login.tokens.expires > now:
        return login
    raise LoginRequired(
        f"your login at {login.issuer} has ended, and the provider gave nothing to renew it with: run `sealbus login`"
    )


def _replace(file: LoginFile, former: KeptLogin, made: KeptLogin | None, *, now: int) -> None:
    others = [login for login in file.read() if login.key != former.key]
    file.write(others if made is None else [*others, made], now=now)
