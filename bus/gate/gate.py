"""The gate: every consumed message is opened, decided, recorded and only then handled, in batches end to end.

::

    deliveries --1..13--> Opened --14..16--> Decided --17 recorded--> Permitted --18--> handler
         |                  ^ `-- a verb that is unknown here: put off for a replica that has it
         |                  `---- a parked task that an approval takes up (`admit_opened`)
         `-- refusal (counted)      `-- retried, or denied: recorded, never handled

There is no other way to a handler: `permit` alone builds `Permitted`, after the audit stream acknowledged the decision. The
next batch is opened and decided while the previous one is being recorded; handlers start in order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from sealbus.bus.audit.writer import AuditWriter, RecordPlaces
from sealbus.bus.background import Background
from sealbus.bus.gate.opener import Opener
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.ports import Delivery, Pull, Settlement
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import KEY_AWAITED, UNTIL_EXPIRY
from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.site import Site
from sealbus.bus.telemetry import OperatorLog
from sealbus.bus.telemetry.processed import ProcessedMessage
from sealbus.bus.work.executor.executor import Executor
from sealbus.bus.work.places import Cause, Places
from sealbus.envelopes.errors import (
    RETRIED_CODES,
    UNAUTHENTICATED_CODES,
    EnvelopeError,
    ObligationUnknown,
    SealbusError,
)
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND

if TYPE_CHECKING:
    from sealbus.bus.telemetry.spans import Processing

_logger = logging.getLogger(__name__)

RECORDING = 4
"""Batches that are being recorded at a time: enough to hide the acknowledgement's round trip."""


class Authorizes(Protocol):
    """Does steps 14 to 16: an `Authorizer`, or an `ApprovalAuthorizer`."""

    async def authorize(self, opened: Sequence[Opened]) -> list[Decided]:
        """Return the decisions about the messages, in order. A message without a decision is left alone."""


Take = Callable[[Permitted, Delivery, Pull], Awaitable[None]]
"""Takes a permitted message of a stream; returns once there is room for it."""


class TaskSource(Protocol):
    """A parked task that goes on. `Gate.admit_opened` decides and records it, and calls these methods."""

    @property
    def settlement(self) -> Settlement:
        """Where the task is settled."""

    def mark(self, decided: Decided) -> Decided:
        """Return the decision, marked if the task is to wait for an approval."""

    async def may_run(self, decided: Decided, leaf: bytes, reporter: TaskReporter | None) -> bool:
        """Return whether to execute the task, which is allowed and recorded. If not, the source has ended it."""

    async def wait(self, decided: Decided, reporter: TaskReporter | None) -> None:
        """Have the task wait for the approval that its recorded denial asks for."""


class Gate:
    """The gate of one agent's deliveries; `executor` handles permitted messages, unless `take` does.

    Enter with `async with`, and call `idle` before leaving: the broker redelivers what was not handed on by then.
    """

    def __init__(
        self,
        site: Site,
        *,
        opener: Opener,
        authorizer: Authorizes,
        audit: AuditWriter,
        refusals: Refusals,
        executor: Executor,
        places: Places,
        take: Take | None = None,
    ) -> None:
        self._site = site
        self._opener = opener
        self._authorizer = authorizer
        self._audit = audit
        self._refusals = refusals
        self._executor = executor
        self._places = places
        self._take = take
        self._seconds = site.counters.histogram("sealbus_gate_seconds", ("source",))
        self._operator_log = OperatorLog(_logger)
        self._group = Background()
        self._finishing: set[asyncio.Task[None]] = set()
        self._recording = asyncio.Semaphore(RECORDING)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After `idle` nothing is left; without it, this would also wait for room in the executor.
        for task in self._finishing:
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def admit(self, deliveries: Sequence[Delivery], pull: Pull | None, turn: Turn) -> None:
        """Open and decide one batch now; record it and hand it on, after the batch before it, in a new task.

        `pull` settles stream deliveries and is `None` for core calls. `turn` keeps the order of one source. Returns once the
        batch is decided; waits first while `RECORDING` batches are being recorded.
        """
        began = time.perf_counter()
        batch = await self._opener.open(deliveries)
        for error, delivery in batch.refused:
            self._refuse(error, delivery, pull)
        if pull is not None:
            for message, delivery in batch.unknown:
                await self._executor.put_off(message, delivery, pull)
        decided = await self._executor.mark(await self._authorizer.authorize(batch.opened))
        at = self._site.bus_clock() if self._site.tracer is not None else 0
        lasting = [decision for decision in decided if not self._try_again(decision, pull)]
        await self._recording.acquire()
        before, done = turn.take()
        task = self._group.create_task(self._finish(lasting, pull, before, done, began, at), name="gate-finish")
        self._finishing.add(task)
        task.add_done_callback(self._finishing.discard)

    async def admit_opened(self, opened: Opened, source: TaskSource) -> None:
        """Decide and record one reopened task. Then execute it, have it wait, or turn it down.

        `source.may_run` may end it instead. Raises `SealbusError` if authorizing failed for a temporary reason or the record
        is not stored, and whatever `source` raises.
        """
        [decided] = await self._authorizer.authorize([opened])
        if decided.error is not None and decided.error.code in RETRIED_CODES:
            raise decided.error
        at = self._site.bus_clock()
        decided = source.mark(decided)
        [leaf] = await self._audit.decisions([decided])
        if not isinstance(leaf, bytes):
            raise leaf
        self._count([decided])
        reporter = self._executor.reporter(opened.message, opened.delivery)
        if decided.parks:
            await source.wait(decided, reporter)
        elif not decided.allowed:
            await self._executor.turn_down(decided, source.settlement)
        elif await source.may_run(decided, leaf, reporter):
            permitted = permit(decided, leaf, reporter, self._span(decided, leaf, at))
            await self._executor.put(permitted, opened.delivery, source.settlement)

    def turn_away(self, deliveries: Sequence[Delivery], pull: Pull | None, error: SealbusError) -> None:
        """Refuse a batch unopened, for a reason of our own: deliveries are retried as usual, and calls are not answered."""
        for delivery in deliveries:
            self._refuse(error, delivery, pull)

    async def idle(self) -> None:
        """Wait until every admitted batch is handed on. A batch whose records are refused counts as handed on."""
        for _ in range(RECORDING):
            await self._recording.acquire()
        for _ in range(RECORDING):
            self._recording.release()

    def _refuse(self, error: SealbusError, delivery: Delivery, pull: Pull | None) -> None:
        """Count a refusal, which is never answered. A stream delivery is retried or terminated, by its code."""
        self._refusals.count(error, delivery)
        if pull is None or delivery.arrival is None:
            return
        now = self._site.bus_clock()
        if error.code in UNAUTHENTICATED_CODES:
            cause, schedule = Cause.UNAUTHENTICATED, KEY_AWAITED
            until = delivery.arrival.stored + DEFAULT_LIMITS.key_awaited
        else:
            cause, schedule = Cause.PASSING, UNTIL_EXPIRY
            # The message's `exp` is unknown if it failed early; a retry after `exp` ends at step 5.
            until = now + DEFAULT_LIMITS.live_seconds * SECOND
        delay = schedule.delay(delivery.number, random=self._site.random(), now=now, until=until)
        again = error.code in RETRIED_CODES and delay is not None
        if not again or not self._places.put_off(cause, delivery, pull, delay or 0.0):
            pull.term(delivery)

    def _try_again(self, decided: Decided, pull: Pull | None) -> bool:
        """Retry a delivery that failed for a temporary reason, counted as a refusal, unless this was its last try."""
        delivery = decided.opened.delivery
        if decided.error is None or decided.error.code not in RETRIED_CODES or pull is None or delivery.arrival is None:
            return False
        exp, now = decided.opened.message.header.exp, self._site.bus_clock()
        delay = UNTIL_EXPIRY.delay(delivery.number, random=self._site.random(), now=now, until=exp)
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
        """Do step 17, then hand on: a message whose record is not stored is not handled."""
        try:
            places: RecordPlaces | None = {} if self._site.tracer is not None else None
            record = self._audit.call_decisions if pull is None else self._audit.decisions
            leaves = await record(decided, places) if decided else ()
            await before.wait()
            seconds = time.perf_counter() - began
            self._seconds.observe(seconds, "call" if pull is None else "stream", n=len(decided))
            recorded = list(zip(decided, leaves, strict=True))
            self._count([decision for decision, leaf in recorded if isinstance(leaf, bytes)])
            for number, (decision, leaf) in enumerate(recorded):
                if isinstance(leaf, bytes):
                    span = self._span(decision, leaf, at, places.get(number)) if places is not None else None
                    await self._hand_on(decision, leaf, pull, span)
                else:
                    # A call that another replica took is refused like any replay and never answered:
                    # an answer from here would end the call that is being handled there.
                    if not isinstance(leaf, EnvelopeError):
                        await self._executor.answer_error(decision, leaf)
                    self._refuse(leaf, decision.opened.delivery, pull)
        finally:
            done.set()
            self._recording.release()

    def _count(self, recorded: Iterable[Decided]) -> None:
        counts = Counter([(decided.opened.route.action, str(decided.code or "allow")) for decided in recorded])
        for (action, verdict), number in counts.items():
            self._site.counters.add("sealbus_decisions_total", number, action=action, verdict=verdict)

    def _span(self, decided: Decided, leaf: bytes, at: int, place: tuple[str, int] | None = None) -> Processing | None:
        """Return the span of a message that was decided `at` (microseconds) and recorded; `None` without a tracer."""
        if self._site.tracer is None:
            return None
        opened, decision = decided.opened, decided.decision
        return self._site.tracer.processing(
            ProcessedMessage(
                opened.message,
                action=opened.route.action,
                opened=opened.time,
                decided=at,
                recorded=self._site.bus_clock(),
                verdict=decided.code or "allow",
                revision=(decision.revision or "") if decision is not None else "",
                record=leaf,
                place=place,
                approval=opened.resumed.approval.header if opened.resumed is not None else None,
            )
        )

    async def _hand_on(self, decided: Decided, leaf: bytes, pull: Pull | None, span: Processing | None) -> None:
        """Hand a recorded message to its handler if it is allowed, and turn it down otherwise."""
        opened, code = decided.opened, decided.code
        if code is None:
            reporter = self._executor.reporter(opened.message, opened.delivery)
            permitted = permit(decided, leaf, reporter, span)
            if self._take is not None and pull is not None:
                await self._take(permitted, opened.delivery, pull)
            else:
                await self._executor.put(permitted, opened.delivery, pull)
            return
        self._operator_log.message(
            "denied",
            opened.message.header,
            action=opened.route.action,
            code=code,
            extra=decided.error.detail if isinstance(decided.error, ObligationUnknown) else "",
            reasons=decided.decision.reasons if decided.decision is not None else (),
            context=opened.message.context,
            user=self._audit.recording.shows_user(opened.message.header.to),
        )
        if span is not None:
            span.end("denied")
        await self._executor.turn_down(decided, pull)


def permit(decided: Decided, leaf: bytes, reporter: TaskReporter | None, span: Processing | None) -> Permitted:
    """Return the only input that a handler can get, for a message whose decision is recorded as `leaf`.

    Raises `ValueError` for a message that is not allowed.
    """
    decision = decided.decision
    if decided.error is not None or decision is None or decision.allow is not True:
        raise ValueError("not allowed")
    opened = decided.opened
    return Permitted(
        message=opened.message,
        value=decided.value,
        route=opened.route,
        leaf=leaf,
        sent=[],
        cancellation=Cancellation(),
        obligations=decision.obligations,
        reporter=reporter,
        resumed=opened.resumed,
        span=span,
    )


class Turn:
    """The order of one source's batches, which are recorded concurrently."""

    def __init__(self) -> None:
        self._last = asyncio.Event()
        self._last.set()

    def take(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Return two events: wait for the first, which the batch before sets; then set the second."""
        before, self._last = self._last, asyncio.Event()
        return before, self._last
