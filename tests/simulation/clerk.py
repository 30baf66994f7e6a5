"""Schedules in a simulation: `clerk`, whose two processes send their ticks, who asks for them, and what is seen of both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from promises.history import What

from sealbus import Agent
from sealbus.agents.dev.memory.jetstream import Stored
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.work.schedules.request import Planned, parse_schedule
from sealbus.bus.work.schedules.rule import next_tick
from sealbus.bus.work.schedules.tick import tick_of
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.message.wire import parse_envelope
from simulation.agent_tasks import AgentTasks
from simulation.network import Link
from simulation.parts import PlannedSchedule
from simulation.plan import LIFE
from simulation.processes import PAUSE, Work
from simulation.site import START, Site

__all__ = ["OVER_AFTER", "SENT_WITHIN", "TICKS", "Schedulings", "clerk"]

TICKS: Final = 1_001
"""The number of the first tick. Each task of a tick has a number of its own in the history."""
TICKING: Final = 40.0
"""Seconds from the plan's time of a schedule that repeats to its end."""
OVER_AFTER: Final = TICKING + 10.0
"""The same until its last tick is sent, if nothing is broken."""
ASKED_WITHIN: Final = 20.0
"""Seconds after which a schedule that was not confirmed is not asked for again."""
CATCHUP: Final = 300
"""Seconds for which a tick is caught up on: longer than all faults last."""
SENT_WITHIN: Final = 150.0
"""Seconds within which each tick that must be sent is sent once nothing is broken any more: the claim of a process that died
lasts for 45, and a reader that missed a change looks again after 30."""
CLERK: Final = "clerk"
_ASKED: Final = control_subject(CLERK, "schedule")
_UNKNOWN: Final = "unknown_schedule"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def clerk(site: Site, link: Link) -> None:
    """Run a process of `clerk`, which has no handlers: it takes requests for schedules, and sends their ticks."""
    async with site.node(CLERK, link) as node, Worker(Agent(CLERK), node) as running:
        await running.run(asyncio.Event())


@dataclass(slots=True)
class _Asked:
    """A request for a schedule that is stored in TASKS; `since` is its stored time (microseconds)."""

    name: str
    planned: Planned
    since: int
    sent: set[int] = field(default_factory=set)
    """The ticks whose tasks are stored."""

    def last(self) -> int | None:
        """Return the time of its last tick."""
        last, following = None, next_tick(self.planned.when, after=0, since=self.since, until=self.planned.until)
        while following is not None:
            last = following
            following = next_tick(self.planned.when, after=last, since=self.since, until=self.planned.until)
        return last


class Schedulings:
    """The schedules of one simulation: asks for those that are planned, and sees in TASKS what is sent."""

    def __init__(
        self, site: Site, tasks: AgentTasks, planned: Sequence[PlannedSchedule], *, may_leave_untold: bool
    ) -> None:
        self._site = site
        self._tasks = tasks
        self._planned = planned
        self._may_leave_untold = may_leave_untold
        self._names: dict[int, str] = {}
        """The names under which schedules were confirmed, by number."""
        self._tries: dict[int, int] = {}
        self._halted: set[int] = set()
        self._over: set[int] = set()
        """Those about which nothing is asked any more."""
        self._asked: dict[bytes, _Asked] = {}
        self._numbers: dict[tuple[bytes, int], int] = {}
        if planned:
            site.on_task.append(self._note_task)

    def begin(self, client: Client, group: asyncio.TaskGroup) -> None:
        """Ask for what has not been asked for, as a task of `group` for each schedule."""
        for planned in self._planned:
            if planned.number not in self._over:
                group.create_task(self._keep(client, planned), name=f"schedule {planned.number}")

    def unsent(self) -> Iterator[str]:
        """Yield the schedules whose last tick is not sent, of those that have to send it.

        Left out are those that were halted, and those whose ticks may be left out because of their predecessors: with `skip`,
        and where the end of a predecessor may not be told (`Plan.may_leave_untold`).
        """
        for planned in self._planned:
            name, waits = self._names.get(planned.number), planned.queue and not self._may_leave_untold
            if name is None or planned.number in self._halted or (planned.every and not waits):
                continue
            for asked in self._asked.values():
                if asked.name == name and (last := asked.last()) is not None and last not in asked.sent:
                    yield f"{name} at {last / SECOND - START:.3f} s"

    async def _keep(self, client: Client, planned: PlannedSchedule) -> None:
        site, number = self._site, planned.number
        await site.sleep_until(planned.at)
        while number not in self._names:
            if site.loop.now > planned.at + ASKED_WITHIN:
                self._over.add(number)
                return
            await self._ask(client, planned)
        if planned.halt_after is not None:
            await self._halt(client, planned, planned.halt_after)
        self._over.add(number)

    async def _ask(self, client: Client, planned: PlannedSchedule) -> None:
        """Ask for a schedule under a name that no earlier try had: such a try may still be stored."""
        number, schedules = planned.number, client.schedules
        self._tries[number] = tried = self._tries.get(number, 0) + 1
        name, action = f"schedule-{number}-{tried}", f"bank.{planned.verb}"
        overlap, work = "queue" if planned.queue else "skip", Work(number=number)
        if planned.every:
            asking: Awaitable[object] = schedules.add(
                name,
                action,
                work,
                every=planned.every,
                owner=CLERK,
                overlap=overlap,
                catchup=CATCHUP,
                until=_time(planned.at + TICKING),
                life=LIFE,
            )
        else:
            asking = schedules.submit(
                action, work, at=_time(planned.due), name=name, owner=CLERK, catchup=CATCHUP, life=LIFE
            )
        if await _told(asking):
            self._names[number] = name
        else:
            await asyncio.sleep(PAUSE)

    async def _halt(self, client: Client, planned: PlannedSchedule, after: float) -> None:
        """Remove a schedule, or pause and resume it."""
        name, schedules, resumed = self._names[planned.number], client.schedules, planned.resume_after
        halt = schedules.remove if resumed is None else schedules.pause
        await asyncio.sleep(after)
        self._halted.add(planned.number)
        await _until_told(lambda: halt(name, owner=CLERK))
        self._site.note(What.HALTED, text=name)
        if resumed is not None:
            await asyncio.sleep(resumed)
            self._site.note(What.RESUMED, text=name)
            await _until_told(lambda: schedules.resume(name, owner=CLERK))

    def _note_task(self, stored: Stored, header: Header) -> None:
        """Take in a task that was stored: a request for a schedule, or one that a schedule sent."""
        if header.to == _ASKED:
            request = parse_schedule(parse_envelope(stored.payload).body, header.typ)
            if request.planned is not None:
                self._asked[header.digest] = _Asked(request.name, request.planned, stored.time)
            return
        tick, grant = tick_of(header.ext), header.re
        if tick is None or grant is None:
            return
        number = self._numbers.setdefault((grant, tick), TICKS + len(self._numbers))
        asked, message = self._asked[grant], header.id.hex()
        asked.sent.add(tick)
        self._site.numbers[message] = number
        self._site.note(What.SENT, number, message, f"{asked.name} {tick / SECOND - START:.6f}", host=CLERK)
        self._tasks.note(stored, header, number, action=asked.planned.action)


def _time(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=START + seconds)


async def _until_told(ask: Callable[[], Awaitable[object]]) -> None:
    while True:
        if await _told(ask()):
            return
        await asyncio.sleep(PAUSE)


async def _told(asking: Awaitable[object]) -> bool:
    """Return whether a request was confirmed; one to remove what is not there is as good."""
    try:
        await asking
    except (SealbusError, TimeoutError) as error:
        return getattr(error, "code", None) == _UNKNOWN
    return True
