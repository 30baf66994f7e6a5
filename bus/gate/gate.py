"""The gate: every consumed message is opened, decided, recorded and only then handled, in batches end to end.

::

    deliveries --1..13--> Opened --14..16--> Decided --17 recorded--> Permitted --18--> handler
         |       `-- a verb that is unknown here: put off for a replica that has it
                  `-- refusal (counted)   `-- retried, or denied: recorded, never handled

There is no other way to a handler: `Permitted` is built here, after the audit stream acknowledged the decision. The next
batch is opened and decided while the previous one is being recorded; handlers start in order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from sealbus.bus.audit.writer import AuditWriter, RecordPlaces
from sealbus.bus.background import Background
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.handling.places import Cause, Places
from sealbus.bus.ports import Clock, Delivery, Pull, wall_clock
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import KEY_AWAITED, UNTIL_EXPIRY
from sealbus.bus.routing.routes import Permitted, RouteTable, TaskReporter
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.streams.key_book import RestoredStreams, nothing_restored
from sealbus.bus.telemetry import Counters, OperatorLog
from sealbus.envelopes.accept.live import LiveProfile, VerifiedMessage, accept_live
from sealbus.envelopes.errors import (
    RETRIED_CODES,
    UNAUTHENTICATED_CODES,
    Code,
    EnvelopeError,
    ObligationUnknown,
    SealbusError,
    StateUnavailable,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.freshness import CoreArrival, StreamArrival
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.caches import Caches, ReplayMemory

if TYPE_CHECKING:
    from sealbus.bus.telemetry.tracing import Processing, Tracer

__all__ = ["CoreOrigin", "Gate", "Turn"]

_log = logging.getLogger(__name__)

RECORDING = 4
"""Batches that are being recorded at a time: enough to hide the acknowledgement's round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOrigin:
    """The times that step 6 needs for core calls: when this process started and when its audit stream was created."""

    started: int
    audit_created: int


class Authorizes(Protocol):
    """Does steps 14 to 16: an `Authorizer`, or for approvals one of their own."""

    async def authorize(self, opened: Sequence[Opened]) -> list[Decided]:
        """Return the decision about each message, in order."""


class Handling(Protocol):
    """What stands behind the gate: an `Executor`, or for approvals what counts them."""

    def reporter(self, message: VerifiedMessage, delivery: Delivery) -> TaskReporter | None:
        """Return the reporter of a task's status, or `None` for a call or an event."""

    def mark(self, decided: Sequence[Decided]) -> Sequence[Decided]:
        """Return what of `decided` is to be recorded and handled, those marked that are to be parked."""

    async def put(self, permitted: Permitted, delivery: Delivery, pull: Pull | None) -> None:
        """Take one permitted message; returns once there is room for it."""

    async def put_off(self, message: VerifiedMessage, delivery: Delivery, pull: Pull) -> None:
        """Put off a message whose verb has no handler here."""

    async def turn_down(self, decided: Decided, pull: Pull | None) -> None:
        """End what steps 14 to 16 refused."""

    async def answer_error(self, decided: Decided, error: SealbusError) -> None:
        """Answer a call whose decision is not recorded."""


class Gate:
    """The gate of one agent's deliveries; `executor` runs the handlers of what is permitted.

    Enter with `async with`, and call `settle` before leaving: what was not handed on by then will be redelivered.
    """

    def __init__(
        self,
        *,
        profile: LiveProfile,
        routes: RouteTable,
        trust: Callable[[], Trust],
        authorizer: Authorizes,
        audit: AuditWriter,
        refusals: Refusals,
        executor: Handling,
        places: Places,
        counters: Counters,
        core: CoreOrigin,
        caches: Caches,
        replay: ReplayMemory,
        random: Callable[[], float],
        restored: RestoredStreams = nothing_restored,
        clock: Clock = wall_clock,
        tracer: Tracer | None = None,
    ) -> None:
        self._restored_streams = restored
        self._tracer = tracer
        self._profile = profile
        self._routes = routes
        self._trust = trust
        self._authorizer = authorizer
        self._audit = audit
        self._refusals = refusals
        self._executor = executor
        self._places = places
        self._counters = counters
        self._core = core
        self._caches = caches
        self._replay = replay
        self._random = random
        self._clock = clock
        self._took = counters.histogram("sealbus_gate_seconds", ("source",))
        self._said = OperatorLog(_log)
        self._group = Background()
        self._finishing: set[asyncio.Task[None]] = set()
        self._recording = asyncio.Semaphore(RECORDING)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After `settle` nothing is left; without it, this would also wait for what waits for room in the executor.
        for task in self._finishing:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def admit(self, deliveries: Sequence[Delivery], pull: Pull | None, turn: Turn) -> None:
        """Open and decide one batch now; record it and hand it to the executor, after the batch before it, in a new task.

        `pull` settles stream deliveries and is `None` for core calls. `turn` keeps the order of one source. Returns once the
        batch is decided; waits first while `RECORDING` batches are being recorded.
        """
        began = time.perf_counter()
        known, restored = await self._known_places(deliveries, pull)
        opened, unknown = self._open(known, pull, restored)
        if pull is not None:
            for message, delivery in unknown:
                await self._executor.put_off(message, delivery, pull)
        decided = self._executor.mark(await self._authorizer.authorize(opened))
        at = self._clock() if self._tracer is not None else 0
        lasting = [one for one in decided if not self._try_again(one, pull)]
        await self._recording.acquire()
        before, done = turn.take()
        task = self._group.create_task(self._finish(lasting, pull, before, done, began, at), name="gate-finish")
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    def turn_away(self, deliveries: Sequence[Delivery], pull: Pull | None, error: SealbusError) -> None:
        """Refuse a batch unopened, for a reason of our own: deliveries are retried as usual, and calls are not answered."""
        for delivery in deliveries:
            self._refuse(error, delivery, pull)

    async def settle(self) -> None:
        """Wait until every admitted batch is recorded, or its records were refused, and handed on."""
        for _ in range(RECORDING):
            await self._recording.acquire()
        for _ in range(RECORDING):
            self._recording.release()

    async def _known_places(
        self, deliveries: Sequence[Delivery], pull: Pull | None
    ) -> tuple[Sequence[Delivery], Sequence[RestoredStream]]:
        """Return the deliveries that can be opened, and how their streams were restored.

        Only a restored stream holds what was stored before its creation: without such a delivery nobody is asked. These
        deliveries are put off while it is not known how the stream was restored.
        """
        for arrival in [one.arrival for one in deliveries if one.arrival is not None]:
            if arrival.stored >= arrival.created:
                continue
            try:
                return deliveries, await self._restored_streams.restored(arrival.created)
            except StateUnavailable as error:
                waiting = [
                    one for one in deliveries if one.arrival is not None and one.arrival.stored < arrival.created
                ]
                self.turn_away(waiting, pull, error)
                left = [one for one in deliveries if one.arrival is None or one.arrival.stored >= arrival.created]
                return left, ()
        return deliveries, ()

    def _open(
        self, deliveries: Sequence[Delivery], pull: Pull | None, restored: Sequence[RestoredStream]
    ) -> tuple[list[Opened], list[tuple[VerifiedMessage, Delivery]]]:
        """Return the messages that passed steps 1 to 13, and separately those whose verb has no handler here."""
        trust, now = self._trust(), self._clock()
        opened: list[Opened] = []
        unknown: list[tuple[VerifiedMessage, Delivery]] = []
        for delivery in deliveries:
            try:
                route = self._routes.find(delivery.subject)
                message = accept_live(
                    delivery.payload,
                    self._arrival(delivery),
                    self._profile,
                    action=route.action if route is not None else self._unknown_action(delivery),
                    trust=trust,
                    caches=self._caches,
                    replay=self._replay,
                    now=now,
                    restored=restored,
                )
            except EnvelopeError as error:
                self._refuse(error, delivery, pull)
            else:
                if route is not None:
                    opened.append(Opened(delivery, route, message, now))
                else:
                    unknown.append((message, delivery))
        return opened, unknown

    def _unknown_action(self, delivery: Delivery) -> str:
        """Return the action that a subject without a handler stands for; refuse a call without a handler."""
        subject = delivery.subject
        if delivery.arrival is None:
            return self._routes.of(subject).action
        declared = self._profile.own_subjects.get(subject)
        return declared.action if declared is not None else self._routes.unknown_action(subject)

    def _arrival(self, delivery: Delivery) -> StreamArrival | CoreArrival:
        if delivery.arrival is not None:
            return delivery.arrival
        return CoreArrival(subject=delivery.subject, started=self._core.started, audit_created=self._core.audit_created)

    def _refuse(self, error: SealbusError, delivery: Delivery, pull: Pull | None) -> None:
        """Count a refusal, which is never answered. A stream delivery is retried or terminated, by its code."""
        self._refusals.count(error, delivery)
        if pull is None or delivery.arrival is None:
            return
        now = self._clock()
        if error.code in UNAUTHENTICATED_CODES:
            cause, schedule = Cause.UNAUTHENTICATED, KEY_AWAITED
            until = delivery.arrival.stored + DEFAULT_LIMITS.key_awaited
        else:
            cause, schedule = Cause.PASSING, UNTIL_EXPIRY
            # The message's `exp` is unknown if it failed early; a retry after `exp` ends at step 5.
            until = now + DEFAULT_LIMITS.live_seconds * SECOND
        delay = schedule.delay(delivery.number, random=self._random(), now=now, until=until)
        again = error.code in RETRIED_CODES and delay is not None
        if not again or not self._places.put_off(cause, delivery, pull, delay or 0.0):
            pull.term(delivery)

    def _try_again(self, decided: Decided, pull: Pull | None) -> bool:
        """Retry a delivery that failed for a temporary reason, counted as a refusal, unless this was its last try."""
        delivery = decided.opened.delivery
        if decided.error is None or decided.error.code not in RETRIED_CODES or pull is None or delivery.arrival is None:
            return False
        exp = decided.opened.message.header.exp
        delay = UNTIL_EXPIRY.delay(delivery.number, random=self._random(), now=self._clock(), until=exp)
        if delay is None:
            return False
        self._refusals.count(decided.error, delivery)
        return self._places.put_off(Cause.PASSING, delivery, pull, delay)

    async def _finish(
        self,
        decided: Sequence[Decided],
        pull: Pull | None,
        before: asyncio.Event,
        done: asyncio.Event,
        began: float,
        at: int,
    ) -> None:
        """Do step 17, then hand on to the executor: a message whose record is not stored is not handled."""
        try:
            places: RecordPlaces | None = {} if self._tracer is not None else None
            leaves = await self._record(decided, pull, places)
            await before.wait()
            self._took.observe(time.perf_counter() - began, "call" if pull is None else "stream", n=len(decided))
            self._count([one for one, leaf in zip(decided, leaves, strict=True) if isinstance(leaf, bytes)])
            for number, (one, leaf) in enumerate(zip(decided, leaves, strict=True)):
                if isinstance(leaf, bytes):
                    span = self._processing(one, leaf, at, (places or {}).get(number))
                    await self._pass_on(one, leaf, pull, span)
                else:
                    # A call that another replica took is refused like any replay and never answered:
                    # an answer from here would end the call that is being handled there.
                    if not isinstance(leaf, EnvelopeError):
                        await self._executor.answer_error(one, leaf)
                    self._refuse(leaf, one.opened.delivery, pull)
        finally:
            done.set()
            self._recording.release()

    async def _record(
        self, decided: Sequence[Decided], pull: Pull | None, places: RecordPlaces | None
    ) -> Sequence[bytes | SealbusError]:
        if not decided:
            return ()
        if pull is None:
            return await self._audit.call_decisions(decided, places)
        return await self._audit.decisions(decided, places)

    def _count(self, recorded: Iterable[Decided]) -> None:
        counts = Counter([(one.opened.route.action, str(one.code or "allow")) for one in recorded])
        for (action, verdict), number in counts.items():
            self._counters.add("sealbus_decisions_total", number, action=action, verdict=verdict)

    def _processing(self, decided: Decided, leaf: bytes, at: int, place: tuple[str, int] | None) -> Processing | None:
        if self._tracer is None:
            return None
        return self._tracer.processing(
            decided.opened.message,
            action=decided.opened.route.action,
            opened=decided.opened.time,
            decided=at,
            code=decided.code,
            revision=(decided.decision.revision or "") if decided.decision is not None else "",
            record=leaf,
            place=place,
        )

    async def _pass_on(self, decided: Decided, leaf: bytes, pull: Pull | None, span: Processing | None) -> None:
        opened = decided.opened
        code = decided.code
        if code is None and decided.decision is not None:
            permitted = Permitted(
                message=opened.message,
                value=decided.value,
                route=opened.route,
                leaf=leaf,
                sent=[],
                cancellation=Cancellation(),
                obligations=decided.decision.obligations,
                reporter=self._executor.reporter(opened.message, opened.delivery),
                span=span,
            )
            await self._executor.put(permitted, opened.delivery, pull)
            return
        extra = decided.error.detail if isinstance(decided.error, ObligationUnknown) else ""
        code = code or Code.DENIED
        self._said.message(
            "denied",
            opened.message.header,
            action=opened.route.action,
            code=code,
            extra=extra,
            reasons=decided.decision.reasons if decided.decision is not None else (),
            context=opened.message.context,
            user=self._audit.recording.shows_user(opened.message.header.to),
        )
        if span is not None:
            span.end("denied")
        await self._executor.turn_down(decided, pull)


class Turn:
    """The order of one source's batches, which are recorded concurrently."""

    def __init__(self) -> None:
        self._last = asyncio.Event()
        self._last.set()

    def take(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Return the event of the batch before, to wait for, and the one to set."""
        before, self._last = self._last, asyncio.Event()
        return before, self._last
