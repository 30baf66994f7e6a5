"""Listing tasks: what was asked, from TASKS, and what its agent has told of it, from RESULTS.

Nobody keeps a table of tasks. A task's header, user and times are what its sender sealed; its state is the newest status that
its agent sealed for it, counted as its requester counts it. Both are verified here as of their stored times, with the trust
bundles of now: what does not verify is shown as such, and a status that does not verify changes no state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.status_reader import StatusRequest, parsed_status
from sealbus.bus.inspection.backwards import WINDOW, backwards, read_on
from sealbus.bus.ports import Clock, Delivery, Transport
from sealbus.bus.sending.status import State, Status
from sealbus.bus.stream_names import RESULTS, TASKS
from sealbus.bus.streams.held import Held, PastTrust, current_only
from sealbus.bus.streams.key_book import RestoredStreams, nothing_restored
from sealbus.bus.work.approvals.marker import Marker, marker_of
from sealbus.envelopes.accept.live import LiveProfile, Replays, StreamArrival, VerifiedMessage, accept_live
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, accept_status
from sealbus.envelopes.errors import BadBody, BusUnavailable, Code, ConfigurationError, EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.subjects import action_of
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Envelope, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["SUBMITTED", "ListedTask", "TaskFilter", "TaskList", "Told", "task_subjects", "user_of", "verified"]

_log: Final = logging.getLogger(__name__)

SUBMITTED: Final = "submitted"
"""The state of a task of which nothing that verifies was told."""

READ_TOGETHER: Final = 256
"""Tasks whose statuses one consumer reads."""
MARKERS_TOGETHER: Final = 16
"""Tasks that are looked up in HELD at a time: each takes some round trips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks to list; an absent field matches all. `since` and `before` are stored times in microseconds.

    `states` are those of `State`, and `SUBMITTED`. `user` is the id in the task's user context.
    """

    states: frozenset[str] = frozenset()
    user: str | None = None
    since: int = 0
    before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The newest status of a task that verifies; `expired` if the task's end has passed without a final one.

    The end of one that is parked is that of its wait.
    """

    state: str = SUBMITTED
    code: str = ""
    reasons: tuple[str, ...] = ()
    note: str = ""
    by: str = ""
    """Who canceled it, as its agent says."""
    unverified: tuple[str, ...] = ()
    """Codes of statuses that were stored for the task and do not verify.

    `state_unavailable` if it is not known now until when the task waits.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """One task as stored, and its state. All but `stored`, `sequence` and the state are what its sender sealed.

    `refused` is the code with which acceptance refuses it as of its stored time, with the bundles of now; empty if it
    verifies. Times are microseconds.
    """

    sequence: int
    stored: int
    header: Header
    action: str
    """Empty for a subject that stands for none."""
    user: str
    """The id in the user context; empty without one."""
    refused: str = ""
    told: Told = Told()


@dataclass(slots=True)
class _Reading:
    """What has been read of one task's statuses so far."""

    task: ListedTask
    request: StatusRequest
    told: Told = Told()
    marker: Marker | None = None
    """What its agent says of its waiting, if it is or was parked."""
    parked: bool = False
    """Whether it was told that it waits for an approval."""
    unknown: bool = False
    """Whether until when it waits is not known now."""

    def tell(self, status: Status) -> None:
        self.parked = self.parked or (status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED)
        # Without the result, which may be large.
        self.told = replace(
            self.told,
            state=status.state.value,
            code=status.code,
            reasons=status.reasons,
            note=status.note,
            by=status.by.value if status.by is not None else "",
        )

    def ended(self, now: int) -> Told:
        """Return what was told, or what its requester concludes by now."""
        over = self.marker is not None and self.marker.ended
        if self.unknown:
            codes = {*self.told.unverified, Code.STATE_UNAVAILABLE.value}
            return replace(self.told, unverified=tuple(sorted(codes)))
        if self.request.closed or (not over and now < self._concluded()):
            return self.told
        return replace(self.told, state=State.EXPIRED.value, code=Code.EXPIRED.value, reasons=(), note="", by="")

    def may_be_parked(self, now: int) -> bool:
        """Return whether its agent is asked until when it waits: without that its end is not known."""
        return self.parked or (not self.request.closed and now >= self._concluded())

    def reopened(self, marker: Marker) -> _Reading:
        """Return it as to be read again, open until its agent says."""
        pending = replace(self.request.pending, end=marker.until)
        return _Reading(self.task, StatusRequest(pending), marker=marker)

    def _concluded(self) -> int:
        """Return when its requester concludes that it has expired."""
        skew = DEFAULT_LIMITS.clock_skew
        return self.request.pending.end + (2 * skew if self.marker is not None else skew)


class TaskList:
    """Reads tasks and their statuses; `profile` is that of any reader of the deployment, whose own ID plays no part.

    `trust` gives the bundles as they are now, `past` those of earlier times, for the markers of tasks that have waited for
    long, `restored` the streams that were restored from a backup. `unreadable` counts messages that are no tasks at all.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        profile: LiveProfile,
        trust: Callable[[], Trust],
        past: PastTrust = current_only,
        restored: RestoredStreams = nothing_restored,
        clock: Clock = wall_clock,
        window: int = WINDOW,
    ) -> None:
        self._transport = transport
        self._profile = profile
        self._trust = trust
        self._restored = restored
        self._clock = clock
        self._window = window
        self._caches = Caches()
        self._held = Held(transport, trust=trust, past=past, names=profile.names, caches=self._caches, clock=clock)
        self.unreadable = 0

    async def newest(
        self, subjects: Sequence[str], wanted: TaskFilter, *, first: int, last: int, most: int
    ) -> AsyncGenerator[ListedTask, None]:
        """Yield the newest `most` tasks on `subjects` that the filter matches, the newest first.

        `first` and `last` are sequences of TASKS. Raises `BusUnavailable`, or `ConfigurationError` if a stream is missing.
        """
        left = most
        source = backwards(
            self._transport, TASKS, subjects, first=first, last=last, keep=self._seen, window=self._window
        )
        async with aclosing(source) as windows:
            async for window in windows:
                tasks = [one for one in window if one is not None and _matches(one, wanted)]
                if not wanted.states:
                    tasks = tasks[-left:]
                tasks = [one for one in await self._told(tasks) if not wanted.states or one.told.state in wanted.states]
                tasks = await self._judged(tasks[-left:])
                for task in reversed(tasks):
                    yield task
                left -= len(tasks)
                oldest = min((one.stored for one in window if one is not None), default=wanted.since)
                if left <= 0 or oldest < wanted.since:
                    return

    def _seen(self, delivery: Delivery) -> ListedTask | None:
        """Return the task in a delivery, unverified; None for anything else, which is counted."""
        position = delivery.arrival
        try:
            envelope = parse_envelope(delivery.payload)
            header = parse_header(envelope.header)
        except EnvelopeError:
            self.unreadable += 1
            return None
        if position is None or header.kind is not Kind.TASK:
            self.unreadable += 1
            return None
        return ListedTask(
            sequence=position.sequence,
            stored=position.stored,
            header=header,
            action=_action(header, self._profile),
            user=user_of(envelope),
        )

    async def _told(self, tasks: Sequence[ListedTask]) -> list[ListedTask]:
        """Return `tasks` with what was told of each."""
        told = []
        for start in range(0, len(tasks), READ_TOGETHER):
            readings = [
                _Reading(one, StatusRequest(PendingRequest.of(one.header)))
                for one in tasks[start : start + READ_TOGETHER]
            ]
            now = self._clock()
            await self._read(readings)
            readings = await self._reopened(readings, now)
            told += [replace(one.task, told=one.ended(now)) for one in readings]
        return told

    async def _reopened(self, readings: Sequence[_Reading], now: int) -> list[_Reading]:
        """Return `readings`, those of parked tasks as open until their agents say, which may be earlier or later."""
        found = list(readings)
        places = [place for place, one in enumerate(found) if one.may_be_parked(now)]
        for start in range(0, len(places), MARKERS_TOGETHER):
            some = places[start : start + MARKERS_TOGETHER]
            try:
                markers = await asyncio.gather(*[self._marker(found[place]) for place in some])
            except BusUnavailable as error:
                # Who reads with the permissions of a version before may not ask: the tasks are listed all the same.
                _log.warning("until when tasks wait is not known: %s", error.detail)
                for place in places[start:]:
                    found[place].unknown = True
                break
            for place, marker in zip(some, markers, strict=True):
                if marker is not None:
                    found[place] = found[place].reopened(marker)
        if again := [one for one in found if one.marker is not None]:
            await self._read(again)
        return found

    async def _marker(self, reading: _Reading) -> Marker | None:
        pending, own = reading.request.pending, reading.task.header.iss
        try:
            return await marker_of(self._held, pending, own=own, names=self._profile.names)
        except ConfigurationError:
            # Where nothing is held, nothing waits.
            return None
        except StateUnavailable:
            # What others have stored in one place hides no other task.
            reading.unknown = True
            return None

    async def _read(self, readings: Sequence[_Reading]) -> None:
        by_subject: dict[str, list[_Reading]] = {}
        for one in readings:
            subject = one.request.pending.answers_to(one.task.header.iss, self._profile.names)
            by_subject.setdefault(subject, []).append(one)
        # A broker's clock may step back a little when another of its servers takes over.
        since = min(one.task.stored for one in readings) - DEFAULT_LIMITS.clock_skew
        async with aclosing(read_on(self._transport, RESULTS, sorted(by_subject), since=max(since, 1))) as deliveries:
            async for delivery in deliveries:
                for one in by_subject.get(delivery.subject, ()):
                    self._take(delivery, one)

    def _take(self, delivery: Delivery, reading: _Reading) -> None:
        """Count a status as the task's requester would; what does not verify is noted by its code."""
        if delivery.arrival is None or reading.request.closed:
            return
        header = reading.task.header
        try:
            result = accept_status(
                delivery.payload,
                delivery.subject,
                ResultProfile(own=header.iss, names=self._profile.names, formats=self._profile.formats),
                {header.digest: reading.request},
                stored=delivery.arrival.stored,
                trust=self._trust(),
                caches=self._caches,
            )
            if result is None:
                return
            reading.tell(parsed_status(result))
        except (EnvelopeError, BadBody) as error:
            codes = {*reading.told.unverified, str(error.code)}
            reading.told = replace(reading.told, unverified=tuple(sorted(codes)))
        else:
            reading.request.keep()

    async def _judged(self, tasks: Sequence[ListedTask]) -> list[ListedTask]:
        """Return `tasks` with what acceptance says of each: read once more, since no window of payloads is kept."""
        if not tasks:
            return []
        judged = {one.sequence: one for one in tasks}
        subjects = sorted({one.header.to for one in tasks})
        left = set(judged)
        if len(subjects) > READ_TOGETHER:
            subjects = list(task_subjects(self._profile))
        async with aclosing(read_on(self._transport, TASKS, subjects, start=tasks[0].sequence)) as deliveries:
            async for delivery in deliveries:
                sequence = delivery.arrival.sequence if delivery.arrival is not None else 0
                if sequence in left:
                    left.discard(sequence)
                    judged[sequence] = replace(judged[sequence], refused=await self._refusal(delivery))
                if not left:
                    break
        # What the stream has dropped meanwhile was not verified.
        return [replace(one, refused="gone") if one.sequence in left else one for one in judged.values()]

    async def _refusal(self, delivery: Delivery) -> str:
        arrival = delivery.arrival
        if arrival is None:
            return str(Code.MALFORMED)
        try:
            restored = await self._restored.restored(arrival.created) if arrival.stored < arrival.created else ()
            verified(
                delivery.payload, arrival, self._profile, trust=self._trust(), caches=self._caches, restored=restored
            )
        except (EnvelopeError, StateUnavailable) as error:
            return str(error.code)
        return ""


def verified(
    payload: bytes,
    arrival: StreamArrival,
    profile: LiveProfile,
    *,
    trust: Trust,
    caches: Caches,
    restored: Sequence[RestoredStream] = (),
) -> VerifiedMessage:
    """Verify a stored task or event by steps 1 to 13 as its reader did when it was stored; raise `EnvelopeError`.

    `trust` holds the bundles of now, which may have lost its key since: then it is `unknown_key`. `restored` are the streams
    that were restored from a backup.
    """
    header = parse_header(parse_envelope(payload, profile.formats).header)
    return accept_live(
        payload,
        arrival,
        replace(profile, own=header.aud or profile.own),
        action=action_of(header.to, profile.own_subjects),
        trust=trust,
        caches=caches,
        replays=Replays(ReplayMemory(1), restored),
        now=arrival.stored,
    )


def task_subjects(profile: LiveProfile, agent: SpiffeId | None = None) -> tuple[str, ...]:
    """Return the filters of the subjects on which tasks for `agent` are stored, or all tasks."""
    token = profile.names.token(agent) if agent is not None else None
    own = [
        one.subject
        for one in profile.own_subjects.values()
        if one.kind is Kind.TASK and (agent is None or one.owner == agent)
    ]
    return (f"task.{token}.>" if token is not None else "task.>", *own)


def user_of(envelope: Envelope) -> str:
    """Return the user id that an envelope's context states, unverified; empty if it states none."""
    if envelope.context is None:
        return ""
    try:
        return parse_payload(envelope.context.payload).sub
    except EnvelopeError:
        return ""


def _action(header: Header, profile: LiveProfile) -> str:
    try:
        return action_of(header.to, profile.own_subjects)
    except EnvelopeError:
        return ""


def _matches(task: ListedTask, wanted: TaskFilter) -> bool:
    return (
        task.stored >= wanted.since
        and (wanted.before is None or task.stored < wanted.before)
        and (wanted.user is None or task.user == wanted.user)
    )
