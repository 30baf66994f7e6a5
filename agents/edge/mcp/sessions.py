"""Track open sessions of the older protocol, and choose the session that makes room for a new one.

Clients often disappear without ending their session. The transport bounds only the sum of sessions, and refuses new ones
beyond that.
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
"""A session without requests for so long has ended."""
SESSIONS_OF_USER: Final = 16
"""As many as streams of one user: each of the user's programs has a session."""


class SessionOwner(NamedTuple):
    """The owner of a session: a user of an issuer at a client."""

    issuer: str
    subject: str
    client: str


@dataclass(slots=True)
class _Open:
    owner: SessionOwner
    used: float
    answering: int = 0
    """Requests that are being answered; the session is not idle then."""


class OpenSessions:
    """The sessions of one process, in the order of their last use. `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float], *, whole: int, of_user: int = SESSIONS_OF_USER) -> None:
        self._monotonic = monotonic
        self._whole = whole
        self._of_user = of_user
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def admit(self, user: SessionOwner) -> tuple[str, SessionOwner] | None:
        """Make room for a session of `user`; return the session that has to end for it, if any, and its owner.

        If `user` has as many sessions as one user may have, the user's own session that was idle longest ends. If the whole
        process has as many as it may have, the session that was idle longest ends among those of the users with the most
        sessions; if nobody has more than `user`, among the user's own. Raises 429 if all these sessions are answering.
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
        """Count a session of `user` as in use while the block answers a request; a session of another user is not touched."""
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
        """Forget a session that its client, `user`, has ended."""
        entry = self._open.get(session)
        if entry is not None and entry.owner == user:
            del self._open[session]

    def __contains__(self, session: str) -> bool:
        """Return whether a session is open, as far as this process knows."""
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
