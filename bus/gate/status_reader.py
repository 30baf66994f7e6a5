"""The requester's side of a task: read its statuses from their stream, verify them, and decide on its result.

Each reading reads `status.<requester>.<id>` by itself and leaves no state behind. So every process of the identity may read
the statuses of a task, at any time and any number of times (SPEC.md section 7). A status that fails verification is counted
as a refusal and changes nothing. A status signed by an unknown key is read again a little later, because the trust bundle may
lag behind the worker that signed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Protocol, Self

from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.gate.reply_policy import Received, ReplyPolicy
from sealbus.bus.gate.status_feed import ReadingTurn, StatusFeed, Watch
from sealbus.bus.gate.task_term import Phase, TaskTerm
from sealbus.bus.ports import Delivery, Overloaded
from sealbus.bus.sending import status as status_body
from sealbus.bus.sending.status import State, Status
from sealbus.bus.site import Site
from sealbus.bus.stream_names import RESULTS
from sealbus.bus.streams.held import Held, PastTrust, current_only, verified_then
from sealbus.bus.work.approvals.marker import waits_note
from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_status
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import (
    UNAUTHENTICATED_CODES,
    BadBody,
    BusUnavailable,
    Code,
    EnvelopeError,
    StateUnavailable,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.decision import StreamPlace
from sealbus.envelopes.trust.bundles import Trust

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLimits:
    """Bounds and waits of reading statuses; times are seconds."""

    readers: int = 1_024
    """Readings of one identity at a time: each costs the server a consumer in memory and two requests."""
    settle: float = DEFAULT_LIMITS.clock_skew / SECOND
    """After `end`: by then everything that the broker stored before `end`, by its clock, can be read (SPEC.md section 3)."""
    unknown: float = 60.0
    """For so long after it was stored, a status with an unknown key is tried again: the bundle may lag a little."""
    first: float = 10.0
    """For so long after it was stored, a final status does not count while an earlier status has an unknown key."""
    postponed: int = 16
    """Statuses with unknown keys that one reading tries again; further statuses are refused at once."""
    parked: float = 2 * DEFAULT_LIMITS.clock_skew / SECOND
    """As `settle`, after the time until which a parked task waits: the clocks of agent and reader may both be wrong."""
    marker_tries: int = 8
    """Tries to read the marker of a task, before the reading raises the error."""
    backoff: Backoff = Backoff(initial_interval=0.25, maximum_interval=5.0)
    """Pause before a reading starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTask:
    """A task that we sent: its statuses are matched by `pending`, and its result is decided by `action` and `context`.

    `context` is that of the user on whose behalf we sent it, known only to the process that did.
    """

    pending: PendingRequest
    action: str
    context: UserContext | None = None

    @property
    def control(self) -> bool:
        """Whether the task is a control message. Its answer says only that it was done, so there is nothing to decide on."""
        return self.pending.rpl is None and "._" in self.action


class StatusRequest(OpenRequest):
    """An open request that counts a status once its body was parsed, because the body shows whether `fin` is right."""

    __slots__ = ("_verified",)

    def __init__(self, pending: PendingRequest) -> None:
        super().__init__(pending)
        self._verified: Header | None = None

    def take(self, header: Header) -> None:
        """Remember a header that passed all steps, until `keep`."""
        self._verified = header

    def keep(self) -> None:
        """Count the header that `take` remembered."""
        if self._verified is not None:
            super().take(self._verified)


@dataclass(slots=True)
class _Pass:
    """What one pass over the statuses of a task has read."""

    last: int = 0
    """The highest stream sequence that was read, in this pass or before."""
    created: int = 0
    """When the stream was created, in microseconds; 0 if nothing was read."""
    retried: set[int] = field(default_factory=set)
    """The sequences that the pass before has postponed."""
    postponed: set[int] = field(default_factory=set)
    """The sequences that the next pass reads again, because of keys that are not known yet."""
    passed_over: bool = False
    """Whether a status did not count for an unknown key."""
    cut: bool = False
    """Whether the pass ended before it had read all stored statuses, because the consumer of the statuses was slow."""
    failed: bool = False
    """Whether the next pass waits for the backoff."""

    @property
    def start(self) -> int:
        """The sequence at which the pass begins."""
        return min(self.retried, default=self.last + 1)

    def following(self, created: int) -> _Pass:
        """Return the record of the next pass over the stream, which was created at `created` if that is known."""
        if created > self.created > 0:
            # The stream was deleted and created again.
            return _Pass()
        return _Pass(last=self.last, created=self.created, retried=self.postponed)

    def note(self, position: StreamArrival) -> bool:
        """Note that the status at `position` was read; return whether it was read for the first time."""
        first = position.sequence > self.last
        self.last, self.created = max(self.last, position.sequence), position.created
        return first

    def cut_after(self, sequence: int) -> None:
        """Mark the pass as cut after stream sequence `sequence`.

        The next pass reads the later statuses in `retried` again.
        """
        self.postponed |= {retried for retried in self.retried if retried > sequence}
        self.cut = True


class StatusReading:
    """One reading of the statuses of one task, pass after pass over their stream.

    It yields the statuses numbered over `after`. With `follow` it waits for new statuses: at the `feed` if there is one, else
    at the server.
    """

    def __init__(
        self, reader: StatusReader, task: AskedTask, *, after: int, follow: bool, feed: StatusFeed | None = None
    ) -> None:
        self._reader = reader
        self._limits = reader.limits
        self._task = task
        self._after = after
        self._follow = follow
        self._feed = feed
        self._watch = Watch()
        self._request = StatusRequest(task.pending)
        self._subject = task.pending.answers_to(reader.profile.own, reader.profile.names)
        # A control message is never parked.
        self._term = TaskTerm(task.pending, None if task.control else reader.held, reader.profile)
        self._pass = _Pass()
        self._failures = 0
        self._retry_at = 0.0
        """When the backoff after the last failure is over, by the clock of the event loop."""
        self._decided = False
        """Whether our own policy allows the result: it is asked once, about a result in parts at its first part."""

    async def statuses(self) -> AsyncGenerator[Status, None]:
        """Yield statuses until no more can come; without `follow`, until all stored statuses were read."""
        given = False
        with self._feed.watching(self._subject) if self._feed is not None else nullcontext(self._watch) as self._watch:
            while True:
                self._watch.news.clear()
                began = self._now()
                if self._follow and self._term.phase is Phase.UNLEARNED:
                    await self._try_to_learn()
                was_over = self._over
                following = self._follow and not was_over and self._left(began) > 0
                async with aclosing(self._read_pass(follow=following)) as statuses:
                    async for status in statuses:
                        if self._is_news(status):
                            self._after, given = status.sequence, True
                            yield status
                        if status.final:
                            return
                if self._pass.cut or (self._over and not was_over):
                    # A status that was stored before the end of the task became known counts: read it before the end is told.
                    continue
                # The pass may have learned until when the task waits. What was stored before it began was read.
                if (was_over or self._left(began) <= 0) and not self._pass.postponed:
                    if await self._may_have_missed_statuses():
                        continue
                    yield Status(state=State.EXPIRED, code=Code.EXPIRED)
                    return
                if not self._follow:
                    if self._term.end != self._task.pending.end and not given:
                        # Statuses are deleted after a day; the marker stays.
                        note = waits_note(self._term.end)
                        yield Status(state=State.INPUT_REQUIRED, code=Code.APPROVAL_REQUIRED, note=note)
                    return
                await self._rest()

    async def _rest(self) -> None:
        """Wait until the next pass is due: after a failure for the backoff, else for news from the feed."""
        if self._pass.failed:
            await asyncio.sleep(self._retry_at - asyncio.get_running_loop().time())
            return
        self._failures = 0
        if self._feed is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._longest_wait()):
                    await self._watch.news.wait()

    async def _read_pass(self, *, follow: bool) -> AsyncGenerator[Status, None]:
        """Yield the statuses that count, until the next pass is due or nothing more can be read."""
        self._pass = self._pass.following(self._watch.created)
        # With a feed the reading waits for more there, and not at the server.
        staying = follow and self._feed is None
        source = self._reader.site.transport.read(RESULTS, [self._subject], start=self._pass.start, follow=staying)
        async with ReadingTurn(source, self._feed.slots if self._feed is not None else None) as turn:
            while True:
                try:
                    async with asyncio.timeout(self._longest_wait() if follow else None):
                        batch = await anext(turn.batches, None)
                except TimeoutError:
                    return
                except BusUnavailable as error:
                    if not follow or self._reader.closed:
                        raise
                    _logger.warning("reading %s: %s", self._subject, error.detail)
                    self._fail()
                    return
                turn.held.extend(batch or ())
                while turn.held:
                    delivery = turn.held.popleft()
                    status = await self._status(delivery)
                    if status is not None:
                        with turn.giving():
                            yield status
                        if turn.over and delivery.arrival is not None:
                            self._pass.cut_after(delivery.arrival.sequence)
                            return
                if batch is None:
                    # The consumer ended, or the replica that answered has not everything that was stored.
                    if staying or (follow and self._pass.last < self._watch.sequence):
                        self._fail()
                    return

    async def _status(self, delivery: Delivery) -> Status | None:
        """Return the status in a delivery, or `None` if the delivery does not count."""
        position = delivery.arrival
        if position is None:
            return None
        first = self._pass.note(position)
        try:
            result = await self._accepted(delivery, position)
            if result is None:
                return None
            status = parsed_status(result)
        except (EnvelopeError, BadBody) as error:
            if error.code in UNAUTHENTICATED_CODES:
                self._pass.passed_over = True
                if self._postpone_unknown(position):
                    return None
            if first or position.sequence in self._pass.retried:
                self._reader.refusals.count(error, delivery)
            return None
        if status.final and self._may_be_second(position):
            return None
        if status.final and self._term.is_parked and not await self._in_time(position):
            if first and not self._pass.postponed:
                self._reader.refusals.count(EnvelopeError(Code.UNEXPECTED_REPLY, 4, "past its end"), delivery)
            return None
        self._request.keep()
        if status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED:
            self._term.note_parked()
            await self._try_to_learn()
        content = status.result or status.part
        if content is not None and not self._decided and self._is_news(status) and not self._task.control:
            await self._decide(result, position)
            self._decided = True
        return status

    def _is_news(self, status: Status) -> bool:
        """Return whether to yield `status`: its number is over `after`, or it is final and its number is not `after`.

        A final status may be of an earlier delivery than a status that was yielded, because the later delivery may have run
        for longer.
        """
        return status.sequence > self._after or (status.final and status.sequence != self._after)

    async def _accepted(self, delivery: Delivery, position: StreamArrival) -> VerifiedResult | None:
        """Return the verified status, or `None` if it was counted before. Raises `EnvelopeError`.

        Try the current bundles; for an unknown key or trust domain, try those of the time when it was stored.
        """
        reader = self._reader

        def accepted(trust: Trust) -> VerifiedResult | None:
            return accept_status(
                delivery.payload,
                delivery.subject,
                reader.profile,
                {self._task.pending.digest: self._request},
                stored=position.stored,
                trust=trust,
                caches=reader.site.caches,
            )

        return await verified_then(accepted, position.stored, trust=reader.site.trust(), past=reader.past)

    async def _decide(self, result: VerifiedResult, position: StreamArrival) -> None:
        """Ask our own policy about a result; raise if it may not be used."""
        received = Received(
            action=self._task.action,
            context=self._task.context,
            result=result,
            place=StreamPlace(stream=position.stream, sequence=position.sequence, stored=position.stored),
        )
        [refusal] = await self._reader.policy.decide([received], now=self._now())
        if refusal is not None:
            raise refusal

    def _may_be_second(self, position: StreamArrival) -> bool:
        """Return whether a final status waits, because a status that was passed over may be the first final one."""
        fresh = self._now() < position.stored + int(self._limits.first * SECOND)
        if not self._pass.passed_over or not fresh:
            return False
        if self._follow:
            self._postpone(position)
        return True

    def _postpone_unknown(self, position: StreamArrival) -> bool:
        """Postpone a status with an unknown key, and return true; false if it is too old, or too many are postponed."""
        fresh = self._now() < position.stored + int(self._limits.unknown * SECOND)
        if not self._follow or not fresh or len(self._pass.postponed) >= self._limits.postponed:
            return False
        self._postpone(position)
        return True

    def _postpone(self, position: StreamArrival) -> None:
        """Have the next pass read a status again. Only its sequence is kept."""
        if not self._pass.postponed:
            self._fail()
        self._pass.postponed.add(position.sequence)

    def _fail(self) -> None:
        """Let the next pass wait for the backoff."""
        self._failures += 1
        self._pass.failed = True
        self._retry_at = asyncio.get_running_loop().time() + self._limits.backoff.interval(self._failures)

    async def _in_time(self, position: StreamArrival) -> bool:
        """Return whether the final status of a parked task was stored while the task was open, by its newest marker.

        If the marker cannot be read now, a reading that follows postpones the status. Raises `BusUnavailable` and
        `StateUnavailable`.
        """
        try:
            await self._learn()
        except (BusUnavailable, StateUnavailable) as error:
            if not self._follow or self._failures + 1 >= self._limits.marker_tries:
                raise
            _logger.warning("until when %s waits is not known: %s", self._subject, error.detail)
            self._fail()
            self._pass.postponed.add(position.sequence)
            return False
        return position.stored < self._term.end

    async def _may_have_missed_statuses(self) -> bool:
        """Return whether a status may have come after the end that was known; the next pass then reads all of them again.

        The repetition ends: a marker counts only if the task has ended, or if it names a later time than the one known.
        Raises `BusUnavailable` and `StateUnavailable` if the marker cannot be read, because the end is then unknown.
        """
        tries = 0
        while True:
            tries += 1
            try:
                later = await self._learn()
            except (BusUnavailable, StateUnavailable) as error:
                if tries >= self._limits.marker_tries:
                    raise
                _logger.warning("whether %s is parked is not known: %s", self._subject, error.detail)
                await asyncio.sleep(self._limits.backoff.interval(tries))
                continue
            if later:
                self._pass = _Pass()
            return later

    async def _try_to_learn(self) -> None:
        """Learn until when a parked task waits; if that is not known now, a reading that follows tries again."""
        try:
            await self._learn()
        except (BusUnavailable, StateUnavailable) as error:
            _logger.warning("until when %s waits is not known: %s", self._subject, error.detail)
            self._term.phase = Phase.UNLEARNED
            self._fail()

    async def _learn(self) -> bool:
        """Learn of the task as `TaskTerm.learn` does, and accept statuses by the end that was learned."""
        later = await self._term.learn()
        if self._term.end != self._request.pending.end:
            self._request = self._request.until(self._term.end)
        return later

    @property
    def _over(self) -> bool:
        return self._term.phase is Phase.OVER

    def _now(self) -> int:
        return self._reader.site.bus_clock()

    def _left(self, now: int) -> float:
        """Return the seconds until the requester concludes `expired`."""
        settle = self._limits.parked if self._term.is_parked else self._limits.settle
        return (self._term.end - now) / SECOND + settle

    def _longest_wait(self) -> float:
        """Return how many seconds the reading may wait for the next status."""
        left = self._left(self._now())
        if self._pass.postponed or self._term.phase is Phase.UNLEARNED:
            return max(min(self._retry_at - asyncio.get_running_loop().time(), left), 0.0)
        return 0.0 if self._over else max(left, 0.0)


def parsed_status(result: VerifiedResult) -> Status:
    """Return the status in a verified message; raises `BadBody`."""
    header = result.header
    number = header.ext.get(status_body.PART_NUMBER) if header.ext is not None else None
    status = status_body.parse(result.body, header.typ, fin=header.fin, sequence=header.seq or 0, number=number)
    return replace(status, via=status.explanation.told_by(header.iss.value).via) if status.via else status


class ReadsStatuses(Protocol):
    """Reads the statuses of tasks that one identity has asked for."""

    def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task`; see `StatusReader.statuses`."""


class StatusReader:
    """Reads the statuses of the tasks of one identity; enter with `async with`. Once left, no reading waits for a connection.

    A status is verified by the current bundles or by those of `past`. It is refused if neither have its key.
    """

    def __init__(
        self,
        site: Site,
        *,
        policy: ReplyPolicy,
        refusals: Refusals,
        held: Held | None = None,
        past: PastTrust = current_only,
        limits: StatusLimits | None = None,
    ) -> None:
        self.site: Final = site
        self.profile: Final = ResultProfile(own=site.own, names=site.names)
        self.policy: Final = policy
        self.refusals: Final = refusals
        self.held: Final = held
        self.past: Final = past
        self.limits: Final = limits or StatusLimits()
        self.closed = False
        self._reading = 0
        self._places = 0
        """The number of readings that hold a consumer."""
        self._feed: StatusFeed | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    @asynccontextmanager
    async def together(self) -> AsyncGenerator[None, None]:
        """Have readings that follow wait at one `StatusFeed` while entered: for thousands of tasks at a time."""
        async with StatusFeed(self.site) as self._feed:
            try:
                yield
            finally:
                self._feed = None

    @property
    def reading(self) -> int:
        """How many readings run now."""
        return self._reading

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task` numbered over `after` as they come, up to the final status.

        The final status is `expired` if no other was stored before `end`. A parked task is open until the time that its agent
        says, which may be before or after `end`. Without `follow` only the statuses that are stored now are read; with it,
        lost connections and restarts of the server are waited out until the end.

        Raises `Denied`, `PolicyUnavailable` or `PolicyFailed` if our own policy does not allow the result; `Overloaded`
        for too many readings; `BusUnavailable` if the stream cannot be read without `follow` or after `end`; `BusUnavailable`
        or `StateUnavailable` if a parked task has ended and its marker cannot be read.
        """
        # Readings that wait at the feed hold no place.
        with nullcontext() if follow and self._feed is not None else self._place():
            async with aclosing(self._read(task, after=after, follow=follow)) as statuses:
                async for status in statuses:
                    yield status

    @contextmanager
    def reserve(self) -> Generator[ReadsStatuses, None, None]:
        """Hold the place of one reading that follows, and yield its reader: a task that is sent in between can be followed.

        Raises `Overloaded` for too many readings.
        """
        if self._feed is not None:
            yield self
        else:
            with self._place():
                yield _ReadingPlace(self._read)

    @contextmanager
    def _place(self) -> Generator[None, None, None]:
        if self._places >= self.limits.readers:
            raise Overloaded(f"{self._places} readings of statuses are open already")
        self._places += 1
        try:
            yield
        finally:
            self._places -= 1

    async def _read(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        self._reading += 1
        reading = StatusReading(self, task, after=after, follow=follow, feed=self._feed if follow else None)
        try:
            async with aclosing(reading.statuses()) as statuses:
                async for status in statuses:
                    yield status
        finally:
            self._reading -= 1


@dataclass(frozen=True, slots=True)
class _ReadingPlace:
    """The place of one reading, held for it."""

    read: Callable[..., AsyncGenerator[Status, None]]

    def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task`."""
        return self.read(task, after=after, follow=follow)
