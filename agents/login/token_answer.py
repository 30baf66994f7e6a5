"""The tokens of a person in the answer of a token endpoint (pure). They are opaque here: the edge verifies them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self, TypeGuard

from sealbus.agents.login.provider import LoginFailed
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.limits import SECOND

_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_SCOPE: Final = re.compile(r"[\x20-\x7e]{0,4096}")
_UNSAID_SECONDS: Final = 300
"""Seconds that an access token without a stated lifetime counts: an hour is usual, five minutes is safe."""
_MOST_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """An access token, its end (microseconds since the Unix epoch), and the refresh token, if there is one."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    scope: str
    expires: int

    @classmethod
    def parse(cls, members: Mapping[str, Json], *, scope: str, now: int, refresh_token: str | None = None) -> Self:
        """Return the tokens in an answer; `scope` was requested, `refresh_token` stays if there is no new one.

        Raises `LoginFailed` for any other answer, such as one with a token that is not of the type Bearer.
        """
        access, new = members.get("access_token"), members.get("refresh_token", refresh_token)
        kind, granted = members.get("token_type"), members.get("scope", scope)
        life = members.get("expires_in", _UNSAID_SECONDS)
        if not is_token(access) or not (new is None or is_token(new)):
            raise LoginFailed("the answer of the provider holds no tokens")
        if type(kind) is not str or kind.lower() != "bearer":
            raise LoginFailed("the provider gave a token that is not of the type Bearer")
        if type(life) is not int or not 0 < life <= _MOST_SECONDS:
            raise LoginFailed("the provider gave a token without a good lifetime (expires_in)")
        if type(granted) is not str or not _SCOPE.fullmatch(granted):
            raise LoginFailed("the provider gave a token with a malformed scope")
        return cls(access_token=access, refresh_token=new, scope=granted, expires=now + life * SECOND)


def is_token(value: object) -> TypeGuard[str]:
    """Return whether `value` can be a token: a text that a header field and a form can carry."""
    return type(value) is str and _TOKEN.fullmatch(value) is not None
