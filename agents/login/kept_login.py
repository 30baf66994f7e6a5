"""The login that commands use: chosen from those kept, refreshed before it ends, ended by a logout."""

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

__all__ = [
    "FRESH",
    "Choice",
    "Ended",
    "LoginRequired",
    "current_login",
    "end_login",
    "keep_login",
    "refreshed_tokens",
    "revoke_tokens",
]

FRESH: Final = 60 * SECOND
"""An access token is refreshed if it ends sooner than that: it is to live until the edge has looked at it."""
_GONE: Final = frozenset({"invalid_grant"})
"""What a provider says of a refresh token that will never be good again."""


class LoginRequired(SealbusError):
    """Nobody is logged in, or no longer: a person has to log in first."""

    code = Code.LOGIN_REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which login is meant. What is `None` may be anything, as long as one login alone fits."""

    issuer: str | None = None
    client_id: str | None = None
    resource: str | None = None

    @classmethod
    def of(cls, table: ClientTable) -> Self:
        """Return the choice that the settings make."""
        return cls(issuer=table.issuer, client_id=table.client_id, resource=table.resource)

    def among(self, logins: Sequence[KeptLogin]) -> KeptLogin:
        """Return the login of `logins` that fits; raises `LoginRequired` for none, `ConfigurationError` for several."""
        found = [
            one
            for one in logins
            if self.issuer in (None, one.issuer)
            and self.client_id in (None, one.client_id)
            and self.resource in (None, one.resource)
        ]
        if not found:
            at = f" at {self.issuer}" if self.issuer is not None else ""
            raise LoginRequired(f"you are not logged in{at}: run `sealbus login`")
        if len(found) > 1:
            names = "; ".join(f"{one.issuer} {one.client_id} {one.resource or ''}".rstrip() for one in found)
            raise ConfigurationError(f"several logins fit, so set client.issuer, client_id or resource: {names}")
        return found[0]


@dataclass(frozen=True, slots=True)
class Ended:
    """A login that was ended; `revoked` is false if its provider cannot revoke tokens, so that they count until they end."""

    login: KeptLogin
    revoked: bool


async def keep_login(file: LoginFile, client: PublicClient, tokens: Tokens, *, clock: Clock = wall_clock) -> KeptLogin:
    """Keep the tokens of a new login in place of those of a former one; return it. Raises `ConfigurationError`."""
    made = KeptLogin(issuer=client.issuer, client_id=client.client_id, resource=client.resource, tokens=tokens)
    async with file.locked():
        _replace(file, made, made, now=clock())
    return made


async def current_login(
    file: LoginFile, choice: Choice, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> KeptLogin:
    """Return the chosen login with an access token that is good now; it is refreshed if it is about to end.

    Of several processes one refreshes, and the others take what it got: a provider may revoke a login whose refresh token is
    used twice. Raises `LoginRequired`, `LoginFailed`, `ConfigurationError`.
    """
    found = choice.among(file.read())
    if found.tokens.expires > clock() + FRESH:
        return found
    async with file.locked():
        found = choice.among(file.read())
        if found.tokens.expires > clock() + FRESH:
            return found
        if found.tokens.refresh_token is None:
            return _still_good(found, clock())
        try:
            return await _refreshed(file, found, found.tokens.refresh_token, tls, clock)
        except ProviderUnavailable:
            if found.tokens.expires > clock():
                return found
            raise


async def end_login(
    file: LoginFile, choice: Choice, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> Ended:
    """Remove the chosen login from the file, then have its tokens revoked (RFC 7009).

    Raises `LoginRequired` if there is none, `LoginFailed` if the provider should have revoked them and did not; then it is
    removed nevertheless.
    """
    async with file.locked():
        found = choice.among(file.read())
        _replace(file, found, None, now=clock())
    trouble = ""
    try:
        async with open_provider(_client(found), tls=tls) as provider:
            return Ended(found, await revoke_tokens(provider, found.tokens))
    except LoginFailed as error:
        trouble = error.detail
    raise LoginFailed(f"the login is removed here, but its tokens are not revoked at the provider: {trouble}")


async def _refreshed(
    file: LoginFile, found: KeptLogin, token: str, tls: ssl.SSLContext | None, clock: Clock
) -> KeptLogin:
    tokens = await refreshed_tokens(_client(found), found.tokens.scope, token, tls=tls, clock=clock)
    if tokens is None:
        _replace(file, found, None, now=clock())
        raise LoginRequired(f"your login at {found.issuer} has ended: run `sealbus login`")
    made = replace(found, tokens=tokens)
    _replace(file, found, made, now=clock())
    return made


async def refreshed_tokens(
    client: PublicClient, scope: str, token: str, *, tls: ssl.SSLContext | None = None, clock: Clock = wall_clock
) -> Tokens | None:
    """Return new tokens for a refresh token that was given with `scope`, None if it is good for none any more.

    Raises `LoginFailed`.
    """
    async with open_provider(client, tls=tls) as provider:
        form = {"grant_type": "refresh_token", "refresh_token": token, **client.target}
        answer = await provider.ask(provider.endpoints.token, form)
    if answer.error in _GONE:
        return None
    if answer.error:
        raise refusal(answer, client.issuer)
    return Tokens.parse(answer.members, scope=scope, now=clock(), refresh_token=token)


async def revoke_tokens(provider: Provider, tokens: Tokens) -> bool:
    """Have all `tokens` revoked; return false if the provider cannot do that. Raises `LoginFailed` if it did not."""
    # The refresh token first: with it most providers revoke what it got, too.
    if tokens.refresh_token is not None and not await provider.revoke(tokens.refresh_token, "refresh_token"):
        return False
    return await provider.revoke(tokens.access_token, "access_token")


def _client(login: KeptLogin) -> PublicClient:
    return PublicClient(issuer=login.issuer, client_id=login.client_id, resource=login.resource)


def _still_good(found: KeptLogin, now: int) -> KeptLogin:
    if found.tokens.expires > now:
        return found
    raise LoginRequired(
        f"your login at {found.issuer} has ended, and the provider gave nothing to renew it with: run `sealbus login`"
    )


def _replace(file: LoginFile, former: KeptLogin, made: KeptLogin | None, *, now: int) -> None:
    others = [one for one in file.read() if one.key != former.key]
    file.write(others if made is None else [*others, made], now=now)
