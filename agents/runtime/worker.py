"""`Worker`: runs one agent's handlers behind the gate, until it is told to stop, then drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import secrets
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

from sealbus.agents.runtime.draining import describe_unfinished, say_while_draining
from sealbus.agents.runtime.endpoint import routes_of
from sealbus.agents.runtime.health import Readiness
from sealbus.agents.runtime.in_flight import InFlightTable
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.schedules import schedule_endpoint, scheduler_of
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.background import Background, BoundedTasks
from sealbus.bus.gate.approval_authorizer import ApprovalAuthorizer
from sealbus.bus.gate.gate import Authorizes, CoreOrigin, Gate, Handling, Turn
from sealbus.bus.gate.resumption import ApprovalEndpoint, Resumption
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routing.routes import RouteTable, control_route
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.streams.declared import approval_durable, control_durable, own_durable, schedule_durable
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.approvals.marker import Markers
from sealbus.bus.work.approvals.parked_cancels import ParkedCancels
from sealbus.bus.work.approvals.parked_tasks import ParkedTasks
from sealbus.bus.work.approvals.parking import A_MINUTE, Parking
from sealbus.bus.work.cancel.endpoint import CancelEndpoint
from sealbus.bus.work.cancel.in_force import Stops, StopVerifier
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.executor.attempt_counts import FAILED, FailedAttempts, StoredCounts
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.executor import Executor
from sealbus.bus.work.executor.poison import ATTEMPTS, PoisonGuard
from sealbus.bus.work.executor.told_detail import as_note, tell_nothing, tell_text, verbs_served
from sealbus.bus.work.idempotency.claim import INSTANCE_BYTES
from sealbus.bus.work.idempotency.claim_store import MARGIN, ClaimStore
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.places import Places
from sealbus.bus.work.schedules.standing import StandingGrants
from sealbus.bus.work.schedules.tick import CLAIMED_FOR
from sealbus.bus.work.status_writer import Statuses
from sealbus.bus.work.verb_room import VerbRoom
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.trust.caches import ReplayMemory

__all__ = ["Worker", "WorkerLimits", "settle_collector"]

_log = logging.getLogger(__name__)

APPROVING: Final = 64
"""Approvals that one process counts and goes on with at a time, beside the handlers."""

CANCELLING: Final = 8
"""Cancels that one process takes in at a time, beside the handlers."""

CANCEL_ACK_WAIT: Final = 4.0
"""Seconds until a cancel is delivered again: less than whoever cancels waits for its confirmation."""

MAX_ACK_PENDING: Final = 131_072
"""Half of them can wait for a verb of another version: five minutes of 200 tasks a second. A server with 120,000 that wait
takes 60 MB more of memory, and delivers others as fast as without (nats-server 2.15.1; docs/durability.md)."""

YOUNG: Final = 20_000
"""New containers between collections of the young ones: a batch of messages makes a few thousand, all short-lived."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """Bounds and waits of a worker."""

    concurrency: int = 64
    """Handlers that run at a time; 1 keeps tasks in strict order."""
    batch: int = 256
    """Deliveries opened, decided and recorded together."""
    ack_wait: float = 30.0
    """Seconds until the broker redelivers a message without a sign of life."""
    max_ack_pending: int = MAX_ACK_PENDING
    """Deliveries of one consumer, over all replicas, being handled or deferred, at least (`bus.nats.durable_consumer`)."""
    pending_calls: int = 4_096
    """Core calls that wait to be opened; further ones are dropped and counted."""
    replay_entries: int = 100_000
    """Core calls remembered until they expire (step 6); full memory refuses further ones."""
    cancels: int = 256
    """Cancels that are taken in at a time, over all replicas: a few of them, each a few round trips, run at once."""
    parked_a_minute: int = A_MINUTE
    """Tasks of one user, or of one requester without a user, that wait for an approval from then on; others are denied."""
    claim_margin: float = MARGIN
    """Seconds beyond a handler's `timeout` after which another process may take over its claim (`once`)."""
    tick_claim: float = CLAIMED_FOR
    """Seconds for which a process has a tick of a schedule to itself."""
    verbs_awaited: bool = True
    """Whether a task whose verb has no handler here waits for a replica that has one, or fails."""
    drain: float = 20.0
    """Seconds that handlers have to finish after a stop."""


class _Handling(NamedTuple):
    """A gate, and the executor behind it."""

    gate: Gate
    executor: Executor


class Worker:
    """One agent on one node. `async with Worker(agent, node) as worker: await worker.run(stop)`.

    With `standing` its schedules are those of users (`sealbus.bus.work.schedules.standing`). `in_flight` is its table of
    what it handles, with what the process before it was handling.
    """

    def __init__(
        self,
        agent: Agent,
        node: Node,
        limits: WorkerLimits | None = None,
        *,
        standing: StandingGrants | None = None,
        in_flight: InFlightTable | None = None,
    ) -> None:
        own = node.deployment.names.id_of(agent.name)
        if own != node.own:
            raise ConfigurationError(
                f"agent {agent.name} is {own}, but this workload's identity is {node.own}: check the registration entry "
                "or the [agents] table"
            )
        self.agent = agent
        self.node = node
        self.limits = limits or WorkerLimits()
        self.routes = RouteTable(
            routes_of(
                agent,
                sending=node.sending,
                names=node.deployment.names,
                own_subjects=node.deployment.own_subjects,
            )
        )
        self.ready = asyncio.Event()
        """Set once no call can be missed: the broker has seen every subscription."""
        self._apart = asyncio.Event()
        """Set once our clock and the broker's no longer agree: no source is taken from any more."""
        self._readiness = Readiness(node)
        names, own_subjects = node.deployment.names, node.deployment.own_subjects
        self._verifier = StopVerifier(names=names, trust=node.trust, caches=node.caches, past=node.past)
        self._kept = KeptStops(node.held, identity=node.identity, names=names, own_subjects=own_subjects)
        self._stops = Stops(
            own=node.own,
            transport=node.transport,
            verifier=self._verifier,
            kept=self._kept,
            own_subjects=own_subjects,
            counters=node.counters,
            # Who spools records wants to work while there is no server, which nobody can cancel anything through either.
            required=node.spool is None,
            clock=node.clocks.now,
        )
        self._standing = standing
        self.schedules = scheduler_of(node, claimed_for=self.limits.tick_claim, standing=standing)
        """The schedules of this agent, as this process runs them."""
        self._in_flight = in_flight
        self._poison = PoisonGuard(counts=self._counts(ATTEMPTS), in_flight=in_flight)
        self._places = Places(self.limits.max_ack_pending, counters=node.counters)
        self._verb_room = VerbRoom(self.limits.max_ack_pending, counters=node.counters)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        node, limits = self.node, self.limits
        _, created = await node.transport.audit_stream()
        async with AsyncExitStack() as stack:
            # Entered first, so left last: no handler runs outside of the agent's lifespan.
            await stack.enter_async_context(self.agent.open_lifespan())
            # Until the last handler has ended: what is drained can still be canceled.
            group = await stack.enter_async_context(Background())
            stack.callback(group.create_task(self._stops.run(), name="stops").cancel)
            core = CoreOrigin(started=node.started, audit_created=created)
            names, own_subjects = node.deployment.names, node.deployment.own_subjects
            tasks = ParkedTasks(node.held, identity=node.identity, names=names)
            markers = Markers(node.held, identity=node.identity, names=names, clock=node.clocks.now)
            statuses = Statuses(names=names, outbox=node.outbox, counters=node.counters)
            cancels = ParkedCancels(
                tasks=tasks,
                markers=markers,
                stops=self._kept,
                statuses=statuses,
                own_subjects=own_subjects,
                clock=node.clocks.now,
            )
            parking = Parking(
                tasks=tasks,
                markers=markers,
                statuses=statuses,
                audit=node.audit,
                stops=self._stops,
                cancels=cancels,
                places=self._places,
                counters=node.counters,
                random=node.random,
                a_minute=limits.parked_a_minute,
                clock=node.clock,
            )
            executor = await self._executor(stack, limits.concurrency, parking, self._poison, ack_wait=limits.ack_wait)
            self._work = _Handling(await self._gate(stack, self.routes, core, node.authorizer, executor), executor)
            self._resuming = BoundedTasks(group, APPROVING)
            resumption = Resumption(
                tasks=tasks,
                markers=markers,
                held=node.held,
                past=node.past,
                identity=node.identity,
                profile=self._profile(),
                authorizer=node.authorizer,
                audit=node.audit,
                executor=executor,
                routes=self.routes,
                trust=node.trust,
                caches=node.caches,
                counters=node.counters,
                background=self._resuming,
                random=node.random,
                clock=node.clock,
                tracer=node.tracer,
            )
            approvals = ApprovalAuthorizer(tasks=tasks, engine=node.engine, cancels=cancels, clock=node.clocks.now)
            approving = RouteTable([control_route(ApprovalEndpoint(), node.token, "approve", loads_resource=False)])
            self._approvals = _Handling(await self._gate(stack, approving, core, approvals, resumption), executor)
            # Before the executor is left, which what waits for room there would wait for.
            stack.callback(self._resuming.cancel)
            endpoint = CancelEndpoint(
                keyed=KeyValue(node.transport),
                stops=self._stops,
                parked=cancels.stop,
                identity=node.identity,
                verifier=self._verifier,
                clock=node.clocks.now,
            )
            schedules = schedule_endpoint(node, self.schedules, self._standing)
            told = RouteTable(
                [control_route(endpoint, node.token, "cancel"), control_route(schedules, node.token, "schedule")]
            )
            work = self._work.executor
            for route in self.routes.routes:
                node.counters.add("sealbus_handlers_given_up_total", 0, action=route.action)
            stack.callback(node.counters.gauge("sealbus_waiting_messages", work.waiting))
            stack.callback(node.counters.gauge("sealbus_unsettled_messages", lambda: len(work.unfinished())))
            # It gives no sign of life in `CANCEL_ACK_WAIT`: another replica takes a cancel in where this one hangs.
            executor = await self._executor(stack, CANCELLING, ack_wait=math.inf)
            self._control = _Handling(await self._gate(stack, told, core, node.authorizer, executor), executor)
            self._stack = stack.pop_all()
        return self

    async def _executor(
        self,
        stack: AsyncExitStack,
        concurrency: int,
        parking: Parking | None = None,
        poison: PoisonGuard | None = None,
        *,
        ack_wait: float,
    ) -> Executor:
        """Enter an executor; cancels have their own, so that no task is before them."""
        node, limits = self.node, self.limits
        return await stack.enter_async_context(
            Executor(
                outbox=node.outbox,
                audit=node.audit,
                dead=DeadLetters(token=node.token, transport=node.transport, outbox=node.outbox),
                statuses=Statuses(names=node.deployment.names, outbox=node.outbox, counters=node.counters),
                effects=Effects(self._claims()),
                stops=self._stops,
                counters=node.counters,
                places=self._places,
                failed=FailedAttempts(self._counts(FAILED)),
                verb_room=self._verb_room if limits.verbs_awaited else None,
                random=node.random,
                parking=parking,
                poison=poison,
                concurrency=concurrency,
                ack_wait=ack_wait,
                tell=tell_text if node.deployment.development else tell_nothing,
                verbs=as_note(verbs_served(self.routes.routes)) if node.deployment.development else "",
                clock=node.clock,
            )
        )

    def _profile(self) -> LiveProfile:
        node = self.node
        return LiveProfile(
            own=node.own,
            names=node.deployment.names,
            kinds=frozenset({Kind.TASK, Kind.CALL, Kind.EVENT}),
            own_subjects=node.deployment.own_subjects,
            minters=node.deployment.minters,
            lifetimes=node.deployment.lifetimes,
        )

    async def _gate(
        self,
        stack: AsyncExitStack,
        routes: RouteTable,
        core: CoreOrigin,
        authorizer: Authorizes,
        executor: Handling,
    ) -> Gate:
        """Enter a gate for `routes`."""
        node = self.node
        return await stack.enter_async_context(
            Gate(
                profile=self._profile(),
                routes=routes,
                trust=node.trust,
                authorizer=authorizer,
                audit=node.audit,
                refusals=node.refusals,
                executor=executor,
                places=self._places,
                counters=node.counters,
                core=core,
                caches=node.caches,
                replay=ReplayMemory(self.limits.replay_entries),
                random=node.random,
                restored=node.restored,
                clock=node.clock,
                tracer=node.tracer,
            )
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def run(self, stop: asyncio.Event) -> bool:
        """Consume until `stop` is set, then take nothing more and finish what was taken; return whether all of it was."""
        async with asyncio.TaskGroup() as group:
            running = [
                group.create_task(self._take(), name="taking"),
                group.create_task(self._readiness.run(), name="readiness"),
                group.create_task(self.schedules.run(), name="schedules"),
            ]
            await stop.wait()
            for one in running:
                one.cancel()
        # Who told us to stop may end us before all is done, which is no message's fault.
        await self._poison.forgive()
        drained, within = False, self.limits.drain
        unfinished = self._work.executor.unfinished
        async with say_while_draining(self.agent.name, unfinished, within=within, clock=self.node.clock):
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    for part in (self._work, self._approvals, self._control):
                        await part.gate.settle()
                    await self._resuming.idle()
                    drained = await self._work.executor.drain(within)
                    drained = await self._control.executor.drain(within) and drained
                    await self._resuming.idle()
        if not drained:
            left = describe_unfinished(unfinished(), self.node.clock())
            _log.warning("%s stopped with work unfinished; tasks and events are redelivered: %s", self.agent.name, left)
        return drained

    async def _take(self) -> None:
        """Take from all sources while our clock and the broker's agree: what is not taken goes to another replica."""
        while True:
            await self.node.clocks.agree()
            if self._in_flight is not None:
                await self._poison.suspect(self._in_flight.left)
                self._in_flight = None
            # What was canceled is known before anything is taken.
            await self._stops.current.wait()
            self._apart.clear()
            async with asyncio.TaskGroup() as group:
                sources = [
                    group.create_task(self._consume(pull, self._work), name=f"source-{name}")
                    for name, pull in self._pulls()
                ]
                told = [("control", self._told(), self._control), ("schedules", self._asked(), self._control)]
                if self.routes.subjects(Kind.TASK):
                    told.append(("approvals", self._approved(), self._approvals))
                sources += [
                    group.create_task(self._consume(pull, handling), name=f"source-{name}")
                    for name, pull, handling in told
                ]
                served = {subject: asyncio.Event() for subject in self._served()}
                for subject, live in served.items():
                    sources.append(group.create_task(self._serve(subject, live), name=f"source-{subject}"))
                sources.append(group.create_task(self._announce(served.values()), name="source-ready"))
                sources.append(group.create_task(self._watch_clocks(), name="source-clocks"))
                await self._apart.wait()
                for source in sources:
                    source.cancel()
            self.ready.clear()

    async def _watch_clocks(self) -> None:
        await self.node.clocks.disagree()
        self._apart.set()

    def not_ready(self) -> dict[str, str]:
        """Return why no work can be taken now, by part; empty if it can."""
        sources = {} if self.ready.is_set() else {"sources": "not consuming"}
        if self.node.connected() and not self._stops.current.is_set():
            sources |= {"state": "what was canceled is not known"}
        return sources | self._readiness.reasons()

    def notes(self) -> dict[str, str]:
        """Return what an operator should look at although work is taken, by part."""
        return self._readiness.notes() | self._places.notes() | self._verb_room.notes() | self._work.executor.notes()

    async def settle(self) -> None:
        """Wait until everything taken so far is handled, without stopping."""
        for part in (self._control, self._work):
            await part.gate.settle()
            await part.executor.drain(self.limits.drain)
        await self._approvals.gate.settle()
        await self._resuming.idle()
        await self._work.executor.drain(self.limits.drain)
        await self._resuming.idle()

    def _pulls(self) -> list[tuple[str, Pull]]:
        token, limits, own = self.node.token, self.limits, self.node.deployment.own_subjects
        wanted: list[tuple[str, str, tuple[str, ...]]] = []
        tasks = self.routes.subjects(Kind.TASK)
        if any(subject not in own for subject in tasks):
            wanted.append((TASKS, token, (f"task.{token}.>",)))
        wanted += [(TASKS, own_durable(subject), (subject,)) for subject in tasks if subject in own]
        events = self.routes.subjects(Kind.EVENT)
        if events:
            wanted.append((EVENTS, token, events))
        return [
            (
                f"{stream}-{consumer}",
                self.node.transport.pull(
                    stream,
                    consumer,
                    subjects,
                    batch=limits.batch,
                    ack_wait=limits.ack_wait,
                    max_ack_pending=limits.max_ack_pending,
                ),
            )
            for stream, consumer, subjects in wanted
        ]

    def _served(self) -> list[str]:
        """Return the subjects to subscribe to for calls: one per verb, so that NATS routes calls to agents that have it."""
        return list(self.routes.subjects(Kind.CALL))

    def _claims(self) -> ClaimStore:
        node = self.node
        return ClaimStore(
            keyed=KeyValue(node.transport),
            token=node.token,
            identity=node.identity,
            trust=node.trust,
            caches=node.caches,
            counters=node.counters,
            instance=secrets.token_bytes(INSTANCE_BYTES),
            margin=self.limits.claim_margin,
            clock=node.clock,
        )

    def _counts(self, name: str) -> StoredCounts:
        node = self.node
        return StoredCounts(
            name,
            keyed=KeyValue(node.transport),
            token=node.token,
            identity=node.identity,
            trust=node.trust,
            caches=node.caches,
            clock=node.clock,
        )

    def _told(self) -> Pull:
        """Return the consumer of what this agent is told about work."""
        token, limits = self.node.token, self.limits
        return self.node.transport.pull(
            TASKS,
            control_durable(token),
            (control_subject(token, "cancel"),),
            batch=limits.batch,
            # Another replica takes it soon where one hangs: taking a cancel in twice changes nothing.
            ack_wait=CANCEL_ACK_WAIT,
            max_ack_pending=limits.cancels,
        )

    def _asked(self) -> Pull:
        """Return the consumer of what is asked for by schedules."""
        token, limits = self.node.token, self.limits
        return self.node.transport.pull(
            TASKS,
            schedule_durable(token),
            (control_subject(token, "schedule"),),
            batch=limits.batch,
            # Another replica takes it soon where one hangs: taking it in twice changes nothing.
            ack_wait=CANCEL_ACK_WAIT,
            max_ack_pending=limits.cancels,
        )

    def _approved(self) -> Pull:
        """Return the consumer of approvals: what they approve is handled as their delivery."""
        token, limits = self.node.token, self.limits
        return self.node.transport.pull(
            TASKS,
            approval_durable(token),
            (control_subject(token, "approve"),),
            batch=limits.batch,
            ack_wait=limits.ack_wait,
            max_ack_pending=limits.max_ack_pending,
        )

    async def _consume(self, pull: Pull, handling: _Handling) -> None:
        await self._admit(pull.batches(), pull, pull, handling)

    async def _serve(self, subject: str, live: asyncio.Event) -> None:
        pending = self.limits.pending_calls
        calls = self.node.transport.listen(subject, queue=self.node.token, pending=pending, live=live)
        await self._admit(calls, None, subject, self._work)

    async def _announce(self, served: Iterable[asyncio.Event]) -> None:
        """Report readiness once no call can be missed; tasks and events wait in their streams."""
        for live in served:
            await live.wait()
        self.ready.set()

    async def _admit(
        self,
        batches: AsyncGenerator[Sequence[Delivery], None],
        pull: Pull | None,
        source: Pull | str,
        handling: _Handling,
    ) -> None:
        turn = Turn()
        async with aclosing(batches) as taken:
            async for batch in taken:
                if (problem := await self.node.clocks.settle()) is not None:
                    handling.gate.turn_away(batch, pull, problem)
                    self._apart.set()
                    return
                await handling.gate.admit(batch, pull, turn)
                await handling.executor.room(source)
                if pull is not None:
                    # Wait for room first: messages delivered before would be redelivered meanwhile, and handled twice.
                    await self._places.room()


def settle_collector() -> None:
    """Freeze what start-up made, and collect the young less often than Python's default (every 700).

    Modules, compiled policies and models live as long as the process; collecting them again and again took a tenth of the
    gate's time. Every fourth time those before are looked at, too: at more of them, as a large policy makes them, this would
    take long. Call once, in a process of ours, when it is ready; never in that of a library's user.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 4, 250)
