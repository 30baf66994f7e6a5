"""How many sessions of the older protocol one user has open: the transport bounds only all of them together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import Code

__all__ = ["IDLE_SECONDS", "SESSIONS_OF_USER", "OpenSessions"]

IDLE_SECONDS: Final = 1_800
"""A session without requests for as long has ended."""
SESSIONS_OF_USER: Final = 16
"""As many as streams of one user: each program of theirs has one."""


class OpenSessions:
    """The sessions of one process, by when they were last used. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float], *, whole: int, of_user: int = SESSIONS_OF_USER) -> None:
        self._monotonic = monotonic
        self._whole = whole
        self._of_user = of_user
        self._open: OrderedDict[str, tuple[Hashable, float]] = OrderedDict()

    def admit(self, user: Hashable) -> None:
        """Raise 429 if `user` has as many sessions as one may, or there are as many as there may be."""
        self._forget_idle()
        own = sum(owner == user for owner, _ in self._open.values())
        if own >= self._of_user or len(self._open) >= self._whole:
            raise EdgeError(Code.RATE_LIMITED, 429, "too many sessions are open", retry_after=60)

    def used(self, session: str, user: Hashable) -> None:
        """Count a session of `user` that was opened, or used again; another's stays theirs."""
        if self._open.get(session, (user, 0))[0] == user:
            self._open[session] = (user, self._monotonic())
            self._open.move_to_end(session)

    def ended(self, session: str, user: Hashable) -> None:
        """Take off a session that its client, `user`, has ended."""
        if self._open.get(session, (None, 0))[0] == user:
            del self._open[session]

    def __contains__(self, session: str) -> bool:
        """Return whether a session is open, as far as is known here."""
        return session in self._open

    def _forget_idle(self) -> None:
        last = self._monotonic() - IDLE_SECONDS
        while self._open and next(iter(self._open.values()))[1] <= last:
            self._open.popitem(last=False)
