"""Which sessions of the older protocol are open, and which one makes room: clients often end without ending theirs.

The transport bounds only all sessions together, and refuses new ones beyond that.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealbus.agents.edge.http.problem import EdgeError
from sealbus.envelopes.errors import Code

IDLE_SECONDS: Final = 1_800
"""A session without requests for as long has ended."""
SESSIONS_OF_USER: Final = 16
"""As many as streams of one user: each program of theirs has one."""


class SessionOwner(NamedTuple):
    """Whose a session is: a user of an issuer at a client."""

    issuer: str
    subject: str
    client: str


@dataclass(slots=True)
class _Open:
    owner: SessionOwner
    used: float
    answering: int = 0
    """Requests that are being answered: such a session is not idle."""


class OpenSessions:
    """The sessions of one process, by when they were last used. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float], *, whole: int, of_user: int = SESSIONS_OF_USER) -> None:
        self._monotonic = monotonic
        self._whole = whole
        self._of_user = of_user
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def admit(self, user: SessionOwner) -> tuple[str, SessionOwner] | None:
        """Make room for a session of `user`; return the session that has to end for it, and whose it is.

        Where `user` has as many as one may have, their own that is idle longest ends. Where all together are as many as there
        may be, it is the one that is idle longest of those who have the most, but none of somebody who has fewer than `user`
        or as many. Raises 429 where each of these is answering.
        """
        self._forget_idle()
        counts = Counter(entry.owner for entry in self._open.values())
        if counts[user] >= self._of_user:
            owners = {user}
        elif len(self._open) >= self._whole:
            most = max(counts.values(), default=0)
            owners = {owner for owner, count in counts.items() if count == most} if most > counts[user] else {user}
        else:
            return None
        for session, entry in self._open.items():
            if entry.owner in owners and not entry.answering:
                del self._open[session]
                return session, entry.owner
        raise EdgeError(Code.RATE_LIMITED, 429, "too many sessions are open", retry_after=60)

    @contextmanager
    def answering(self, session: str, user: SessionOwner) -> Generator[None, None, None]:
        """Count a session of `user` as used while a request of it is answered, and from then on; another's stays theirs."""
        entry = self._open.setdefault(session, _Open(user, self._monotonic()))
        if entry.owner != user:
            yield
            return
        entry.answering += 1
        self._used(session, entry)
        try:
            yield
        finally:
            entry.answering -= 1
            self._used(session, entry)

    def ended(self, session: str, user: SessionOwner) -> None:
        """Take off a session that its client, `user`, has ended."""
        entry = self._open.get(session)
        if entry is not None and entry.owner == user:
            del self._open[session]

    def __contains__(self, session: str) -> bool:
        """Return whether a session is open, as far as is known here."""
        return session in self._open

    def _used(self, session: str, entry: _Open) -> None:
        entry.used = self._monotonic()
        if self._open.get(session) is entry:
            self._open.move_to_end(session)

    def _forget_idle(self) -> None:
        last = self._monotonic() - IDLE_SECONDS
        idle = [session for session, entry in self._open.items() if entry.used <= last and not entry.answering]
        for session in idle:
            del self._open[session]
