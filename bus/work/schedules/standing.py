"""Standing grants: schedules that act for the user who asked for them, and the floors that no policy lifts. Pure.

The owner is an edge. A grant covers one action with one body. At each tick the edge mints a context of the user as at the
time of the grant, with less scope, and with a session that says that the user is absent.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, Protocol

from sealbus.bus.work.schedules.book import Schedule
from sealbus.bus.work.schedules.request import Planned, ScheduleRequest, ScheduleState
from sealbus.bus.work.schedules.rule import Every
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.user_context import STANDING, ContextDraft, UserContext, standing_session
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId

STANDING_SCOPE: Final = "sealbus:schedule"
"""The scope that a user needs for standing grants."""
STANDING_SHORTEST: Final = 60
"""Least seconds between two ticks for a user. A cron expression has no shorter interval."""
STANDING_LASTS: Final = 90 * 86_400 * SECOND
"""Microseconds that a standing grant lasts at most."""
STANDING_UNSAID: Final = 30 * 86_400 * SECOND
"""The same, by default."""
STANDING_OF_USER: Final = 32
"""Standing grants of one user that are neither removed nor over."""

_PREFIX: Final = 24
"""Hex digits of the hash with which the stored names of a user begin: nobody can find two users with the same digits."""
_OWN: Final = re.compile(r"[A-Za-z0-9_-]{1,39}")
_ASKING: Final = 60 * SECOND
_OURS: Final = "sealbus:"
"""The prefix of scopes about sealbus itself. A tick does not have them, so it can neither approve nor schedule."""


class StandingGrants(Protocol):
    """The checks and contexts of standing grants, by their owner. An owner without it runs no schedule for users."""

    def admit(self, request: ScheduleRequest, message: VerifiedMessage, known: Schedule | None) -> bytes:
        """Return the payload of the context to keep with the schedule. Raise `HandlingError` if it breaks a floor."""

    async def may_send(self, schedule: Schedule) -> bool:
        """Return whether the policy still allows this for its user. Raises `SealbusError` if it cannot be asked."""

    def ended(self, schedule: Schedule) -> str:
        """Return why a schedule is over for good, or an empty text."""

    def statement(self, schedule: Schedule) -> Statement:
        """Mint the context of one tick."""

    async def sent(self, schedule: Schedule, task: PendingRequest) -> None:
        """Note the task of a tick. Raises nothing."""


def standing_name(user: UserContext, name: str) -> str:
    """Return the stored name of the schedule that `user` calls `name`. Two users never have the same.

    Raises `ValueError` for a name that is not 1 to 39 letters, digits, `_` and `-`.
    """
    if _OWN.fullmatch(name) is None:
        raise ValueError("a name is 1 to 39 letters, digits, _ and -")
    return f"{_prefix(user)}-{name}"


def own_name(stored: str) -> str:
    """Return the name that its user gave to the schedule `stored`."""
    return stored[_PREFIX + 1 :]


def is_of(stored: str, user: UserContext) -> bool:
    """Return whether `stored` is the name of a schedule of `user`."""
    return stored.startswith(f"{_prefix(user)}-")


def users_part(stored: str) -> str:
    """Return the part of a stored name that all schedules of its user have in common."""
    return stored[: _PREFIX + 1]


def check_standing(request: ScheduleRequest, message: VerifiedMessage, *, own: SpiffeId, fresh: int) -> UserContext:
    """Return the context of the person who sends `request`; raise `HandlingError` (`bad_body`) if it breaks a floor.

    `own` is the edge. For a grant, the login of the person is at most `fresh` seconds old.
    """
    header, context = message.header, message.context
    if context is None or header.par is not None or header.iss != own or context.iss != own or context.wkl is not None:
        raise _broken("it is not by this edge alone, for a user who is present")
    if context.typ is not None or context.sid.startswith(STANDING):
        raise _broken("it is not by a person")
    if not is_of(request.name, context):
        raise _broken("its name is not one of its user")
    if request.planned is None:
        if request.state is not ScheduleState.REMOVED:
            raise _broken("a standing grant can only be granted or removed")
        return context
    if STANDING_SCOPE not in context.scp:
        raise _broken("the scope is missing")
    # The edge has checked the age when the request came, so allow for the time since. If only this check refused a grant, the
    # log would show that the grant that it replaces has ended.
    if context.aut is None or header.iat - context.aut > fresh * SECOND + _ASKING:
        raise _broken("the login is too old")
    try:
        check_granted(request.planned, header.iat)
    except ValueError as error:
        raise _broken(str(error)) from error
    return context


def check_granted(planned: Planned, now: int) -> None:
    """Raise `ValueError` unless a user may grant this at `now` (microseconds)."""
    if planned.grants is None:
        raise ValueError("grants are required: [] lets nothing follow")
    if isinstance(planned.when, Every) and planned.when.seconds < STANDING_SHORTEST:
        raise ValueError(f"an interval is at least {STANDING_SHORTEST} s")
    if planned.until > now + STANDING_LASTS + DEFAULT_LIMITS.clock_skew:
        raise ValueError("until is at most 90 days away")
    if planned.partition is not None:
        raise ValueError("a standing grant has no partition")


def standing_draft(
    user: UserContext, grant: bytes, *, transaction: bytes, now: int, start: int, life: int
) -> ContextDraft:
    """Return the context of a tick for an absent user; `user` is the context of the message with H(header) `grant`.

    A chain may start with it for `start` microseconds, and go on for `life` microseconds, from `now` on.
    """
    return ContextDraft(
        txn=transaction,
        aud=user.aud,
        iat=now,
        exp=now + start,
        end=now + life,
        sub=user.sub,
        idp=user.idp,
        sid=standing_session(grant),
        cid=user.cid,
        scp=tuple([scope for scope in user.scp if not scope.startswith(_OURS)]),
        clm=user.clm,
        ten=user.ten,
        acr=user.acr,
        amr=user.amr,
        aut=user.aut,
        dom=user.dom,
    )


def _prefix(user: UserContext) -> str:
    return sha256(f"{user.idp}\0{user.sub}".encode()).hexdigest()[:_PREFIX]


def _broken(detail: str) -> HandlingError:
    return HandlingError(Code.BAD_BODY, detail)
