"""Which requests were answered: none is answered twice while it is fresh, in bounded memory."""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

__all__ = ["SeenRequests"]

MOST: Final = 65_536
"""Requests that are remembered: they are fresh for seconds, and one responder answers some thousands in these."""


class SeenRequests:
    """Remembers requests by the nkey that the server makes for each. Each responder remembers its own.

    A copy that another responder answers gives a user JWT for a key that nobody has, sealed for the server: the copies
    are refused because nobody honest makes any.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._expiries: dict[str, int] = {}

    def take(self, user: str, *, expires: int, now: int) -> None:
        """Remember a request until it is no longer fresh; `expires` is in seconds, `now` in microseconds.

        Raises `ConnectRefused`: `replayed` if it was taken before, `overloaded` if no more can be remembered.
        """
        if user in self._expiries:
            raise ConnectRefused(Code.REPLAYED)
        if len(self._expiries) >= self._most:
            self._forget(now)
        if len(self._expiries) >= self._most:
            raise ConnectRefused(Code.OVERLOADED, "more fresh requests than can be remembered")
        self._expiries[user] = expires * SECOND + DEFAULT_LIMITS.clock_skew

    def _forget(self, now: int) -> None:
        self._expiries = {user: until for user, until in self._expiries.items() if until >= now}
