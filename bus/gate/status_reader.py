"""The requester's side of a task: its statuses are read from their stream and verified, and its result is decided on.

Each reading reads `status.<requester>.<id>` independently and keeps its state to itself, so any process of the same
identity may read, at any time, as often as it likes (SPEC.md section 7). A reading leaves no state behind. What fails
verification is counted as a refusal and changes nothing; a status signed by a key that is not known yet is read again a
little later, because the trust bundle may lag behind the worker that signed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self

from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.gate.reply_policy import Received, ReplyPolicy
from sealbus.bus.gate.status_feed import ReadingTurn, StatusFeed, Watch
from sealbus.bus.ports import Clock, Delivery, Overloaded, Transport
from sealbus.bus.sending import status as status_body
from sealbus.bus.sending.status import State, Status
from sealbus.bus.stream_names import RESULTS
from sealbus.bus.streams.held import Held, PastTrust, current_only
from sealbus.bus.work.approvals.marker import marker_of, waits_note
from sealbus.envelopes.accept.open_request import OpenRequest, PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, VerifiedResult, accept_status
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BadBody, BusUnavailable, Code, ConfigurationError, EnvelopeError, StateUnavailable
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.decision import StreamPlace
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = [
    "AskedTask",
    "ReadsStatuses",
    "StatusLimits",
    "StatusReader",
    "StatusReading",
    "StatusRequest",
    "parsed_status",
]

_log = logging.getLogger(__name__)

_UNKNOWN: Final = frozenset({Code.UNKNOWN_KEY, Code.UNKNOWN_TRUST_DOMAIN})


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusLimits:
    """Bounds and waits of reading statuses; times are seconds."""

    readers: int = 1_024
    """Concurrent readings of one identity: each costs the server a consumer in memory and two requests."""
    settle: float = DEFAULT_LIMITS.clock_skew / SECOND
    """After `end`: by then everything that the broker stored before `end`, by its clock, can be read (SPEC.md section 3)."""
    unknown: float = 60.0
    """How long after it was stored a status with an unknown key is tried again: the bundle may lag a little."""
    first: float = 10.0
    """How long after it was stored a final status does not count while an earlier status has an unknown key."""
    postponed: int = 16
    """Statuses with unknown keys that one reading tries again; further ones are refused at once."""
    parked: float = 2 * DEFAULT_LIMITS.clock_skew / SECOND
    """After the time until which a parked task waits: the clocks of its agent and of its reader may both be wrong."""
    marker_tries: int = 8
    """Tries to learn until when a task waits, before its reader says that this is not known."""
    backoff: Backoff = Backoff(initial_interval=0.25, maximum_interval=5.0)
    """Pause before a reading starts again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTask:
    """A task that we sent: how its statuses are recognised, and how its result is decided.

    `action` is the task's; `context` is the user on whose behalf we asked, known only to the process that asked.
    """

    pending: PendingRequest
    action: str
    context: UserContext | None = None

    @property
    def control(self) -> bool:
        """Whether it tells an agent something about work: its answer says that it is done, and holds nothing to decide on."""
        return self.pending.rpl is None and "._" in self.action


class StatusRequest(OpenRequest):
    """A request that accepts an answer only once its body was parsed too: only the body shows whether `fin` is right."""

    __slots__ = ("_taken",)

    def __init__(self, pending: PendingRequest) -> None:
        super().__init__(pending)
        self._taken: Header | None = None

    def take(self, header: Header) -> None:
        """Remember the header that passed all steps."""
        self._taken = header

    def keep(self) -> None:
        """Accept the header that was remembered."""
        if self._taken is not None:
            super().take(self._taken)


class StatusReading:
    """One reading of one task's statuses: its position in the stream, and what it has accepted."""

    def __init__(self, reader: StatusReader, task: AskedTask, after: int, feed: StatusFeed | None = None) -> None:
        self._reader = reader
        self._feed = feed
        self._watch = Watch()
        self._limits = reader.limits
        self._task = task
        self._after = after
        self._request = StatusRequest(task.pending)
        self._subject = task.pending.answers_to(reader.profile.own, reader.profile.names)
        self._last = 0
        """The highest stream sequence that was read."""
        self._created = 0
        """When its stream was created; 0 if nothing was read."""
        self._postponed: set[int] = set()
        """Sequences of this pass whose key is not known yet."""
        self._retried: set[int] = set()
        """Such sequences of the previous pass."""
        self._decided = False
        """Whether our own policy allows the result: it is asked once, about a result in parts at its first part."""
        self._passed_over = False
        """Whether a status of this pass did not count for an unknown key."""
        self._cut = False
        """Whether this pass ended before it had read what is there, because whoever reads was slow."""
        self._follow = False
        self._failures = 0
        self._again = 0.0
        self._end = task.pending.end
        """Until when the request is open: its end or, if it is parked, until when it waits."""
        self._parked = False
        """Whether its agent says, or has said, that it waits for an approval."""
        self._over = False
        """Whether its agent says that it was parked, and has ended."""
        self._unlearned = False
        """Whether it is parked, and until when is not known yet."""
        self._told = False
        """Whether a status was given to whoever reads."""

    async def run(self, *, follow: bool) -> AsyncGenerator[Status, None]:
        """Read, pass after pass, until nothing more can come."""
        self._follow = follow
        with self._feed.watching(self._subject) if self._feed is not None else nullcontext(self._watch) as self._watch:
            async with aclosing(self._passes(follow=follow)) as statuses:
                async for status in statuses:
                    yield status

    async def _passes(self, *, follow: bool) -> AsyncGenerator[Status, None]:
        while True:
            self._watch.news.clear()
            began = self._reader.clock()
            if self._unlearned and follow:
                await self._try_to_learn()
            over = self._over
            following = follow and not over and self._left(began) > 0
            failures = self._failures
            async with aclosing(self._pass(follow=following)) as statuses:
                async for status in statuses:
                    if self._is_news(status):
                        self._after, self._told = status.sequence, True
                        yield status
                    if status.final:
                        return
            if self._cut or (self._over and not over):
                # What was stored before it was known that the task has ended is all that counts: it is read first.
                continue
            # Only now it may be known until when the task waits. What was stored before the pass was read.
            ended = over or self._left(began) <= 0
            if ended and not self._postponed:
                if await self._waits():
                    continue
                yield Status(state=State.EXPIRED, code=Code.EXPIRED)
                return
            if not follow:
                if self._end != self._task.pending.end and not self._told:
                    # Its statuses are gone: they are kept for a day.
                    note = waits_note(self._end)
                    yield Status(state=State.INPUT_REQUIRED, code=Code.APPROVAL_REQUIRED, note=note)
                return
            if self._failures != failures:
                await asyncio.sleep(self._again - asyncio.get_running_loop().time())
                continue
            self._failures = 0
            if self._feed is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._wait()):
                        await self._watch.news.wait()

    async def _pass(self, *, follow: bool) -> AsyncGenerator[Status, None]:
        """Read from the first status that was not taken yet, until a new pass is due or the reading concludes."""
        if self._watch.created > self._created > 0:
            # The stream was deleted and created again.
            self._last, self._postponed, self._created = 0, set(), 0
        start = min(self._postponed, default=self._last + 1)
        self._retried, self._postponed, self._passed_over, self._cut = self._postponed, set(), False, False
        # With a feed the wait for more is there, and not at the server.
        staying = follow and self._feed is None
        source = self._reader.transport.read(RESULTS, [self._subject], start=start, follow=staying)
        async with ReadingTurn(source, self._feed.slots if self._feed is not None else None) as turn:
            while True:
                try:
                    async with asyncio.timeout(self._wait() if follow else None):
                        batch = await anext(turn.batches, None)
                except TimeoutError:
                    return
                except BusUnavailable as error:
                    if not follow or self._reader.closed:
                        raise
                    _log.warning("reading %s: %s", self._subject, error.detail)
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
                            self._postponed |= {one for one in self._retried if one > delivery.arrival.sequence}
                            self._cut = True
                            return
                if batch is None:
                    # It ended by itself, or a replica answered that is behind what was stored.
                    if staying or (follow and self._last < self._watch.sequence):
                        self._fail()
                    return

    async def _status(self, delivery: Delivery) -> Status | None:
        """Return the status in a delivery, or None if the delivery does not count."""
        position = delivery.arrival
        if position is None:
            return None
        first = position.sequence > self._last
        self._last, self._created = max(self._last, position.sequence), position.created
        try:
            result = await self._accepted(delivery, position)
            if result is None:
                return None
            status = parsed_status(result)
        except (EnvelopeError, BadBody) as error:
            if error.code in _UNKNOWN:
                self._passed_over = True
                if self._postpone(position):
                    return None
            if first or position.sequence in self._retried:
                self._reader.refusals.count(error, delivery)
            return None
        if status.final and self._may_be_second(position):
            return None
        if status.final and self._parked and not await self._in_time(position):
            if first and not self._postponed:
                self._reader.refusals.count(EnvelopeError(Code.UNEXPECTED_REPLY, 4, "past its end"), delivery)
            return None
        self._request.keep()
        if status.state is State.INPUT_REQUIRED and status.code == Code.APPROVAL_REQUIRED:
            self._parked = True
            await self._try_to_learn()
        content = status.result or status.part
        if content is not None and not self._decided and self._is_news(status) and not self._task.control:
            await self._decide(result, position)
            self._decided = True
        return status

    def _is_news(self, status: Status) -> bool:
        """Return whether a status is told: not what is read again, because the task was parked or the reader asked again.

        The end is, also where it is of an earlier delivery than what was told: that one may have gone on longer.
        """
        return status.sequence > self._after or (status.final and status.sequence != self._after)

    async def _accepted(self, delivery: Delivery, position: StreamArrival) -> VerifiedResult | None:
        """Return the verified status, with the bundles of now or of when it was stored."""
        reader = self._reader
        accepted = partial(
            accept_status,
            delivery.payload,
            delivery.subject,
            reader.profile,
            {self._task.pending.digest: self._request},
            stored=position.stored,
            caches=reader.caches,
        )
        try:
            return accepted(trust=reader.trust())
        except EnvelopeError as error:
            if error.code not in _UNKNOWN:
                raise
            failure = error
        with suppress(StateUnavailable):
            for then in await reader.past.at(position.stored):
                try:
                    return accepted(trust=then)
                except EnvelopeError as error:
                    failure = error
        raise failure

    def _may_be_second(self, position: StreamArrival) -> bool:
        """Return whether a final status waits, because one that was passed over may be the first for every reader."""
        fresh = self._reader.clock() < position.stored + int(self._limits.first * SECOND)
        if not self._passed_over or not fresh:
            return False
        if self._follow:
            if not self._postponed:
                self._fail()
            self._postponed.add(position.sequence)
        return True

    async def _decide(self, result: VerifiedResult, position: StreamArrival) -> None:
        """Ask our own policy about a result; raise if it may not be used."""
        received = Received(
            action=self._task.action,
            context=self._task.context,
            result=result,
            place=StreamPlace(stream=position.stream, sequence=position.sequence, stored=position.stored),
        )
        [refused] = await self._reader.policy.decide([received], now=self._reader.clock())
        if refused is not None:
            raise refused

    def _postpone(self, position: StreamArrival) -> bool:
        """Return whether a status with an unknown key is tried again. Only its sequence is kept: it is read again."""
        fresh = self._reader.clock() < position.stored + int(self._limits.unknown * SECOND)
        if not self._follow or not fresh or len(self._postponed) >= self._limits.postponed:
            return False
        if not self._postponed:
            self._fail()
        self._postponed.add(position.sequence)
        return True

    def _fail(self) -> None:
        """Start a new pass after a pause."""
        self._failures += 1
        self._again = asyncio.get_running_loop().time() + self._limits.backoff.interval(self._failures)

    async def _in_time(self, position: StreamArrival) -> bool:
        """Return whether the final status of a parked task was stored while it was open, by the newest word of its agent.

        Whoever follows reads it again later where that is not known now. Raises `BusUnavailable` and `StateUnavailable`.
        """
        if not self._over:
            try:
                await self._learn()
            except (BusUnavailable, StateUnavailable) as error:
                if not self._follow or self._failures + 1 >= self._limits.marker_tries:
                    raise
                _log.warning("until when %s waits is not known: %s", self._subject, error.detail)
                self._fail()
                self._postponed.add(position.sequence)
                return False
        return position.stored < self._end

    async def _waits(self) -> bool:
        """Return whether a status may have come after the end that was known; all of them are then read again.

        The agent says until when. What it says of an earlier time, or has said before, does not count, so that this ends.
        Raises `BusUnavailable` and `StateUnavailable` where that is not known: no end is told then.
        """
        tries = 0
        while True:
            tries += 1
            try:
                later = await self._learn()
            except (BusUnavailable, StateUnavailable) as error:
                if tries >= self._limits.marker_tries:
                    raise
                _log.warning("whether %s is parked is not known: %s", self._subject, error.detail)
                await asyncio.sleep(self._limits.backoff.interval(tries))
                continue
            if later:
                self._last, self._postponed = 0, set()
            return later

    async def _try_to_learn(self) -> None:
        """Learn until when a parked task waits; where that is not known now, whoever follows tries again."""
        try:
            await self._learn()
        except (BusUnavailable, StateUnavailable) as error:
            _log.warning("until when %s waits is not known: %s", self._subject, error.detail)
            self._unlearned = True
            self._fail()

    async def _learn(self) -> bool:
        """Ask until when the task waits, if it is parked; return whether something may have come that did not count before.

        Raises `BusUnavailable`, and `StateUnavailable` where that may be known later.
        """
        held, profile = self._reader.held, self._reader.profile
        if held is None or self._task.control or self._over:
            return False
        try:
            marker = await marker_of(held, self._task.pending, own=profile.own, names=profile.names)
        except ConfigurationError as error:
            # Where nothing is held, nothing waits.
            _log.warning("whether %s is parked was not looked up: %s", self._subject, error.detail)
            marker = None
        self._unlearned = False
        if marker is None:
            return False
        later = marker.ended or marker.until > self._end
        self._parked, self._over = True, marker.ended
        if marker.until != self._end:
            self._end = marker.until
            self._request = self._request.until(marker.until)
        return later

    def _left(self, now: int | None = None) -> float:
        """Return the seconds until the requester concludes `expired`."""
        settle = self._limits.parked if self._parked else self._limits.settle
        return (self._end - (self._reader.clock() if now is None else now)) / SECOND + settle

    def _wait(self) -> float:
        """Return how long the next batch may take."""
        if self._postponed or self._unlearned:
            return max(min(self._again - asyncio.get_running_loop().time(), self._left()), 0.0)
        return 0.0 if self._over else max(self._left(), 0.0)


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
    """Reads the statuses of tasks that one identity has asked for; once left, no reading waits for a connection any more.

    `trust` gives the bundles as they are now. A status is read soon after it was stored or, later, with bundles that may
    have lost its key since: it is then not believed, which errs on the safe side.
    """

    def __init__(
        self,
        *,
        names: Names,
        own: SpiffeId,
        transport: Transport,
        policy: ReplyPolicy,
        refusals: Refusals,
        trust: Callable[[], Trust],
        caches: Caches,
        held: Held | None = None,
        past: PastTrust = current_only,
        clock: Clock = wall_clock,
        limits: StatusLimits | None = None,
    ) -> None:
        self.profile: Final = ResultProfile(own=own, names=names)
        self.transport: Final = transport
        self.policy: Final = policy
        self.refusals: Final = refusals
        self.trust: Final = trust
        self.caches: Final = caches
        self.held: Final = held
        self.past: Final = past
        self.clock: Final = clock
        self.limits: Final = limits or StatusLimits()
        self.closed = False
        self._reading = 0
        self._open = 0
        """Of these, those that hold a consumer each."""
        self._feed: StatusFeed | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    @asynccontextmanager
    async def together(self) -> AsyncGenerator[None, None]:
        """Have readings that follow wait together while entered: for who follows thousands of tasks (`status_feed.py`)."""
        own = self.profile.names.token(self.profile.own)
        async with StatusFeed(self.transport, f"status.{own}.*", clock=self.clock) as self._feed:
            try:
                yield
            finally:
                self._feed = None

    @property
    def reading(self) -> int:
        """How many readings there are now."""
        return self._reading

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task` numbered over `after` as they come, up to the final one.

        The last one is `expired` where `end` has passed and nothing final was stored before it; a task that is parked is open
        until its agent says, which may be earlier or later than `end`. Without `follow` only what is stored now is read. Lost
        connections and restarts of the server are waited out until then.
        Raises `Denied`, `PolicyUnavailable` or `PolicyFailed` if our own policy does not allow the result; `Overloaded`
        for too many readings; `BusUnavailable` if without `follow`, or after `end`, the stream cannot be read; that or
        `StateUnavailable` if a parked task has ended, and until when it was open is not known.
        """
        # Those that wait together hold no place.
        with nullcontext() if follow and self._feed is not None else self._place():
            async with aclosing(self._read(task, after=after, follow=follow)) as statuses:
                async for status in statuses:
                    yield status

    @contextmanager
    def reserve(self) -> Generator[ReadsStatuses, None, None]:
        """Hold the place of one reading that follows, and yield what reads in it, so that what is sent then is read.

        Raises `Overloaded` for too many readings.
        """
        if self._feed is not None:
            yield self
        else:
            with self._place():
                yield _ReadingPlace(self._read)

    @contextmanager
    def _place(self) -> Generator[None, None, None]:
        if self._open >= self.limits.readers:
            raise Overloaded(f"{self._open} readings of statuses are open already")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _read(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        self._reading += 1
        feed = self._feed if follow else None
        try:
            async with aclosing(StatusReading(self, task, after, feed).run(follow=follow)) as statuses:
                async for status in statuses:
                    yield status
        finally:
            self._reading -= 1


@dataclass(frozen=True, slots=True)
class _ReadingPlace:
    """A place that is held for one reading."""

    read: Callable[..., AsyncGenerator[Status, None]]

    def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Yield the statuses of `task`."""
        return self.read(task, after=after, follow=follow)
