"""Schedules: tasks that an identity sends once at a given time, or repeatedly; `client.schedules` has those of a client."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.messages import own_subject, split_action
from sealbus.agents.sdk.sender import Sender, encoded
from sealbus.agents.sdk.task_handle import TaskHandle, handle_text
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.site import Site
from sealbus.bus.work.schedules.book import Schedule, ScheduleBook
from sealbus.bus.work.schedules.cron import Cron
from sealbus.bus.work.schedules.request import (
    CATCHUP,
    LASTS,
    Overlap,
    Planned,
    ScheduleRequest,
    ScheduleState,
    schedule_message,
)
from sealbus.bus.work.schedules.rule import At, Every, When, shown_when
from sealbus.bus.work.schedules.tick import TickClaims
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.spiffe_id import SpiffeId

ONCE_CATCHUP: Final = 3_600
"""Default of how many seconds late a task may be that is sent once: as long as a task waits."""
TIMEOUT: Final = 10.0
"""Seconds to wait until the owner has decided, recorded and stored a change."""


class ScheduleKeywords(TypedDict, total=False):
    """Options of a schedule."""

    overlap: str
    """Whether to `skip` (by default) or `queue` a tick while the task of the tick before has not ended."""
    catchup: int
    """Seconds that a tick may be late and still be sent, after a time without any process: 0 to a day, by default a minute,
    and an hour for a task that is sent once."""
    until: datetime | timedelta | None
    """When the schedule ends, or after how long: at most and by default after 366 days. A task that is sent once ends its
    schedule by default when it is too late to send it."""
    life: int | None
    """Seconds that each task may wait; see `Sender.submit`."""
    partition: str | None
    """The part of the tasks' subject that they go to."""
    grants: Sequence[str] | None
    """The only actions that may follow from each task; by default any."""
    media_type: str
    """Media type of the body, by default JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSchedule:
    """A schedule of ours: its action and its times.

    `asked_by` is the workload that asked for it, `grant` the hash of that request, which its tasks have as `re`. `next` is
    the time of its next tick; `None` if it is paused or over.
    """

    name: str
    state: str
    action: str
    when: str
    overlap: str
    catchup: int
    until: datetime
    next: datetime | None
    asked_by: SpiffeId
    grant: bytes


class Schedules:
    """The schedules of one identity, and its requests for schedules of others.

    The owner of a schedule is the identity that sends its tasks: its processes send them, while any of them runs. Each change
    is a message to the owner, whose policy decides about it (`<owner>._schedule`), even if we are the owner; so a process of
    the owner has to run. All changes raise `Denied` if the policy denies, `RemoteError` if there is no such schedule,
    `TimeoutError` if the owner has not answered in `timeout` seconds (it can still make the change later), `SealError` for a
    schedule that no owner would take.
    """

    def __init__(self, sending: Sender, book: ScheduleBook, claims: TickClaims, *, site: Site) -> None:
        self._sending = sending
        self._book = book
        self._claims = claims
        self._site = site

    async def add(
        self,
        name: str,
        action: TypedAction[Any, object] | str,
        body: object,
        *,
        cron: str | None = None,
        zone: str = "UTC",
        every: int | None = None,
        owner: str | None = None,
        timeout: float = TIMEOUT,
        **options: Unpack[ScheduleKeywords],
    ) -> None:
        """Send a task for `action` with `body` by a cron expression in a time zone, or every `every` seconds.

        `name` is 1 to 64 letters, digits, `_` and `-`; a schedule of that name is replaced. `owner` is the name of the agent
        that sends the tasks, by default our own.
        """
        now = self._site.bus_clock()
        with _as_seal_errors():
            if cron is not None and every is None:
                when: When = Cron(expression=cron, zone=zone)
            elif every is not None and cron is None:
                when = Every(seconds=every, start=now // SECOND * SECOND + every * SECOND)
            else:
                raise SealError("give either cron or every")
        await self._plan(name, action, body, when, now, owner, timeout, options)

    async def submit(
        self,
        action: TypedAction[Any, object] | str,
        body: object,
        *,
        at: datetime | None = None,
        after: float | None = None,
        name: str | None = None,
        owner: str | None = None,
        timeout: float = TIMEOUT,
        **options: Unpack[ScheduleKeywords],
    ) -> str:
        """Send a task once, `at` a time or `after` so many seconds; return the name of the schedule, random unless given.

        There is no handle before the task is sent. The task cannot carry a user's context, which would have ended by then.
        """
        now = self._site.bus_clock()
        if (at is None) == (after is None):
            raise SealError("give either at or after")
        time = _micros(at) if at is not None else now + int((after or 0.0) * SECOND)
        if time < now:
            raise SealError("this time has passed")
        name = name if name is not None else f"once-{secrets.token_hex(8)}"
        with _as_seal_errors():
            when = At(time=time)
        late = options.get("catchup", ONCE_CATCHUP)
        last = timedelta(microseconds=time - now + (late + 60) * SECOND)
        keywords: ScheduleKeywords = {"until": min(last, timedelta(microseconds=LASTS)), **options, "catchup": late}
        await self._plan(name, action, body, when, now, owner, timeout, keywords)
        return name

    async def pause(self, name: str, *, owner: str | None = None, timeout: float = TIMEOUT) -> None:
        """Have a schedule send nothing until it is resumed."""
        await self._ask(ScheduleState.PAUSED, name, owner, timeout)

    async def resume(self, name: str, *, owner: str | None = None, timeout: float = TIMEOUT) -> None:
        """Have a paused schedule go on; the ticks that it missed are not sent."""
        await self._ask(ScheduleState.ON, name, owner, timeout)

    async def remove(self, name: str, *, owner: str | None = None, timeout: float = TIMEOUT) -> None:
        """End a schedule. A tick that is being sent now may still be sent; tasks that were sent go on."""
        await self._ask(ScheduleState.REMOVED, name, owner, timeout)

    async def list(self) -> list[KnownSchedule]:
        """Return our own schedules that are neither removed nor over, by name.

        Raises `BusUnavailable`, `StateUnavailable`.
        """
        schedules = await self._book.all()
        now = self._site.bus_clock()
        return [self._describe(schedule, now) for _, schedule in sorted(schedules.items()) if schedule.stands(now)]

    async def last(self, name: str) -> TaskHandle[Any] | None:
        """Return the task that our schedule `name` sent last, `None` if that is not known. Raises `BusUnavailable`."""
        schedule, sent = await self._book.one(name), await self._claims.sent_last(name)
        if schedule is None or sent is None:
            return None
        declared = own_subject(Kind.TASK, schedule.planned.action, self._site.own_subjects)
        action = declared.action if declared is not None else schedule.planned.action
        return self._sending.handle(handle_text(AskedTask(pending=sent[1], action=action)))

    def _describe(self, schedule: Schedule, now: int) -> KnownSchedule:
        planned = schedule.planned
        following = schedule.next(now) if schedule.state is ScheduleState.ON else None
        return KnownSchedule(
            name=schedule.name,
            state=schedule.state.value,
            action=planned.action,
            when=shown_when(planned.when),
            overlap=planned.overlap.value,
            catchup=planned.catchup,
            until=_datetime(planned.until),
            next=_datetime(following) if following is not None else None,
            asked_by=schedule.grant.by,
            grant=schedule.grant.digest,
        )

    async def _plan(
        self,
        name: str,
        action: TypedAction[Any, object] | str,
        body: object,
        when: When,
        now: int,
        owner: str | None,
        timeout: float,
        options: ScheduleKeywords,
    ) -> None:
        grants = options.get("grants")
        text = action if isinstance(action, str) else action.action
        if own_subject(Kind.TASK, text, self._site.own_subjects) is None:
            split_action(text)
        with _as_seal_errors():
            planned = Planned(
                action=text,
                body=encoded(body, options.get("media_type", JSON)),
                when=when,
                until=_end(options.get("until"), now),
                partition=options.get("partition"),
                grants=tuple(grants) if grants is not None else None,
                life=options.get("life"),
                overlap=Overlap(options.get("overlap", Overlap.SKIP)),
                catchup=options.get("catchup", CATCHUP),
            )
            planned.check_from(now)
            request = ScheduleRequest(name=name, planned=planned)
        await self._tell(request, owner, timeout)

    async def _ask(self, state: ScheduleState, name: str, owner: str | None, timeout: float) -> None:
        with _as_seal_errors():
            request = ScheduleRequest(name=name, state=state)
        await self._tell(request, owner, timeout)

    async def _tell(self, request: ScheduleRequest, owner: str | None, timeout: float) -> None:
        owner_id = self._site.names.id_of(owner) if owner is not None else self._site.own
        with _as_seal_errors():
            message = schedule_message(request, owner=owner_id, names=self._site.names)
        await self._sending.tell(message, timeout=timeout)


@contextmanager
def _as_seal_errors() -> Iterator[None]:
    """Raise the `ValueError` of an invalid schedule as a `SealError`."""
    try:
        yield
    except ValueError as error:
        raise SealError(str(error)) from error


def _end(until: datetime | timedelta | None, now: int) -> int:
    if until is None:
        return now + LASTS
    return now + until // timedelta(microseconds=1) if isinstance(until, timedelta) else _micros(until)


def _micros(time: datetime) -> int:
    if time.tzinfo is None:
        raise SealError("a time needs a zone: datetime(..., tzinfo=UTC)")
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _datetime(time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)
