"""Processes of one identity that run its schedules: as many as a test wants, on one broker in memory and one clock.

Each reaches the broker through operations that can be interleaved as a test says, and dies before or after one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

from support.envelopes import NOW
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.sdk.messages import Origin, task_message
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Delivery, Outgoing, PubAck, StoredValue
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, OutboxLimits
from sealbus.bus.streams.held import Held
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.schedules.book import Schedule, ScheduleBook, ScheduleChange
from sealbus.bus.work.schedules.request import Planned, ScheduleRequest, ScheduleState, encode_schedule
from sealbus.bus.work.schedules.rule import Every, When
from sealbus.bus.work.schedules.scheduler import Scheduler, TickTasks
from sealbus.bus.work.schedules.tick import TickClaims
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

__all__ = ["Dies", "Host", "Process", "TickSite"]

DOMAIN = TrustDomain("example.org")
Res = TypeVar("Res")


class Dies(NamedTuple):
    """The operation at which a process dies, counted from 1 or by how it begins, and whether the broker did it."""

    at: int | str
    done: bool

    def is_at(self, operations: Sequence[str]) -> bool:
        """Return whether it is the last of these."""
        return operations[-1].startswith(self.at) if isinstance(self.at, str) else len(operations) == self.at


class _Clerk(Names):
    """Names of which each has the token of the clerk."""

    def token(self, spiffe_id: SpiffeId) -> str:
        """Return the token of the clerk."""
        del spiffe_id
        return "clerk"


class Host(MemoryTransport):
    """One process's way to the broker. `pauses` are the turns of the loop that others have before each operation."""

    def __init__(self, broker: MemoryBroker, *, pauses: Iterator[int] | None = None, dies: Dies | None = None) -> None:
        super().__init__(broker)
        self._pauses = pauses or repeat(0)
        self.dies = dies
        self.operations: list[str] = []
        self.dead = asyncio.Event()

    async def _operation(self, what: str, do: Callable[[], Awaitable[Res]]) -> Res:
        if self.dead.is_set():
            await asyncio.Event().wait()
        self.operations.append(what)
        dies = self.dies if self.dies is not None and self.dies.is_at(self.operations) else None
        for _ in range(next(self._pauses, 0)):
            await asyncio.sleep(0)
        if dies is None:
            return await do()
        if dies.done:
            await do()
        self.dead.set()
        await asyncio.Event().wait()
        raise AssertionError("it is dead")

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        publish = super().publish
        return await self._operation(messages[0].subject, lambda: publish(messages, deadline=deadline))

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        last = super().last
        return await self._operation(f"last {subject}", lambda: last(stream, subject, within=within))

    async def read(self, stream: str, subjects: Sequence[str], **how: Any) -> AsyncGenerator[Sequence[Delivery], None]:
        async def nothing() -> None:
            return None

        await self._operation(f"read {subjects[0]}", nothing)
        async with aclosing(super().read(stream, subjects, **how)) as batches:
            async for batch in batches:
                yield batch


@dataclass
class Process:
    """One process of the owner, running."""

    host: Host
    scheduler: Scheduler
    claims: TickClaims
    book: ScheduleBook
    counters: Counters
    run: Callable[[], Awaitable[None]]
    running: asyncio.Task[None] | None = None

    async def settle(self) -> None:
        """Wait until it has done what is due, or is dead: then it does nothing more."""
        dead = asyncio.create_task(self.host.dead.wait())
        settled = asyncio.create_task(self.scheduler.settle())
        try:
            await asyncio.wait((dead, settled), return_when=asyncio.FIRST_COMPLETED)
            if not self.host.dead.is_set():
                await settled
        finally:
            for one in (dead, settled):
                one.cancel()
        if self.host.dead.is_set():
            await self.kill()

    async def kill(self) -> None:
        """End it where it is."""
        self.host.dead.set()
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running

    def ticks(self, outcome: str) -> int:
        """Return how many ticks it counted with this outcome."""
        return self.counters.value("sealbus_ticks_total", outcome=outcome)


@dataclass
class TickSite:
    """One identity, `clerk`, its processes, and who asks it for schedules. `revoked` are revocations by time."""

    now: int = NOW
    revoked: dict[SpiffeId, int] = field(default_factory=dict)
    ended: bool = True
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = Names(DOMAIN)
        self.own = self.names.id_of("clerk")
        self.authority = DevelopmentAuthority(DOMAIN, clock=lambda: self.now)
        self.broker = MemoryBroker(lambda: self.now)
        for name, subject in (("TASKS", "task.>"), ("STATE", "state.>"), ("HELD", "held.>")):
            self.broker.add_stream(name, [subject])
        self.waits = asyncio.Event()
        """Set to let wait those who wait for a task's end go on."""
        self.operator = self.process(Host(self.broker))

    def trust(self, identity: MemoryIdentity) -> Trust:
        return Trust(bundles=identity.bundles(), revoked_before=self.revoked)

    def process(self, host: Host, *, who: str = "clerk", claimed_for: float = 45.0) -> Process:
        identity, caches, counters = MemoryIdentity(self.authority, self.names.id_of(who)), Caches(), Counters()
        trust = Trust(bundles=identity.bundles())

        def current() -> Trust:
            return trust if not self.revoked else self.trust(identity)

        def compose(planned: Planned, _: object) -> OutgoingMessage:
            return task_message(planned.action, planned.body, names=self.names, origin=Origin())

        async def has_ended(task: PendingRequest, wait: bool) -> bool:
            if wait:
                await self.waits.wait()
            return self.ended

        async def agrees() -> None:
            return None

        site = replace(
            site_of(host, lambda: self.now, identity=identity, trust=current, counters=counters),
            # Others write at the place of the clerk, too.
            names=_Clerk(DOMAIN),
            caches=caches,
        )
        claims = TickClaims(site, claimed_for=claimed_for)
        held = Held(host, trust=current, names=self.names, caches=caches, clock=BusClock(lambda: self.now))
        book = ScheduleBook(held, identity=identity, token="clerk")
        outbox = Outbox(
            identity=identity,
            transport=host,
            clock=BusClock(lambda: self.now),
            limits=OutboxLimits(ack_wait=0.05, pause=0.0),
        )
        scheduler = Scheduler(
            site,
            book,
            claims,
            TickTasks(compose, has_ended),
            outbox=outbox,
            settle=agrees,
            renewed_after=6 * 3_600 * SECOND,
        )

        async def run() -> None:
            async with outbox:
                await scheduler.run()

        return Process(host, scheduler, claims, book, counters, run)

    def start(self, host: Host | None = None, *, claimed_for: float = 45.0) -> Process:
        """Start a process of the owner."""
        process = self.process(host or Host(self.broker), claimed_for=claimed_for)
        process.running = asyncio.ensure_future(process.run())
        self.processes.append(process)
        return process

    async def pass_time(self, seconds: int, *, step: int = 5) -> None:
        """Let time pass, in steps, after each of which all processes have done what is due."""
        await self.settle()
        for _ in range(seconds // step):
            self.now += step * SECOND
            await self.settle()

    async def settle(self) -> None:
        # At the same time, so that what they do is interleaved.
        await asyncio.gather(*(one.settle() for one in self.processes if not one.host.dead.is_set()))

    async def stop(self) -> None:
        for process in self.processes:
            await process.kill()

    def schedule(self, name: str = "nightly", when: When | None = None, **changes: Any) -> Schedule:
        """Return a schedule that was asked for just now."""
        planned = Planned(
            action="inventory.count",
            body=Content(b"{}", "application/json"),
            when=when or Every(seconds=10, start=self.now // SECOND * SECOND + 10 * SECOND),
            until=self.now + 86_400 * SECOND,
            **changes,
        )
        change = ScheduleChange(sha256(name.encode()).digest(), self.names.id_of("boss"), self.now)
        return Schedule(
            name=name,
            state=ScheduleState.ON,
            planned=planned,
            body=encode_schedule(ScheduleRequest(name=name, planned=planned)),
            grant=change,
            change=change,
            order=(self.now, len(self.broker.streams["HELD"].stored) + 1),
            since=self.now,
        )

    async def add(self, name: str = "nightly", when: When | None = None, **changes: Any) -> Schedule:
        """Keep a schedule as the owner's endpoint does."""
        schedule = self.schedule(name, when, **changes)
        assert await self.operator.book.store(schedule, await self.operator.book.one(name))
        return schedule

    async def change(self, name: str, state: ScheduleState) -> None:
        """Keep another state of a schedule."""
        known = await self.operator.book.one(name)
        assert known is not None
        order = (self.now, known.order[1] + 1)
        since = self.now if state is ScheduleState.ON else known.since
        assert await self.operator.book.store(replace(known, state=state, order=order, since=since), known)

    def sent(self) -> list[Header]:
        """Return the headers of what was sent, in order."""
        return [parse_header(parse_envelope(one.payload).header) for one in self.broker.streams["TASKS"].stored]

    def ticks(self) -> list[int]:
        """Return the ticks whose tasks were sent, in seconds from the first moment of the test."""
        return [(int((one.ext or {})["_tick"]) - NOW) // SECOND for one in self.sent()]
