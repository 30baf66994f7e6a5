"""List tasks: the messages from TASKS, with the statuses that their agents reported, from RESULTS.

There is no table of tasks. The header, user and times of a task are sealed by its sender. Its state is the newest status that
its agent sealed for it, counted as the requester counts it. Both are verified here as of their stored times, with the current
trust bundles. A task that does not verify is marked. A status that does not verify changes no state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import HOST_CLOCK, BusClock, HostClock
from sealbus.bus.gate.status_reader import AskedTask, StatusRequest, parsed_status
from sealbus.bus.inspection.backwards import WINDOW, backwards, read_on
from sealbus.bus.inspection.documents import TaskDocument, shown_time
from sealbus.bus.nats.api import existing_stream
from sealbus.bus.ports import Delivery, Request, Transport
from sealbus.bus.sending.status import State, Status
from sealbus.bus.stream_names import RESULTS, TASKS
from sealbus.bus.streams.held import Held, PastTrust, current_only
from sealbus.bus.streams.key_book import RestoredStreams, nothing_restored
from sealbus.bus.work.approvals.marker import Marker, marker_of
from sealbus.envelopes.accept.live import LiveProfile, Replays, VerifiedMessage, accept_live
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, accept_status
from sealbus.envelopes.errors import BadBody, BusUnavailable, Code, ConfigurationError, EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.message.subjects import action_of
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Envelope, parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory
from sealbus.envelopes.trust.spiffe_id import SpiffeId

_logger: Final = logging.getLogger(__name__)

SUBMITTED: Final = "submitted"
"""The state of a task without a status that verifies."""

READ_TOGETHER: Final = 256
"""Tasks whose statuses one consumer reads."""
MARKERS_TOGETHER: Final = 16
"""Tasks that are looked up in HELD at a time. Each lookup takes some round trips."""


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
class ReportedStatus:
    """The newest status of a task that verifies; `expired` if the task's end has passed without a final status.

    A parked task ends when its wait ends.
    """

    state: str = SUBMITTED
    code: str = ""
    reasons: tuple[str, ...] = ()
    note: str = ""
    by: str = ""
    """The workload that canceled the task, as its agent reports."""
    unverified: tuple[str, ...] = ()
    """Codes of statuses that were stored for the task and do not verify.

    Includes `state_unavailable` if the end of the task's wait is not known now.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedTask:
    """One task as stored, and its state. Its sender sealed everything but `stored`, `sequence` and the state.

    `refused` is the code with which acceptance refuses the task as of its stored time, with the current bundles; empty if the
    task verifies. Times are microseconds.
    """

    sequence: int
    stored: int
    header: Header
    action: str
    """Empty for a subject without an action."""
    user: str
    """The id in the user context; empty without one."""
    refused: str = ""
    status: ReportedStatus = ReportedStatus()

    def document(self, *, name: Callable[[SpiffeId], str], handle: Callable[[AskedTask], str]) -> TaskDocument:
        """Return the task as JSON. `name` says how workloads are named in it, `handle` writes the text of a handle."""
        header, status = self.header, self.status
        cancelable = not self.refused and self.action
        return {
            "message": header.id.hex(),
            "hash": header.digest.hex(),
            "handle": handle(AskedTask(pending=PendingRequest.of(header), action=self.action)) if cancelable else "",
            "subject": header.to,
            "action": self.action,
            "agent": name(header.aud) if header.aud is not None else "",
            "from": name(header.iss),
            "user": self.user,
            "root": header.par is None,
            "verified": not self.refused,
            "refused": self.refused,
            "time": shown_time(self.stored),
            "until": shown_time(header.exp),
            "sequence": self.sequence,
            "state": status.state,
            "code": status.code,
            "reasons": list(status.reasons),
            "note": status.note,
            "by": status.by,
            "unverified_statuses": list(status.unverified),
        }


@dataclass(slots=True)
class _Reading:
    """The statuses of one task that were read so far."""

    task: ListedTask
    request: StatusRequest
    status: ReportedStatus = ReportedStatus()
    marker: Marker | None = None
    """The agent's marker of the wait, if the task is or was parked."""
    parked: bool = False
    """Whether a status said that the task waits for an approval."""
    unknown: bool = False
    """Whether the end of the wait is not known now."""

    def report(self, status: Status) -> None:
        self.parked = self.parked or (status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED)
        # The result is left out, because it may be large.
        self.status = replace(
            self.status,
            state=status.state.value,
            code=status.code,
            reasons=status.reasons,
            note=status.note,
            by=status.by.value if status.by is not None else "",
        )

    def ended(self, now: int) -> ReportedStatus:
        """Return the reported status, or the status that the requester concludes at `now`."""
        over = self.marker is not None and self.marker.ended
        if self.unknown:
            codes = {*self.status.unverified, Code.STATE_UNAVAILABLE.value}
            return replace(self.status, unverified=tuple(sorted(codes)))
        if self.request.closed or (not over and now < self._concluded()):
            return self.status
        return replace(self.status, state=State.EXPIRED.value, code=Code.EXPIRED.value, reasons=(), note="", by="")

    def may_be_parked(self, now: int) -> bool:
        """Return whether the agent's marker is needed: without it, the end of a wait is not known."""
        return self.parked or (not self.request.closed and now >= self._concluded())

    def reopened(self, marker: Marker) -> _Reading:
        """Return a reading of the same task that is open until the end that the marker names."""
        pending = replace(self.request.pending, end=marker.until)
        return _Reading(self.task, StatusRequest(pending), marker=marker)

    def _concluded(self) -> int:
        """Return when the requester concludes that the task has expired."""
        skew = DEFAULT_LIMITS.clock_skew
        return self.request.pending.end + (2 * skew if self.marker is not None else skew)


class TaskList:
    """Reads tasks and their statuses. `profile` may be of any reader of the deployment: its own ID plays no part.

    `trust` returns the current bundles. `past` has earlier bundles, for the markers of tasks that have waited for long.
    `restored` has the streams that were restored from a backup. A status is in the cell of its task's requester: `results`
    are the transports of all cells that can be read, by default the own one. `unreadable` counts messages that are no tasks.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        profile: LiveProfile,
        trust: Callable[[], Trust],
        past: PastTrust = current_only,
        restored: RestoredStreams = nothing_restored,
        results: Sequence[Transport] = (),
        clock: HostClock = HOST_CLOCK,
        window: int = WINDOW,
    ) -> None:
        self._transport = transport
        self._results = results or (transport,)
        self._profile = profile
        self._trust = trust
        self._restored = restored
        self._clock = clock
        self._window = window
        self._caches = Caches()
        self._held = Held(
            transport, trust=trust, past=past, names=profile.names, caches=self._caches, clock=BusClock(clock)
        )
        self.unreadable = 0

    async def listed(
        self, request: Request, agent: SpiffeId | None, wanted: TaskFilter, *, most: int
    ) -> AsyncGenerator[ListedTask, None]:
        """Yield the newest `most` tasks for `agent`, or without an agent for all, that match. Raises as `newest` does."""
        state = await existing_stream(request, TASKS)
        subjects = task_subjects(self._profile, agent)
        async with aclosing(self.newest(subjects, wanted, first=state.first, last=state.last, most=most)) as tasks:
            async for task in tasks:
                yield task

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
                tasks = [task for task in window if task is not None and _matches(task, wanted)]
                if not wanted.states:
                    tasks = tasks[-left:]
                tasks = [
                    task
                    for task in await self._with_statuses(tasks)
                    if not wanted.states or task.status.state in wanted.states
                ]
                tasks = await self._judged(tasks[-left:])
                for task in reversed(tasks):
                    yield task
                left -= len(tasks)
                oldest = min((task.stored for task in window if task is not None), default=wanted.since)
                if left <= 0 or oldest < wanted.since:
                    return

    def _seen(self, delivery: Delivery) -> ListedTask | None:
        """Return the task in a delivery, unverified. Count any other message, and return None for it."""
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

    async def _with_statuses(self, tasks: Sequence[ListedTask]) -> list[ListedTask]:
        """Return `tasks` with the reported status of each."""
        listed = []
        for start in range(0, len(tasks), READ_TOGETHER):
            readings = [
                _Reading(task, StatusRequest(PendingRequest.of(task.header)))
                for task in tasks[start : start + READ_TOGETHER]
            ]
            now = self._clock()
            await self._read(readings)
            readings = await self._reopened(readings, now)
            listed += [replace(reading.task, status=reading.ended(now)) for reading in readings]
        return listed

    async def _reopened(self, readings: Sequence[_Reading], now: int) -> list[_Reading]:
        """Return `readings`; parked tasks are read again, open until the end that their agents' markers name."""
        reopened = list(readings)
        places = [place for place, reading in enumerate(reopened) if reading.may_be_parked(now)]
        for start in range(0, len(places), MARKERS_TOGETHER):
            chunk = places[start : start + MARKERS_TOGETHER]
            try:
                markers = await asyncio.gather(*[self._marker(reopened[place]) for place in chunk])
            except BusUnavailable as error:
                # The permissions of an earlier version do not include HELD. The tasks are listed all the same.
                _logger.warning("the ends of waits are not known: %s", error.detail)
                for place in places[start:]:
                    reopened[place].unknown = True
                break
            for place, marker in zip(chunk, markers, strict=True):
                if marker is not None:
                    reopened[place] = reopened[place].reopened(marker)
        if again := [reading for reading in reopened if reading.marker is not None]:
            await self._read(again)
        return reopened

    async def _marker(self, reading: _Reading) -> Marker | None:
        pending, own = reading.request.pending, reading.task.header.iss
        try:
            return await marker_of(self._held, pending, own=own, names=self._profile.names)
        except ConfigurationError:
            # Without the stream HELD no task waits.
            return None
        except StateUnavailable:
            # A value that others stored for this task must not hide other tasks.
            reading.unknown = True
            return None

    async def _read(self, readings: Sequence[_Reading]) -> None:
        by_subject: dict[str, list[_Reading]] = {}
        for reading in readings:
            subject = reading.request.pending.answers_to(reading.task.header.iss, self._profile.names)
            by_subject.setdefault(subject, []).append(reading)
        # The broker's clock may step back a little when another of its servers takes over.
        since = min(reading.task.stored for reading in readings) - DEFAULT_LIMITS.clock_skew
        for cell in self._results:
            async with aclosing(read_on(cell, RESULTS, sorted(by_subject), since=max(since, 1))) as deliveries:
                async for delivery in deliveries:
                    for reading in by_subject.get(delivery.subject, ()):
                        self._take(delivery, reading)

    def _take(self, delivery: Delivery, reading: _Reading) -> None:
        """Count a status as the requester does. If the status does not verify, note the code."""
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
            reading.report(parsed_status(result))
        except (EnvelopeError, BadBody) as error:
            codes = {*reading.status.unverified, str(error.code)}
            reading.status = replace(reading.status, unverified=tuple(sorted(codes)))
        else:
            reading.request.keep()

    async def _judged(self, tasks: Sequence[ListedTask]) -> list[ListedTask]:
        """Verify `tasks`. They are read from the stream once more, because the payloads of a window are not kept."""
        if not tasks:
            return []
        judged = {task.sequence: task for task in tasks}
        subjects = sorted({task.header.to for task in tasks})
        left = set(judged)
        if len(subjects) > READ_TOGETHER:
            subjects = list(task_subjects(self._profile))
        async with aclosing(read_on(self._transport, TASKS, subjects, start=tasks[0].sequence)) as deliveries:
            async for delivery in deliveries:
                if (sequence := delivery.sequence) in left:
                    left.discard(sequence)
                    judged[sequence] = replace(judged[sequence], refused=await self._refusal(delivery))
                if not left:
                    break
        # A task that the stream has dropped meanwhile was not verified.
        return [replace(task, refused="gone") if task.sequence in left else task for task in judged.values()]

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

    `trust` holds the current bundles. If they no longer have the key, the error is `unknown_key`. `restored` are the streams
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
        declared.subject
        for declared in profile.own_subjects.values()
        if declared.kind is Kind.TASK and (agent is None or declared.owner == agent)
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
