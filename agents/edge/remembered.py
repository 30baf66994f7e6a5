"""Tokens that were verified a moment ago: a user's next request does not pay for the same signature again."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final, Protocol

from sealbus.agents.edge.access_token import AccessToken
from sealbus.agents.edge.limits import EdgeLimits
from sealbus.envelopes.limits import SECOND

__all__ = ["RememberedTokens", "TokenVerifier"]


class TokenVerifier(Protocol):
    """What judges an access token: `AccessTokenVerifier`, or a memory before it."""

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return what `token` says at `now`; raise `TokenRefused` or `KeysUnavailable`."""


class RememberedTokens:
    """Remembers what `verifier` found of a token, by its hash, for `limits.remembered_seconds` and never beyond its end.

    That is short beside how long a key set counts, so a key that its issuer withdrew counts hardly longer for it. The
    token itself is not kept, and what was refused is not remembered. At most `limits.remembered` are; the oldest goes.
    """

    def __init__(self, verifier: TokenVerifier, limits: EdgeLimits) -> None:
        self._verifier: Final = verifier
        self._most: Final = limits.remembered
        self._life: Final = limits.remembered_seconds * SECOND
        self._found: OrderedDict[bytes, tuple[AccessToken, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    async def verify(self, token: str, *, now: int) -> AccessToken:
        """Return what `token` says; raises as the verifier does."""
        name = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._found.get(name)
        # A clock that was set back makes nothing younger than it is.
        if known is not None and known[1] - self._life <= now < known[1] and now < known[0].expires:
            return known[0]
        self._found.pop(name, None)
        found = await self._verifier.verify(token, now=now)
        self._found[name] = (found, now + self._life)
        if len(self._found) > self._most:
            self._found.popitem(last=False)
        return found
