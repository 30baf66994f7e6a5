"""`Node`: the connection of one identity to the bus, common to workers and clients."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Self

from sealbus.agents.runtime.tracing import find_tracer
from sealbus.agents.sdk.sender import Sender
from sealbus.bus.audit.redaction import DECISIONS_ALONE, Recording
from sealbus.bus.audit.spool import Spool, SpoolOptions
from sealbus.bus.audit.writer import AuditLimits, AuditWriter
from sealbus.bus.background import Background
from sealbus.bus.clocks import ELAPSED, HOST_CLOCK, BusClock, HostClock
from sealbus.bus.gate.authorizer import Authorizer
from sealbus.bus.gate.calls import Requests
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.gate.reply_policy import ReplyPolicy
from sealbus.bus.gate.status_reader import StatusReader
from sealbus.bus.loop_turns import LoopTurns
from sealbus.bus.nats.clock_difference import ClockDifference
from sealbus.bus.ports import Identity, Transport
from sealbus.bus.sending.outbox import Outbox
from sealbus.bus.site import Site
from sealbus.bus.streams.held import Held, PastTrust, current_only
from sealbus.bus.streams.key_book import KeyBook, RestoredStreams, nothing_restored
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.lifetimes import DEFAULT_LIFETIMES, Lifetimes
from sealbus.envelopes.message.subjects import OwnSubjects, audit_subject, refused_subject
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.revoking import RevokingEngine

_NONE: Mapping[SpiffeId, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The settings that all nodes of a deployment share: names, own subjects, user contexts and chains, and its notaries.

    In one for `development` requesters are told the texts behind errors (`told_detail`).
    """

    names: Names
    minters: frozenset[SpiffeId] = frozenset()
    notaries: frozenset[SpiffeId] = frozenset()
    lifetimes: Lifetimes = DEFAULT_LIFETIMES
    own_subjects: OwnSubjects = field(default_factory=lambda: MappingProxyType({}))
    development: bool = False
    replicated_consumers: bool = False
    """Whether the durable consumers of tasks have as many replicas as their stream, or one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """How a node writes its records: bounds, what is recorded with a decision, and where records are spooled, if anywhere."""

    limits: AuditLimits = field(default_factory=AuditLimits)
    recording: Recording = DECISIONS_ALONE
    spool: SpoolOptions | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeds:
    """Answers of other parts of the process. A node calls each when it needs the answer."""

    connected: Callable[[], bool] = lambda: True
    """Whether the transport has a broker now; a broker in memory is always there."""
    refused: Callable[[], bool] = lambda: False
    """Whether the broker does not let this workload in."""
    revoked_before: Callable[[], Mapping[SpiffeId, int]] = lambda: _NONE
    """The operator's revocations by time (microseconds), for each identity that seals messages."""
    revocations: Callable[[], Revocations] = lambda: NONE_REVOKED
    """The users, clients and sessions that are denied whatever the policy says."""
    policy_problem: Callable[[], str] = str
    """Why the newest policy is not in force or not looked for; empty if all is well."""
    served: Callable[[], str] = str
    """The verbs that there are, told in development to a caller of an unknown verb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The host's clock, the seconds that pass whatever that is set to, and random numbers in [0, 1)."""

    clock: HostClock = HOST_CLOCK
    elapsed: Callable[[], float] = ELAPSED
    random: Callable[[], float] = random.random
    turns: LoopTurns | None = None
    """What the agents of one process share of these; `None` for an agent alone."""


class Node:
    """Outbox, audit writer, refusals and requests of one identity; enter with `async with`.

    Identity, transport and engine are already entered and outlive the node.
    """

    def __init__(
        self,
        *,
        deployment: Deployment,
        identity: Identity,
        transport: Transport,
        engine: PolicyEngine,
        counters: Counters | None = None,
        audit: AuditOptions = AuditOptions(),
        feeds: Feeds = Feeds(),
        host: Host = Host(),
    ) -> None:
        self.deployment = deployment
        self.identity = identity
        self.transport = transport
        self.engine = RevokingEngine(engine, feeds.revocations)
        self.revocations = feeds.revocations
        self.connected = feeds.connected
        self.refused = feeds.refused
        self.policy_problem = feeds.policy_problem
        self._revoked_before = feeds.revoked_before
        self._revoked = feeds.revoked_before()
        self._trust = Trust(bundles=identity.bundles(), revoked_before=self._revoked)
        self.counters = counters or Counters()
        self.clock = clock = host.clock
        self.caches = Caches()
        self.own = identity.spiffe_id
        self.token = deployment.names.token(self.own)
        self.clocks = ClockDifference(self._broker_time, clock=clock, elapsed=host.elapsed)
        self.tracer = find_tracer()
        """The maker of spans; `None` if the process exports none."""
        self.site = Site(
            identity=identity,
            names=deployment.names,
            own_subjects=deployment.own_subjects,
            trust=self.trust,
            caches=self.caches,
            bus_clock=BusClock(self.clocks.now),
            counters=self.counters,
            transport=transport,
            random=host.random,
            elapsed=host.elapsed,
            tracer=self.tracer,
            turns=host.turns or LoopTurns(),
        )
        """The values that all parts of this process share."""
        self.outbox = Outbox(identity=identity, transport=transport, clock=self.site.bus_clock, tracer=self.tracer)
        self.spool = (
            Spool(audit.spool, subject=audit_subject(self.token), outbox=self.outbox, counters=self.counters)
            if audit.spool is not None
            else None
        )
        self.audit = AuditWriter(
            subject=audit_subject(self.token),
            outbox=self.outbox,
            counters=self.counters,
            limits=audit.limits,
            recording=audit.recording,
            spool=self.spool,
            created=transport.created,
            clock=self.site.bus_clock,
        )
        self.refusals = Refusals(
            transport=transport, subject=refused_subject(self.token), counters=self.counters, clock=self.site.bus_clock
        )
        self.counters.gauge("sealbus_clock_ahead_seconds", self.clocks.seconds_ahead)
        self.counters.gauge("sealbus_outbox_waiting_messages", lambda: self.outbox.waiting)
        self._audit_stream = ""
        book = self._key_book()
        self.past: PastTrust = book if book is not None else current_only
        """The bundles of the past; of no time unless the deployment has a notary."""
        self.restored: RestoredStreams = book if book is not None else nothing_restored
        """The streams that a notary says were restored from a backup."""
        self.held = self.held_at(transport)
        """Values that outlive a day, as this identity reads and writes them."""
        self.authorizer = Authorizer(engine=self.engine, counters=self.counters, clock=self.site.bus_clock)
        self.answers = ReplyPolicy(authorizer=self.authorizer, audit=self.audit, revocations=feeds.revocations)
        self.requests = Requests(
            self.site, outbox=self.outbox, policy=self.answers, refusals=self.refusals, served=feeds.served
        )
        self.status_reader = StatusReader(
            self.site, policy=self.answers, refusals=self.refusals, held=self.held, past=self.past
        )
        self.sending = Sender(self.site, outbox=self.outbox, requests=self.requests, reader=self.status_reader)
        self._stack = AsyncExitStack()
        self._refusing: asyncio.Task[None] | None = None

    def held_at(self, transport: Transport) -> Held:
        """Return the values that outlive a day where `transport` reads them, in one cell for instance (`own_cell`)."""
        return Held(
            transport,
            trust=self.trust,
            past=self.past,
            names=self.deployment.names,
            caches=self.caches,
            clock=self.site.bus_clock,
        )

    async def _broker_time(self) -> int:
        # A node that serves only calls has no consumer to ask about, but each must ask about the audit stream.
        if not self._audit_stream:
            self._audit_stream, _ = await self.transport.audit_stream()
        try:
            return await self.transport.broker_time(self._audit_stream)
        except ConfigurationError:
            # The stream of a period may be gone when the next one is current.
            self._audit_stream = ""
            raise

    def _key_book(self) -> KeyBook | None:
        if not self.deployment.notaries:
            return None
        return KeyBook(
            self.transport,
            notaries=self.deployment.notaries,
            trust=self.trust,
            names=self.deployment.names,
            caches=self.caches,
            clock=self.site.bus_clock,
            monotonic=self.site.elapsed,
        )

    def trust(self) -> Trust:
        """Return the current trust bundles, and the operator's revocations by time."""
        bundles, revoked = self.identity.bundles(), self._revoked_before()
        if self._trust.bundles is not bundles or self._revoked is not revoked:
            self._trust, self._revoked = Trust(bundles=bundles, revoked_before=revoked), revoked
        return self._trust

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            group = await stack.enter_async_context(Background())
            refusing = group.create_task(self.refusals.run(), name="refusals")
            stack.callback(refusing.cancel)
            await stack.enter_async_context(self.outbox)
            if self.spool is not None:
                await stack.enter_async_context(self.spool)
            await stack.enter_async_context(self.audit)
            await stack.enter_async_context(self.requests)
            await stack.enter_async_context(self.status_reader)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)
