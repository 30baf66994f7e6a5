"""Assembles a worker: its executors and gates, and a table of the sources that they take from."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from sealbus.agents.runtime.endpoint import routes_of
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.process.in_flight import InFlightTable
from sealbus.agents.runtime.schedules import schedule_endpoint, scheduler_of
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.background import Background, BoundedTasks
from sealbus.bus.cells import EVERY_CELL
from sealbus.bus.gate.approval_authorizer import ApprovalAuthorizer
from sealbus.bus.gate.gate import Authorizes, Gate, Take
from sealbus.bus.gate.opener import CoreOrigin, Opener
from sealbus.bus.gate.resumption import Resumption
from sealbus.bus.ports import MOST_LISTENED, Delivery, Pull, Transport
from sealbus.bus.routing.routes import RouteTable, control_route
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.streams.declared import approval_durable, control_durable, own_durable, schedule_durable
from sealbus.bus.work.ack_floors import StoredFloors
from sealbus.bus.work.approvals.marker import Markers
from sealbus.bus.work.approvals.parked_cancels import ParkedCancels
from sealbus.bus.work.approvals.parked_tasks import ParkedTasks
from sealbus.bus.work.approvals.parking import A_MINUTE, Parking
from sealbus.bus.work.approvals.progress import ParkedProgress, ParkedStores
from sealbus.bus.work.cancel.endpoint import CancelEndpoint
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.executor.attempt_counts import FAILED, FailedAttempts
from sealbus.bus.work.executor.dead_letters import DeadLetters
from sealbus.bus.work.executor.executor import Executor, ExecutorLimits
from sealbus.bus.work.executor.poison import ATTEMPTS, PoisonGuard
from sealbus.bus.work.executor.settlement import Stores
from sealbus.bus.work.executor.told_detail import NO_DETAIL, development_detail
from sealbus.bus.work.idempotency.claim import INSTANCE_BYTES
from sealbus.bus.work.idempotency.claim_store import MARGIN, ClaimStore
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.places import Places
from sealbus.bus.work.schedules.standing import StandingGrants
from sealbus.bus.work.schedules.tick import CLAIMED_FOR
from sealbus.bus.work.status_writer import Statuses
from sealbus.bus.work.timely_arrays import TimelyArrays
from sealbus.bus.work.verb_room import VerbRoom
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import control_subject
from sealbus.envelopes.trust.caches import ReplayMemory

APPROVING: Final = 64
"""Approvals that one process counts and goes on with at a time, beside the handlers."""

CANCELLING: Final = 8
"""Cancels that one process takes in at a time, beside the handlers."""

CANCEL_ACK_WAIT: Final = 4.0
"""Seconds until a cancel is delivered again: shorter than a client waits for its confirmation."""

MAX_ACK_PENDING: Final = 131_072
"""Half of them can wait for a verb of another version: five minutes of 200 tasks a second. A server with 120,000 that wait
takes 60 MB more of memory, and delivers others as fast as without (nats-server 2.15.1; docs/durability.md)."""


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


class Handling(NamedTuple):
    """A gate, and the executor behind it."""

    gate: Gate
    executor: Executor


class Source(NamedTuple):
    """A consumer, or a subscription for calls, which has no `pull`; `key` stands for it where handlers have limits."""

    name: str
    pull: Pull | None
    key: Pull | str
    batches: AsyncGenerator[Sequence[Delivery], None]
    handling: Handling


class Assembly:
    """The parts of one worker for `agent` on `node`; `enter` starts its executors and gates.

    With `standing` its schedules are those of users. `in_flight` is its table of what it handles.
    """

    work: Handling
    """Calls, tasks and events of the agent's own handlers."""
    approvals: Handling
    control: Handling
    """Cancels and schedules."""
    resuming: BoundedTasks
    """Approvals that were taken, and the tasks that they take up."""

    def __init__(
        self,
        agent: Agent,
        node: Node,
        limits: WorkerLimits,
        *,
        standing: StandingGrants | None = None,
        in_flight: InFlightTable | None = None,
    ) -> None:
        self._agent = agent
        self._node = node
        self._limits = limits
        self._standing = standing
        site = self._site = node.site
        self.routes = RouteTable(
            routes_of(agent, sending=node.sending, names=site.names, own_subjects=site.own_subjects)
        )
        self.kept_stops = KeptStops(node.held, identity=site.identity, names=site.names, own_subjects=site.own_subjects)
        self.stops = Stops(
            site,
            kept=self.kept_stops,
            past=node.past,
            # A worker that spools its records works while there is no server, through which nothing could be canceled either.
            required=node.spool is None,
        )
        self.schedules = scheduler_of(node, claimed_for=limits.tick_claim, standing=standing)
        self.poison = PoisonGuard(counts=TimelyArrays(ATTEMPTS, site), in_flight=in_flight)
        self._floors = StoredFloors(site)
        self._listened: dict[str, list[str]] = {}
        """The subjects of events by cell in which some were listened to."""
        self.places = Places(limits.max_ack_pending, counters=site.counters, clock=site.elapsed)
        self.verb_room = VerbRoom(limits.max_ack_pending, counters=site.counters, clock=site.elapsed)
        self.profile = LiveProfile(
            own=site.own,
            names=site.names,
            kinds=frozenset({Kind.TASK, Kind.CALL, Kind.EVENT}),
            own_subjects=site.own_subjects,
            minters=node.deployment.minters,
            lifetimes=node.deployment.lifetimes,
        )

    async def enter(self, stack: AsyncExitStack) -> None:
        """Enter all parts, in an order in which each may use those before it until it is left."""
        site, node, token = self._site, self._node, self._site.token
        _, created = await site.transport.audit_stream()
        core = CoreOrigin(started=lambda: node.clocks.started, audit_created=created)
        # Entered first, so left last: no handler runs outside of the agent's lifespan.
        await stack.enter_async_context(self._agent.open_lifespan())
        # Until the last handler has ended: a handler that is drained can still be canceled.
        group = await stack.enter_async_context(Background())
        stack.callback(group.create_task(self.stops.run(), name="stops").cancel)
        self.resuming = BoundedTasks(group, APPROVING)

        parked = ParkedStores(
            tasks=ParkedTasks(node.held, identity=site.identity, names=site.names),
            markers=Markers(node.held, identity=site.identity, names=site.names, clock=site.bus_clock),
            statuses=Statuses(names=site.names, outbox=node.outbox, counters=site.counters),
        )
        cancels = ParkedCancels(parked, stops=self.kept_stops, own_subjects=site.own_subjects, clock=site.bus_clock)
        executor = await stack.enter_async_context(self._work_executor(parked, cancels))
        opener = self._opener(self.routes, core)
        gate = await stack.enter_async_context(self._gate(opener, node.authorizer, executor))
        self.work = Handling(gate, executor)

        # It gives no sign of life in `CANCEL_ACK_WAIT`: another replica takes a cancel in where this one hangs.
        limits = ExecutorLimits(concurrency=CANCELLING, ack_wait=math.inf)
        control = await stack.enter_async_context(self._executor(self._stores(), limits))
        cancelling = CancelEndpoint(site, stops=self.stops, end_parked=cancels.stop)
        routes = RouteTable(
            [
                control_route(cancelling, token, "cancel"),
                control_route(schedule_endpoint(node, self.schedules, self._standing), token, "schedule"),
            ]
        )
        control_gate = self._gate(self._opener(routes, core), node.authorizer, control)
        self.control = Handling(await stack.enter_async_context(control_gate), control)

        resumption = Resumption(
            site,
            progress=ParkedProgress(site, parked, node.held),
            opener=opener,
            gate=gate,
            audit=node.audit,
            background=self.resuming,
        )
        approvals = ApprovalAuthorizer(
            tasks=parked.tasks,
            engine=node.engine,
            cancels=cancels,
            under_way=resumption.under_way,
            clock=site.bus_clock,
        )
        approving = RouteTable([control_route(None, token, "approve", loads_resource=False)])
        approval_gate = self._gate(self._opener(approving, core), approvals, control, take=resumption.take)
        self.approvals = Handling(await stack.enter_async_context(approval_gate), control)
        # Before the executors are left, in whose queues its tasks wait for room.
        stack.callback(self.resuming.cancel)
        self._show(stack, executor)

    def _show(self, stack: AsyncExitStack, executor: Executor) -> None:
        counters = self._site.counters
        for route in self.routes.routes:
            counters.add("sealbus_handlers_given_up_total", 0, action=route.action)
        stack.callback(counters.gauge("sealbus_waiting_messages", executor.waiting))
        stack.callback(counters.gauge("sealbus_unsettled_messages", lambda: len(executor.unfinished())))

    def _work_executor(self, parked: ParkedStores, cancels: ParkedCancels) -> Executor:
        limits, node = self._limits, self._node
        parking = Parking(
            self._site,
            parked,
            stops=self.stops,
            cancels=cancels,
            audit=node.audit,
            places=self.places,
            a_minute=limits.parked_a_minute,
        )
        return self._executor(
            self._stores(self.poison),
            ExecutorLimits(concurrency=limits.concurrency, ack_wait=limits.ack_wait),
            parking,
        )

    def _stores(self, poison: PoisonGuard | None = None) -> Stores:
        site, node, limits = self._site, self._node, self._limits
        claims = ClaimStore(site, instance=secrets.token_bytes(INSTANCE_BYTES), margin=limits.claim_margin)
        return Stores(
            statuses=Statuses(names=site.names, outbox=node.outbox, counters=site.counters),
            effects=Effects(claims),
            stops=self.stops,
            dead_letters=DeadLetters(token=site.token, transport=site.transport, outbox=node.outbox),
            failed_attempts=FailedAttempts(TimelyArrays(FAILED, site)),
            places=self.places,
            verb_room=self.verb_room if limits.verbs_awaited else None,
            poison=poison,
        )

    def _executor(self, stores: Stores, limits: ExecutorLimits, parking: Parking | None = None) -> Executor:
        node = self._node
        detail = development_detail(self.routes.routes) if node.deployment.development else NO_DETAIL
        return Executor(
            self._site,
            stores,
            outbox=node.outbox,
            audit=node.audit,
            limits=limits,
            detail=detail,
            parking=parking,
        )

    def _opener(self, routes: RouteTable, core: CoreOrigin) -> Opener:
        return Opener(
            self._site,
            self.profile,
            routes=routes,
            core=core,
            replay=ReplayMemory(self._limits.replay_entries),
            restored=self._node.restored,
            past=self._node.past,
        )

    def _gate(self, opener: Opener, authorizer: Authorizes, executor: Executor, take: Take | None = None) -> Gate:
        node = self._node
        return Gate(
            self._site,
            opener=opener,
            authorizer=authorizer,
            audit=node.audit,
            refusals=node.refusals,
            executor=executor,
            places=self.places,
            take=take,
        )

    def consumers(self) -> list[Source]:
        """Return the sources of tasks, events, cancels, schedules and approvals, to be consumed once."""
        token = self._site.token
        own, *before = self._site.transport.cells_of(f"task.{token}.>").items()
        sources = self._sources_of(own[1])
        for cell, transport in before:
            # What was said to this agent before it was moved is there.
            sources += self._sources_of(transport, of=cell)
        if self.routes.subjects(Kind.EVENT):
            sources += self._event_sources(token)
        return sources

    def _sources_of(self, transport: Transport, *, of: str = "") -> list[Source]:
        """Return the sources of what is said to this agent in one cell; `of` names it if it is another than the own one."""
        token, limits, own = self._site.token, self._limits, self._site.own_subjects
        tasks = self.routes.subjects(Kind.TASK)
        sources: list[Source] = []
        if any(subject not in own for subject in tasks):
            sources.append(self._work_source(TASKS, token, (f"task.{token}.>",), transport, of=of))
        sources += [
            self._work_source(TASKS, own_durable(subject), (subject,), transport, of=of)
            for subject in tasks
            if subject in own
        ]
        # Another replica takes a cancel or a schedule soon where one hangs: taking it in twice changes nothing.
        for name, durable, topic in (
            ("control", control_durable(token), "cancel"),
            ("schedules", schedule_durable(token), "schedule"),
        ):
            pull = self._pull(
                TASKS,
                durable,
                (control_subject(token, topic),),
                transport,
                ack_wait=CANCEL_ACK_WAIT,
                max_ack_pending=limits.cancels,
            )
            sources.append(Source(_named(name, of), pull, pull, pull.batches(), self.control))
        if tasks:
            # The task that an approval takes up is handled as its delivery.
            pull = self._pull(TASKS, approval_durable(token), (control_subject(token, "approve"),), transport)
            sources.append(Source(_named("approvals", of), pull, pull, pull.batches(), self.approvals))
        return sources

    def listened(self) -> Mapping[str, Sequence[str]]:
        """Return the subjects of events that are listened to in each cell whose agents may emit them, or did in this process.

        An agent that is in another cell now has left events in its former one.
        """
        cells_of = self._site.transport.cells_of
        for subject in self.routes.subjects(Kind.EVENT):
            for cell in cells_of(subject):
                subjects = self._listened.setdefault(cell, [])
                if subject not in subjects:
                    subjects.append(subject)
        present = cells_of(EVERY_CELL)
        return {cell: tuple(subjects) for cell, subjects in self._listened.items() if cell in present}

    def _event_sources(self, token: str) -> list[Source]:
        """Return a source of events for each cell in which some are listened to."""
        listened, transports = self.listened(), self._site.transport.cells_of(EVERY_CELL)
        return [
            self._work_source(EVENTS, token, subjects, transports[cell], of=cell if len(listened) > 1 else "")
            for cell, subjects in listened.items()
        ]

    def _work_source(
        self, stream: str, consumer: str, subjects: Sequence[str], transport: Transport, *, of: str = ""
    ) -> Source:
        pull = self._pull(stream, consumer, subjects, transport)
        return Source(_named(stream, consumer, of), pull, pull, pull.batches(), self.work)

    def _pull(
        self,
        stream: str,
        consumer: str,
        subjects: Sequence[str],
        transport: Transport,
        *,
        ack_wait: float | None = None,
        max_ack_pending: int | None = None,
    ) -> Pull:
        limits = self._limits
        return transport.pull(
            stream,
            consumer,
            subjects,
            batch=limits.batch,
            ack_wait=ack_wait if ack_wait is not None else limits.ack_wait,
            max_ack_pending=max_ack_pending if max_ack_pending is not None else limits.max_ack_pending,
            floors=self._floors,
            # Whoever moves the consumer of events must know what other versions listen to.
            one_replica=not self._node.deployment.replicated_consumers and len(subjects) <= MOST_LISTENED,
        )


def _named(*parts: str) -> str:
    """Return the name of a source."""
    return "-".join(filter(None, parts))
