"""Login on another device (RFC 8628): a person types a short code on the provider's page, and we poll for the answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeGuard

from sealbus.agents.edge.oauth.issuers import is_secure_url
from sealbus.agents.login.provider import LoginFailed, Provider, ProviderUnavailable, refusal
from sealbus.agents.login.token_answer import Tokens, is_token
from sealbus.bus.clocks import wall_clock
from sealbus.bus.ports import Clock
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import SECOND

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER: Final = 5
"""Seconds that each `slow_down` adds to the interval (RFC 8628 section 3.5)."""
_INTERVAL: Final = 5
"""Seconds between two polls if the provider names no interval (RFC 8628 section 3.2)."""
_LONGEST_INTERVAL: Final = 60
_LONGEST: Final = 1_800
"""Most seconds to wait for the person."""
_SHOWN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,62}[\x21-\x7e])?")
_URL_CHARACTERS: Final = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """The codes of one login; `device_code` is secret, the others are shown. Times are seconds."""

    device_code: str = field(repr=False)
    user_code: str
    page: str
    page_with_code: str | None
    expires_in: int
    interval: int

    @classmethod
    def parse(cls, members: Mapping[str, Json], issuer: str) -> Self:
        """Return the codes in an answer; raise `LoginFailed` if it is malformed, or cannot be shown to a person."""
        secret, shown = members.get("device_code"), members.get("user_code")
        page, complete = members.get("verification_uri"), members.get("verification_uri_complete")
        life, interval = members.get("expires_in"), members.get("interval", _INTERVAL)
        plain = issuer.startswith("http:")
        if not is_token(secret) or type(shown) is not str or not _SHOWN.fullmatch(shown):
            raise LoginFailed(f"{issuer} gave no code for a device")
        if not _is_page(page, plain=plain):
            raise LoginFailed(f"{issuer} named a page for the code that is not an https URL")
        if type(life) is not int or life <= 0 or type(interval) is not int or interval < 0:
            raise LoginFailed(f"{issuer} gave a code without good times")
        return cls(
            device_code=secret,
            user_code=shown,
            page=page,
            page_with_code=complete if _is_page(complete, plain=plain) else None,
            expires_in=min(life, _LONGEST),
            interval=min(max(interval, 1), _LONGEST_INTERVAL),
        )


async def by_device(
    provider: Provider,
    tell: Callable[[str], None],
    *,
    clock: Clock = wall_clock,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Tokens:
    """Show a code by `tell`, and return the tokens once a person has logged in with it on any device.

    Raises `LoginFailed` if the login is refused, or does not happen while the code is valid, half an hour at most.
    """
    client, endpoint = provider.client, provider.endpoints.device_authorization
    if endpoint is None:
        raise LoginFailed(f"{client.issuer} has no device flow: try `sealbus login --browser`")
    granted = await provider.ask(endpoint, client.parameters)
    if granted.error:
        raise refusal(granted, client.issuer)
    code = DeviceCode.parse(granted.members, client.issuer)
    end = clock() + code.expires_in * SECOND
    tell(f"On any device, open {code.page} and type the code {code.user_code}")
    if code.page_with_code is not None:
        tell(f"or open {code.page_with_code} and go on only if it shows that code.")
    tell(f"Waiting for you, {code.expires_in // 60 or 1} min at most.")
    form = {"grant_type": GRANT, "device_code": code.device_code, **client.target}
    interval = code.interval
    while True:
        await pause(interval)
        if clock() >= end:
            raise _expired()
        try:
            answer = await provider.ask(provider.endpoints.token, form)
        except ProviderUnavailable as error:
            interval = min(2 * interval, _LONGEST_INTERVAL)
            tell(f"{error.detail}; asking again in {interval} s.")
            continue
        match answer.error:
            case "":
                return Tokens.parse(answer.members, scope=client.scope, now=clock())
            case "authorization_pending":
                pass
            case "slow_down":
                interval += SLOWER
                tell(f"Asked too often: from now on every {interval} s.")
            case "expired_token":
                raise _expired()
            case _:
                raise refusal(answer, client.issuer)


def _expired() -> LoginFailed:
    return LoginFailed("the code expired before you logged in with it: run `sealbus login` again")


def _is_page(url: object, *, plain: bool) -> TypeGuard[str]:
    return type(url) is str and len(url) <= _URL_CHARACTERS and is_secure_url(url, plain=plain)
