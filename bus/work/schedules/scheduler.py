"""The scheduler of one process: it follows the schedules of its identity, and sends each tick once over all processes.

::

    due --claimed--> read again, still on --sent--> marked        due --overlap: skip--> void       seen too late --> missed
         `--claimed by another: wait for the end of its claim     due --overlap: queue--> waits for its predecessor

No process may send for all: a tick's task is sealed by the identity that owns the schedule. Before each tick the schedule is
read again from HELD and verified, so that the memory of a process decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import DuplicateFirstAttempt, NotPermitted, StoredValue
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.site import Site
from sealbus.bus.stream_names import HELD
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.work.schedules.book import Schedule, ScheduleBook
from sealbus.bus.work.schedules.request import Overlap, Planned, ScheduleState
from sealbus.bus.work.schedules.rule import GRACE, newest_missed
from sealbus.bus.work.schedules.standing import StandingGrants
from sealbus.bus.work.schedules.tick import TICK_MARK, TakenTick, Tick, TickClaims, TickStage
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import ClockSkew, ConfigurationError, SealbusError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.wire import Statement

_logger = logging.getLogger(__name__)

Compose = Callable[[Planned, Statement | None], OutgoingMessage]
"""Makes the task that a schedule sends, for a user if there is a statement, without the marks of its tick.

Raises `SealError` for a task that cannot be sent.
"""

HasEnded = Callable[[PendingRequest, bool], Awaitable[bool]]
"""Says whether a task has ended; if the second argument is true, returns once it has. Raises `SealbusError`."""


@dataclass(frozen=True, slots=True)
class TickTasks:
    """How a scheduler makes the tasks of its ticks, and learns that they have ended."""

    compose: Compose
    has_ended: HasEnded


AT_A_TIME: Final = 16
"""Ticks that a process sends at a time; each takes some round trips."""
PURSUED: Final = 8
"""Ticks of one schedule that a process pursues at a time; beyond, the oldest is given up."""
PERSISTS: Final = 120 * SECOND
"""Microseconds beyond `catchup` for which a process pursues a tick that it has begun with."""

UNPROVED: Final = 64
"""Names without a genuine value that are read again one by one: others can store under any number of names."""

CLOCK_SET: Final = 10.0
"""Seconds after which a wait reads the clock again, because the clock may have been set."""
TEND: Final = 5.0
"""Seconds between two looks at names without a genuine value, and at schedules that have to be written again."""
AGAIN: Final = SECOND
RECENT: Final = 60 * SECOND
"""Changes are followed from so many microseconds ago: all earlier ones were read before."""
_MANY: Final = 8
"""From so many changed names at a time on, all schedules are read in place of each by itself."""

_RESTART: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


class TickTimer:
    """Waits for times of a clock that may be set, or moved by a test."""

    def __init__(self, clock: BusClock) -> None:
        self._clock = clock
        self._turned = asyncio.Event()
        self.turn = 0
        """The number of times that the clock was moved."""

    def moved(self) -> None:
        """Have all waits read the clock again."""
        self.turn += 1
        self._turned.set()
        self._turned = asyncio.Event()

    async def until(self, time: int) -> None:
        """Return at `time`, or earlier, as when the clock was moved: the caller reads the clock again."""
        left = (time - self._clock()) / SECOND
        try:
            async with asyncio.timeout(max(min(left, CLOCK_SET), 0.0)):
                await self._turned.wait()
        except TimeoutError:
            return


@dataclass(slots=True, eq=False)
class _Activity:
    """A concurrent activity for a schedule, for which `settle` waits."""

    turn: int | None = None
    """The turn of the timer in which it began to wait, if it waits."""
    queued: bool = False
    """Whether it waits for the task of a predecessor to end."""


@dataclass(slots=True)
class _Claim:
    """The claim of this process on a tick, kept between tries."""

    tick: TakenTick | None = None


class _Run:
    """One schedule while it runs: the asyncio task that looks for its ticks, and one for each pursued tick, by time."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.task: asyncio.Task[None] | None = None
        self.ticks: dict[int, asyncio.Task[None]] = {}

    def cancel(self) -> None:
        """Cancel all its asyncio tasks."""
        for task in (self.task, *self.ticks.values()):
            if task is not None:
                task.cancel()


class Scheduler:
    """Runs the schedules in `book` while `run` is awaited. `settle` returns an error if the clocks do not agree.

    With `standing` it runs the schedules that act for users; without it, the others. After `renewed_after` microseconds a
    schedule is written again, before HELD forgets it or bundles lose its key.
    """

    def __init__(
        self,
        site: Site,
        book: ScheduleBook,
        claims: TickClaims,
        tasks: TickTasks,
        *,
        outbox: Outbox,
        settle: Callable[[], Awaitable[ClockSkew | None]],
        renewed_after: int,
        standing: StandingGrants | None = None,
    ) -> None:
        self.book: Final = book
        self.tasks: Final = tasks
        self._claims = claims
        self._site = site
        self._clock = site.bus_clock
        self._outbox = outbox
        self._settle_clocks = settle
        self._renewed_after = renewed_after
        self._standing = standing
        self._timer = TickTimer(site.bus_clock)
        self._known: dict[str, Schedule] = {}
        self._runs: dict[str, _Run] = {}
        self._activities: set[_Activity] = set()
        self._unproved: dict[str, int] = {}
        """Names without a genuine value, and until when they are read again: our bundle may lag behind their keys."""
        self._group: asyncio.TaskGroup | None = None
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._rested = asyncio.Event()
        self._operator_log = OperatorLog(_logger)
        self.sent = 0
        """Ticks that this process has sent."""

    @property
    def kept(self) -> int:
        """The number of schedules that are neither removed nor over."""
        now = self._clock()
        return sum(schedule.stands(now) for schedule in self._known.values())

    def kept_as(self, prefix: str) -> int:
        """Return the number of these whose names begin with `prefix`."""
        now = self._clock()
        return sum(schedule.stands(now) for name, schedule in self._known.items() if name.startswith(prefix))

    @property
    def known(self) -> Mapping[str, Schedule]:
        """The schedules by name, as this process has read them last."""
        return self._known

    async def run(self) -> None:
        """Follow the schedules and send their ticks, until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._follow(), name="schedules-follow")
                self._group.create_task(self._tend(), name="schedules-tend")
        finally:
            self._group = None
            self._runs.clear()
            self._activities.clear()
            self._rested.set()

    async def changed(self, *names: str) -> None:
        """Read the schedules with these `names` again; without names, all. Raises as `ScheduleBook.all`."""
        newest = await self.book.all() if not names else {}
        for name in names:
            if (schedule := await self.book.one(name)) is not None:
                newest[name] = schedule
        now = self._clock()
        for name in names or self._known.keys() | newest.keys():
            known, new = self._known.get(name), newest.get(name)
            # A replica that is behind may answer: keep the newest version that was seen.
            if known is not None and (new is None or new.order < known.order):
                continue
            if new is not None:
                self._known[name] = new
                self._unproved.pop(name, None)
                if known != new:
                    self._begin(name, new)
            elif name in self._unproved or len(self._unproved) < UNPROVED:
                # Beyond the bound, all are read again when our bundle changes.
                self._unproved.setdefault(name, now + 60 * SECOND)

    async def settle(self) -> None:
        """Read all schedules, and wait until everything that is due by the clock is done."""
        await self.changed()
        self._timer.moved()
        while not all(activity.queued or activity.turn == self._timer.turn for activity in self._activities):
            self._rested.clear()
            await self._rested.wait()

    def next_tick(self) -> int | None:
        """Return the time of the next tick of all known schedules, or `None` if there is none."""
        now = self._clock()
        ticks = [schedule.next(now) for schedule in self._known.values() if schedule.state is ScheduleState.ON]
        return min((tick for tick in ticks if tick is not None), default=None)

    def _begin(self, name: str, schedule: Schedule) -> None:
        if (before := self._runs.pop(name, None)) is not None:
            before.cancel()
        if schedule.state is ScheduleState.ON and self._group is not None:
            run = self._runs[name] = _Run(schedule)
            run.task = self._started(self._group, lambda activity: self._look(run, activity))

    def _started(
        self, group: asyncio.TaskGroup, do: Callable[[_Activity], Coroutine[None, None, None]]
    ) -> asyncio.Task[None]:
        """Start an activity as an asyncio task. `settle` waits for it from now on."""
        activity = _Activity()
        self._activities.add(activity)

        def over(_: asyncio.Task[None]) -> None:
            self._activities.discard(activity)
            self._rested.set()

        task = group.create_task(do(activity), name="schedule")
        task.add_done_callback(over)
        return task

    async def _follow(self) -> None:
        """Read the changes of schedules, by this and other processes."""
        failures = 0
        while True:
            try:
                pattern = self.book.prefix + "*"
                begun = self._clock() - RECENT
                await self.changed()
                reading = self._site.transport.read(HELD, [pattern], since=begun, follow=True)
                async with aclosing(reading) as batches:
                    async for batch in batches:
                        failures = 0
                        # Bytes of others cause a read only if they have the form of a schedule.
                        names = {
                            delivery.subject.removeprefix(self.book.prefix)
                            for delivery in batch
                            if (arrival := delivery.arrival) is not None
                            and self.book.may_hold(
                                delivery.subject, StoredValue(arrival.sequence, delivery.payload, arrival.stored)
                            )
                        }
                        if names:
                            await (self.changed(*sorted(names)) if len(names) < _MANY else self.changed())
            except SealbusError as error:
                self._operator_log.warning("reading schedules: %s", error.detail or error.code)
            failures += 1
            await asyncio.sleep(_RESTART.interval(failures))

    async def _tend(self) -> None:
        """Read unproved names again, and write schedules again before HELD forgets them or bundles lose their keys."""
        trust = self._site.trust()
        while True:
            await asyncio.sleep(TEND)
            now = self._clock()
            self._unproved = {name: until for name, until in self._unproved.items() if until > now}
            try:
                if self._site.trust() is not trust:
                    trust = self._site.trust()
                    await self.changed()
                elif self._unproved:
                    await self.changed(*self._unproved)
                for schedule in list(self._known.values()):
                    if not await self._over(schedule):
                        await self._renew(schedule, now)
            except SealbusError as error:
                self._operator_log.warning("tending schedules: %s", error.detail or error.code)

    async def _renew(self, schedule: Schedule, now: int) -> None:
        """Store a schedule again if it still stands and was stored over `_renewed_after` ago."""
        made = schedule.held.at if schedule.held is not None else now
        if now - made < self._renewed_after or not schedule.stands(now):
            return
        # Read the schedule again: a version whose signer has been revoked must not be renewed.
        current = await self.book.one(schedule.name)
        if current is not None and current.order == schedule.order and current.held is not None:
            if now - current.held.at >= self._renewed_after:
                await self.book.store(current, current)
            await self.changed(schedule.name)

    async def _over(self, schedule: Schedule) -> bool:
        """End a schedule if its standing grant has ended; return whether it has."""
        if self._standing is None or schedule.state is ScheduleState.REMOVED:
            return False
        if not (reason := self._standing.ended(schedule)):
            return False
        current = await self.book.one(schedule.name)
        if current is not None and current.order == schedule.order and current.state is not ScheduleState.REMOVED:
            await self.book.store(replace(current, state=ScheduleState.REMOVED), current)
            self._count("ended")
            _logger.warning("the standing grant %s has ended: %s", schedule.name, reason)
        await self.changed(schedule.name)
        return True

    async def _look(self, run: _Run, activity: _Activity) -> None:
        """Look for the ticks of a schedule, until it is over."""
        schedule = run.schedule
        planned, catchup = schedule.planned, schedule.planned.catchup * SECOND
        after, first = max(schedule.since, self._clock() - catchup - GRACE) - 1, True
        while True:
            now = self._clock()
            missed = newest_missed(
                planned.when, after=after, since=schedule.since, until=planned.until, now=now, catchup=catchup
            )
            # Ticks that were due before this process began may have been sent by another process.
            if missed.given_up and not first:
                self._count("missed", missed.given_up)
            after, first = missed.tick or max(after, now), False
            if missed.tick is not None and planned.overlap is Overlap.QUEUE:
                after = await self._pursue(run, missed.tick, activity)
            elif missed.tick is not None:
                self._pursue_beside(run, missed.tick)
            elif (following := schedule.next(after)) is None:
                return
            else:
                await self._wait(activity, following)

    def _pursue_beside(self, run: _Run, time: int) -> None:
        """Pursue a tick in an asyncio task of its own: if the process that claimed it died, later ticks go on."""
        if self._group is None:
            return
        run.ticks = {at: task for at, task in run.ticks.items() if not task.done()}
        if len(run.ticks) >= PURSUED:
            oldest = min(run.ticks)
            run.ticks.pop(oldest).cancel()
            self._count("missed")

        async def pursue(activity: _Activity) -> None:
            await self._pursue(run, time, activity)

        run.ticks[time] = self._started(self._group, pursue)

    async def _wait(self, activity: _Activity, time: int) -> None:
        while self._clock() < time:
            activity.turn = self._timer.turn
            self._rested.set()
            await self._timer.until(time)
            activity.turn = None

    async def _pursue(self, run: _Run, time: int, activity: _Activity) -> int:
        """Pursue a tick, or with `queue` the newest that is due, until it is sent or left out; return its time."""
        schedule, claim = run.schedule, _Claim()
        last = self._clock() + schedule.planned.catchup * SECOND + PERSISTS
        while self._clock() <= last:
            try:
                if schedule.planned.overlap is Overlap.QUEUE:
                    await self._predecessor(schedule, activity)
                    time = self._newest(schedule, time)
                async with self._room:
                    waiting = await self._tick(schedule, Tick(schedule.grant.digest, time), claim)
                if waiting is None:
                    return time
            except SealbusError as error:
                self._operator_log.warning("a tick of %s: %s", schedule.name, error.detail or error.code)
                waiting = self._clock() + AGAIN
            await self._wait(activity, waiting)
        self._count("missed")
        return time

    def _newest(self, schedule: Schedule, time: int) -> int:
        """Return the newest tick that came due while the tick at `time` waited; count the others as skipped."""
        now = self._clock()
        while (following := schedule.next(time)) is not None and following <= now:
            self._count("skipped")
            time = following
        return time

    async def _tick(self, schedule: Schedule, tick: Tick, claim: _Claim) -> int | None:
        """Send a tick unless it was sent; return when to try again, or `None` if it is done. Raises `SealbusError`."""
        taken = claim.tick
        if (skew := await self._settle_clocks()) is not None:
            raise skew
        if taken is None or taken.tick != tick or self._clock() >= taken.send_by:
            claimed = await self._claims.claim(tick)
            if not isinstance(claimed, TakenTick):
                return claimed.until if claimed is not None else None
            claim.tick = taken = claimed
        current = await self.book.one(schedule.name)
        if current is None or current.grant != schedule.grant or not current.ticks(self._site.trust()):
            await self._leave(taken, "void")
        elif not await self._may_send(current):
            await self._leave(taken, "refused")
        elif schedule.planned.overlap is Overlap.SKIP and await self._is_open(schedule.name):
            await self._leave(taken, "skipped")
        else:
            # From here on the task may be stored, even if that is not acknowledged.
            claim.tick = replace(taken, fresh=False)
            if not await self._send(current, taken):
                return taken.until
        return None

    async def _may_send(self, schedule: Schedule) -> bool:
        if self._standing is None:
            return not schedule.user
        return bool(schedule.user) and not await self._over(schedule) and await self._standing.may_send(schedule)

    async def _send(self, schedule: Schedule, taken: TakenTick) -> bool:
        """Send the task of a tick and mark it; return `False` if it is too late, as after a pause of this process."""
        tick = taken.tick
        try:
            statement = self._standing.statement(schedule) if self._standing is not None else None
            message = self.tasks.compose(schedule.planned, statement).with_entries(
                id=tick.message_id,
                idm=tick.idempotency_key,
                re=schedule.grant.digest,
                ext={TICK_MARK: tick.time},
            )
            left = (taken.send_by - self._clock()) / SECOND
            if left <= 0:
                return False
            posted = await self._outbox.publish(message, within=left, reseal=False, duplicate_is_ours=not taken.fresh)
        except DuplicateFirstAttempt:
            # No process of ours can have sent it: another agent used its id for another message.
            self._operator_log.warning("a tick of %s is withheld: another agent used its id", schedule.name)
            await self._leave(taken, "withheld")
            return True
        except (NotPermitted, SealError, ConfigurationError) as error:
            self._operator_log.warning("a tick of %s cannot be sent: %s", schedule.name, error.detail)
            await self._leave(taken, "failed")
            return True
        self.sent += 1
        self._count("sent")
        await self._claims.mark(taken, TickStage.SENT)
        # A duplicate was sealed by a process that is gone, so its hash is not known.
        if posted.ack is not None and not posted.ack.duplicate:
            task = PendingRequest.of(posted.sealed.header)
            await self._claims.keep_sent(schedule.name, tick, task)
            if self._standing is not None:
                await self._standing.sent(schedule, task)
        return True

    async def _leave(self, taken: TakenTick, outcome: str) -> None:
        self._count(outcome)
        await self._claims.mark(taken, TickStage.VOID)

    async def _is_open(self, name: str) -> bool:
        last = await self._claims.sent_last(name)
        return last is not None and not await self.tasks.has_ended(last[1], False)

    async def _predecessor(self, schedule: Schedule, activity: _Activity) -> None:
        """Wait until the task of the last tick has ended."""
        last = await self._claims.sent_last(schedule.name)
        if last is None:
            return
        activity.queued = True
        self._rested.set()
        try:
            await self.tasks.has_ended(last[1], True)
        finally:
            activity.queued = False

    def _count(self, outcome: str, number: int = 1) -> None:
        self._site.counters.add("sealbus_ticks_total", number, outcome=outcome)
