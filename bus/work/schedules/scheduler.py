"""The scheduler of one process: it knows its identity's schedules, and sends their ticks, each once over all processes.

::

    due --claimed--> read again, still on --sent--> marked        due --overlap: skip--> void       found too late --> missed
         `--another has it: wait for that one's end               due --overlap: queue--> waits for its predecessor

There is no process that may do everything: what is sent is sealed by the identity that owns the schedule. Before each tick
the schedule is read again from HELD and verified, so that what a process remembers decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Delivery, DuplicateFirstAttempt, NotPermitted, StoredValue
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
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.wire import Statement

_logger = logging.getLogger(__name__)

Compose = Callable[[Planned, Statement | None], OutgoingMessage]
"""Makes the task that a schedule sends, for a user or for nobody, without what its tick adds.

Raises `SealError` for what nobody could send.
"""

HasEnded = Callable[[PendingRequest, bool], Awaitable[bool]]
"""Says whether a task has ended; if the second argument is true, returns once it has. Raises `SealbusError`."""


@dataclass(frozen=True, slots=True)
class TickTasks:
    """How a scheduler makes the tasks of its ticks, and learns that they have ended."""

    compose: Compose
    has_ended: HasEnded


AT_A_TIME: Final = 16
"""Ticks that a process sends at a time, each some round trips."""
PURSUED: Final = 8
"""Ticks of one schedule that a process sees to at a time; beyond, the oldest is given up."""
PERSISTS: Final = 120 * SECOND
"""How much longer than its `catchup` a tick is pursued that a process began with."""

UNPROVED: Final = 64
"""Names that are looked at again one by one because nothing genuine stands there: others can store under any number."""

CLOCK_SET: Final = 10.0
"""Seconds after which a wait looks at the clock again, which somebody may have set."""
TEND: Final = 5.0
"""Seconds between looks at what could not be verified, and at what has to be written anew."""
AGAIN: Final = SECOND
RECENT: Final = 60 * SECOND
"""How far back changes are followed from: what was stored before was read."""
_MANY: Final = 8
"""Changes at a time from which on all are read, and not one by one."""

_RESTART: Final = Backoff(initial_interval=0.25, maximum_interval=5.0)


class TickTimer:
    """Waits until times of a clock that may be set, or moved by a test; knows who waits for what is still to come."""

    def __init__(self, clock: BusClock) -> None:
        self._clock = clock
        self._turned = asyncio.Event()
        self.turn = 0
        """How often the clock was moved."""

    def moved(self) -> None:
        """Have all that wait look at the clock."""
        self.turn += 1
        self._turned.set()
        self._turned = asyncio.Event()

    async def until(self, time: int) -> None:
        """Return at `time`, perhaps earlier or when the clock was moved: look again."""
        left = (time - self._clock()) / SECOND
        try:
            async with asyncio.timeout(max(min(left, CLOCK_SET), 0.0)):
                await self._turned.wait()
        except TimeoutError:
            return


class _Act:
    """Something that this process does for a schedule; `seen` is the turn of the timer in which it began to wait."""

    def __init__(self) -> None:
        self.seen: int | None = None
        self.queued = False
        """Whether it waits for a predecessor to end."""


class _ClaimedTick:
    """What was claimed for a tick, to go on with where a try failed."""

    def __init__(self) -> None:
        self.taken: TakenTick | None = None


class _Run:
    """One schedule while it is run: the task that looks for its ticks, and those that see to one tick each, by its time."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.task: asyncio.Task[None] | None = None
        self.ticks: dict[int, asyncio.Task[None]] = {}

    def cancel(self) -> None:
        """End all of it."""
        for task in (self.task, *self.ticks.values()):
            if task is not None:
                task.cancel()


class Scheduler:
    """Runs the schedules in `book`; `run` until cancelled. `settle` says why the clocks do not agree, if they do not.

    With `standing` it runs those that act for users, and no other; without, no such one.
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
        self._acts: set[_Act] = set()
        self._unproved: dict[str, int] = {}
        """Names under which nothing genuine stands, which may be because our bundle lags, and until when they are tried."""
        self._group: asyncio.TaskGroup | None = None
        self._room = asyncio.Semaphore(AT_A_TIME)
        self._rested = asyncio.Event()
        self._operator_log = OperatorLog(_logger)
        self.sent = 0
        """Ticks that this process has sent."""

    @property
    def kept(self) -> int:
        """How many schedules there are that are neither removed nor over."""
        now = self._clock()
        return sum(schedule.stands(now) for schedule in self._known.values())

    def kept_as(self, prefix: str) -> int:
        """Return how many of these have names that begin with `prefix`."""
        now = self._clock()
        return sum(schedule.stands(now) for name, schedule in self._known.items() if name.startswith(prefix))

    @property
    def known(self) -> Mapping[str, Schedule]:
        """The schedules as this process has read them last, by name."""
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
            self._acts.clear()
            self._rested.set()

    async def changed(self, *names: str) -> None:
        """Read some schedules again, all without names. Raises as `ScheduleBook.all`."""
        newest = await self.book.all() if not names else {}
        for name in names:
            if (schedule := await self.book.one(name)) is not None:
                newest[name] = schedule
        now = self._clock()
        for name in names or self._known.keys() | newest.keys():
            known, new = self._known.get(name), newest.get(name)
            # A process that reads from a replica that is behind does not forget what it has seen.
            if known is not None and (new is None or new.order < known.order):
                continue
            if new is not None:
                self._known[name] = new
                self._unproved.pop(name, None)
                if known != new:
                    self._begin(name, new)
            elif name in self._unproved or len(self._unproved) < UNPROVED:
                # Of more than these all are read again once our bundle changes.
                self._unproved.setdefault(name, now + 60 * SECOND)

    async def settle(self) -> None:
        """Read all schedules, and wait until each has done what is due by the clock and waits for something."""
        await self.changed()
        self._timer.moved()
        while not all(act.queued or act.seen == self._timer.turn for act in self._acts):
            self._rested.clear()
            await self._rested.wait()

    def next_tick(self) -> int | None:
        """Return when the next tick is, of those that are known; `None` if there is none."""
        now = self._clock()
        ticks = [schedule.next(now) for schedule in self._known.values() if schedule.state is ScheduleState.ON]
        return min((tick for tick in ticks if tick is not None), default=None)

    def _begin(self, name: str, schedule: Schedule) -> None:
        if (before := self._runs.pop(name, None)) is not None:
            before.cancel()
        if schedule.state is ScheduleState.ON and self._group is not None:
            run = self._runs[name] = _Run(schedule)
            run.task = self._started(self._group, lambda act: self._look(run, act))

    def _started(self, group: asyncio.TaskGroup, act_on: Callable[[_Act], Awaitable[None]]) -> asyncio.Task[None]:
        """Do `what` in a task of its own, and have `settle` wait for it from now on."""
        act = _Act()
        self._acts.add(act)

        async def done() -> None:
            await act_on(act)

        def over(_: asyncio.Task[None]) -> None:
            self._acts.discard(act)
            self._rested.set()

        task = group.create_task(done(), name="schedule")
        task.add_done_callback(over)
        return task

    async def _follow(self) -> None:
        """Read what is written about schedules, here or by other processes."""
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
                        # What others have the broker store there has no schedule read again, unless it has the form of one.
                        names = {
                            delivery.subject.removeprefix(self.book.prefix)
                            for delivery in batch
                            if delivery.arrival is not None
                            and self.book.may_hold(delivery.subject, _stored(delivery, delivery.arrival))
                        }
                        if names:
                            await (self.changed(*sorted(names)) if len(names) < _MANY else self.changed())
            except SealbusError as error:
                self._operator_log.warning("reading schedules: %s", error.detail or error.code)
            failures += 1
            await asyncio.sleep(_RESTART.interval(failures))

    async def _tend(self) -> None:
        """Look again at what did not verify, and write anew what HELD would forget, or whose key bundles would."""
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
        made = schedule.held.at if schedule.held is not None else now
        if now - made < self._renewed_after or not schedule.stands(now):
            return
        # What is read now is genuine now: a version whose signer is revoked is not made new.
        current = await self.book.one(schedule.name)
        if current is not None and current.order == schedule.order and current.held is not None:
            if now - current.held.at >= self._renewed_after:
                await self.book.store(current, current)
            await self.changed(schedule.name)

    async def _over(self, schedule: Schedule) -> bool:
        """End a schedule whose user may have nothing done any more; return whether that is so."""
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

    async def _look(self, run: _Run, act: _Act) -> None:
        """Look for the ticks of a schedule, until cancelled or it is over."""
        schedule = run.schedule
        planned, catchup = schedule.planned, schedule.planned.catchup * SECOND
        after, first = max(schedule.since, self._clock() - catchup - GRACE) - 1, True
        while True:
            now = self._clock()
            missed = newest_missed(
                planned.when, after=after, since=schedule.since, until=planned.until, now=now, catchup=catchup
            )
            # What was due before this process began may have been sent by another.
            if missed.given_up and not first:
                self._count("missed", missed.given_up)
            after, first = missed.tick or max(after, now), False
            if missed.tick is not None and planned.overlap is Overlap.QUEUE:
                after = await self._pursue(run, missed.tick, act)
            elif missed.tick is not None:
                self._pursue_beside(run, missed.tick)
            elif (following := schedule.next(after)) is None:
                return
            else:
                await self._wait(act, following)

    def _pursue_beside(self, run: _Run, time: int) -> None:
        """See to a tick in a task of its own: one whose process died holds up its tick, and not those after it."""
        if self._group is None:
            return
        run.ticks = {at: task for at, task in run.ticks.items() if not task.done()}
        if len(run.ticks) >= PURSUED:
            oldest = min(run.ticks)
            run.ticks.pop(oldest).cancel()
            self._count("missed")

        async def pursue(act: _Act) -> None:
            await self._pursue(run, time, act)

        run.ticks[time] = self._started(self._group, pursue)

    async def _wait(self, act: _Act, time: int) -> None:
        while self._clock() < time:
            act.seen = self._timer.turn
            self._rested.set()
            await self._timer.until(time)
            act.seen = None

    async def _pursue(self, run: _Run, time: int, act: _Act) -> int:
        """See to it that a tick, or with `queue` the newest that is due, is sent or left out; return which one it was."""
        schedule, claim = run.schedule, _ClaimedTick()
        last = self._clock() + schedule.planned.catchup * SECOND + PERSISTS
        while self._clock() <= last:
            try:
                if schedule.planned.overlap is Overlap.QUEUE:
                    await self._predecessor(schedule, act)
                    time = self._newest(schedule, time)
                async with self._room:
                    waiting = await self._tick(schedule, Tick(schedule.grant.digest, time), claim)
                if waiting is None:
                    return time
            except SealbusError as error:
                self._operator_log.warning("a tick of %s: %s", schedule.name, error.detail or error.code)
                waiting = self._clock() + AGAIN
            await self._wait(act, waiting)
        self._count("missed")
        return time

    def _newest(self, schedule: Schedule, time: int) -> int:
        """Return the newest tick that came due while the one at `time` waited; those before it are left out."""
        now = self._clock()
        while (following := schedule.next(time)) is not None and following <= now:
            self._count("skipped")
            time = following
        return time

    async def _tick(self, schedule: Schedule, tick: Tick, claim: _ClaimedTick) -> int | None:
        """Send a tick unless that has happened; return when to look again, `None` if all is done. Raises `SealbusError`."""
        tick_claim = claim.taken
        if (skew := await self._settle_clocks()) is not None:
            raise skew
        if tick_claim is None or tick_claim.tick != tick or self._clock() >= tick_claim.send_by:
            claimed = await self._claims.claim(tick)
            if not isinstance(claimed, TakenTick):
                return claimed.until if claimed is not None else None
            claim.taken = tick_claim = claimed
        current = await self.book.one(schedule.name)
        if current is None or current.grant != schedule.grant or not current.ticks(self._site.trust()):
            await self._leave(tick_claim, "void")
        elif not await self._may_send(current):
            await self._leave(tick_claim, "refused")
        elif schedule.planned.overlap is Overlap.SKIP and await self._is_open(schedule.name):
            await self._leave(tick_claim, "skipped")
        else:
            # From here on it may be stored, although it is not known to be.
            claim.taken = replace(tick_claim, fresh=False)
            if not await self._send(current, tick_claim):
                return tick_claim.until
        return None

    async def _may_send(self, schedule: Schedule) -> bool:
        if self._standing is None:
            return not schedule.user
        return bool(schedule.user) and not await self._over(schedule) and await self._standing.may_send(schedule)

    async def _send(self, schedule: Schedule, taken: TakenTick) -> bool:
        """Send the task of a tick, and mark it; return false if it is too late for that: somebody stopped this process."""
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
            # Nobody of ours can have sent it: somebody used its id, for whatever that was.
            self._operator_log.warning("a tick of %s is withheld: another used its id", schedule.name)
            await self._leave(taken, "withheld")
            return True
        except (NotPermitted, SealError, ConfigurationError) as error:
            self._operator_log.warning("a tick of %s cannot be sent: %s", schedule.name, error.detail)
            await self._leave(taken, "failed")
            return True
        self.sent += 1
        self._count("sent")
        await self._claims.mark(taken, TickStage.SENT)
        # A duplicate was sealed by a process that is gone, and its hash with it.
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

    async def _predecessor(self, schedule: Schedule, act: _Act) -> None:
        """Wait until the task of the last tick has ended, or can no longer be handled."""
        last = await self._claims.sent_last(schedule.name)
        if last is None:
            return
        act.queued = True
        self._rested.set()
        try:
            await self.tasks.has_ended(last[1], True)
        finally:
            act.queued = False

    def _count(self, outcome: str, number: int = 1) -> None:
        self._site.counters.add("sealbus_ticks_total", number, outcome=outcome)


def _stored(delivery: Delivery, arrival: StreamArrival) -> StoredValue:
    return StoredValue(arrival.sequence, delivery.payload, arrival.stored)
