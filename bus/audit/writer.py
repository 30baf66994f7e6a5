"""The audit writer: stores decisions before anything is handled, outcomes after; one signed message for many records.

Evidence (credentials, contexts, ancestors) is stored once per audit message, and headers refer to it by hash (SPEC.md section
8). The decision on a core call is alone in its message, under the guard id that all replicas share. With a spool, all other
records count as stored once they are on the local disk; calls still wait for the stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

from sealbus.bus.audit.denial_budget import Denials
from sealbus.bus.audit.redaction import DECISIONS_ALONE, Recording
from sealbus.bus.audit.spool import Spool
from sealbus.bus.background import Background, batch_from
from sealbus.bus.clocks import UNMEASURED_CLOCK, BusClock
from sealbus.bus.ports import DuplicateFirstAttempt
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.message import record_message
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.errors import AuditUnavailable, BusUnavailable, Code, EnvelopeError, SealbusError, SealError
from sealbus.envelopes.records.batch import AuditBatch
from sealbus.envelopes.records.decision import DECISION_CODES, CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.records.record import Record, guard_id
from sealbus.envelopes.trust.spiffe_id import SpiffeId
from sealbus.policies.decision.decision import obligations_json

_logger = logging.getLogger(__name__)

LEAVING: Final = 5.0
"""Seconds to store the waiting records when a writer is left with an error."""
RECENT = 30.0
"""Seconds for which `AuditWriter.problem` reports a refused record."""
_TAKEN = ("", 0.0)

RecordPlaces = dict[int, tuple[str, int]]
"""Stream and sequence of the message that holds each record, by index in the batch. Records in a spool have none."""

COUNTED = b""
"""Stands for the leaf of a denial that is counted in its minute's `denials` record and has no record of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLimits:
    """Bounds and waits of the audit writer."""

    waiting: int = 16_384
    """Outcomes that wait to be stored; when full, handlers wait for room, which slows the executor."""
    batch: int = 512
    """Outcomes in one audit message."""
    within: float = 10.0
    """Seconds within which the stream must acknowledge a decision; after that `audit_unavailable`."""
    denials: int = 600
    """Denials of one sender that are recorded singly in a minute; more are only counted (SPEC.md section 8)."""
    issuers: int = 1_024
    """Senders whose denials are counted within a minute."""


class _Noted(NamedTuple):
    record: Record
    then: Callable[[], None]
    about: VerifiedResult | None
    lost: Callable[[], None]
    kept: bool


class AuditWriter:
    """Writes the records of the identity of `outbox` to `subject`; enter with `async with`.

    Leaving stores the waiting records first. `created` returns when a stream was created, in microseconds; calls sent before
    their audit stream was created are then refused.
    """

    def __init__(
        self,
        *,
        subject: str,
        outbox: Outbox,
        counters: Counters,
        limits: AuditLimits | None = None,
        recording: Recording = DECISIONS_ALONE,
        spool: Spool | None = None,
        created: Callable[[str], Awaitable[int]] | None = None,
        clock: BusClock = UNMEASURED_CLOCK,
    ) -> None:
        self._subject = subject
        self._outbox = outbox
        self._own = outbox.own
        self._counters = counters
        self._spool = spool
        self._created = created
        self._period: tuple[str, int] | None = None
        self._limits = limits or AuditLimits()
        self.recording = recording
        """Selects what is recorded with a decision. Callers that make records for this writer apply it too."""
        self._noted: asyncio.Queue[_Noted | None] = asyncio.Queue(self._limits.waiting)
        self._denials = Denials(
            store=self.note,
            counters=counters,
            budget=self._limits.denials,
            issuers=self._limits.issuers,
            clock=clock,
        )
        self._took = counters.histogram("sealbus_audit_seconds")
        # Shown from the start, or the first failure would be no increase.
        counters.add("sealbus_outcomes_lost_total", 0)
        for code in (Code.AUDIT_UNAVAILABLE, Code.BUS_UNAVAILABLE):
            counters.add("sealbus_audit_failures_total", 0, code=code.value)
        counters.gauge("sealbus_audit_waiting_records", self._noted.qsize)
        self._group = Background()
        self._writing: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._refused = _TAKEN

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._writing = self._group.create_task(self._run(), name="audit-outcomes")
        self._counting = self._group.create_task(self._denials.store_minutes(), name="audit-denials")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._counting is not None:
            self._counting.cancel()
        if kind is None:
            await self._finish()
        elif issubclass(kind, Exception) and self._writing is not None:
            # Decisions made before the error are recorded all the same: one of them may be its cause.
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVING):
                    await self._finish()
                    await asyncio.wait([self._writing])
        await self._group.__aexit__(kind, error, trace)

    async def _finish(self) -> None:
        await self._denials.flush(closing=True)
        await self._noted.put(None)

    @property
    def problem(self) -> str:
        """The code with which stream or spool refused the last record, for `RECENT` seconds; empty otherwise.

        The code expires, because a worker that is not ready gets no messages and would never become ready again.
        """
        if self._spool is not None and self._spool.problem:
            return self._spool.problem
        code, until = self._refused
        return code if until > asyncio.get_running_loop().time() else ""

    @property
    def behind(self) -> str:
        """The spool's note for operators (`Spool.behind`); empty if there is none."""
        return self._spool.behind if self._spool is not None else ""

    def _note_result(self, error: SealbusError | None) -> None:
        if error is None:
            self._refused = _TAKEN
        elif isinstance(error, BusUnavailable | AuditUnavailable) and not isinstance(error, DuplicateFirstAttempt):
            self._refused = (str(error.code), asyncio.get_running_loop().time() + RECENT)
            self._counters.add("sealbus_audit_failures_total", code=str(error.code))

    async def decisions(
        self, decided: Sequence[Decided], places: RecordPlaces | None = None
    ) -> Sequence[bytes | SealbusError]:
        """Store the decisions of one batch of stream deliveries; return each record's leaf, or why it is not stored.

        Returns once the stream has acknowledged the records (step 17) or, with a spool, once they are on disk. The records go
        in one message, or as few as the body limit allows. The leaf of a denial that was only counted is `COUNTED`. `places`,
        if given, receives where the stream stored each record.
        """
        leaves, batches = self._batched(decided)
        for batch, indexes in batches:
            try:
                posted = await self._store(batch)
                if places is not None and posted is not None and posted.ack is not None:
                    places.update(dict.fromkeys(indexes, (posted.ack.stream, posted.ack.sequence)))
            except SealbusError as error:
                refused = _unavailable(f"decisions not stored: {error.code}", error)
                for index in indexes:
                    leaves[index] = refused
        return leaves

    async def call_decisions(
        self, decided: Sequence[Decided], places: RecordPlaces | None = None
    ) -> Sequence[bytes | SealbusError]:
        """Store each decision on a core call in its own message, all in one write; `replayed` if another replica was first.

        The decisions never go through a spool: only the stream knows the guard ids of all replicas.
        """
        leaves, batches = self._batched(decided, alone=True)
        if not batches:
            return leaves
        # A denial that is only counted needs no guard id: another replica denies the same call too, or handles it alone.
        messages = [
            record_message(
                self._subject, batch.close(), guard_id(self._own, decided[index].opened.message.header.digest)
            )
            for batch, [index] in batches
        ]
        began = time.perf_counter()
        answers = await self._outbox.publish_each(
            messages, within=self._limits.within, reseal=False, repeat_is_ours=False
        )
        self._took.observe(time.perf_counter() - began, n=len(messages))
        for (_, [index]), answer in zip(batches, answers, strict=True):
            self._note_result(answer if isinstance(answer, SealbusError) else None)
            if isinstance(answer, SealbusError):
                leaves[index] = _not_stored(answer)
                continue
            if places is not None and answer.ack is not None:
                places[index] = answer.ack.stream, answer.ack.sequence
            if (late := await self._before_period(answer, decided[index])) is not None:
                leaves[index] = late
        self._counters.add("sealbus_audit_messages_total", sum(isinstance(answer, Posted) for answer in answers))
        return leaves

    def _batched(
        self, decided: Sequence[Decided], *, alone: bool = False
    ) -> tuple[list[bytes | SealbusError], list[tuple[AuditBatch, list[int]]]]:
        """Return each record's leaf, or why there is none, and batches of records with their indexes in `decided`.

        With `alone` each record has a batch to itself.
        """
        leaves: list[bytes | SealbusError] = []
        batches: list[tuple[AuditBatch, list[int]]] = []
        for index, entry in enumerate(decided):
            if self._only_counted(entry):
                leaves.append(COUNTED)
                continue
            try:
                record = self.record(entry).encode()
                leaf = None if alone or not batches else batches[-1][0].add(record, entry.opened.message)
                if leaf is not None:
                    batches[-1][1].append(index)
                elif (leaf := (batch := AuditBatch()).add(record, entry.opened.message)) is not None:
                    batches.append((batch, [index]))
            except SealError as error:
                leaves.append(_unrecordable(error))
                continue
            leaves.append(leaf or _unrecordable(None))
        return leaves, batches

    async def _before_period(self, posted: Posted, decided: Decided) -> SealbusError | None:
        """Return why a call may not be handled: the stream that stored its decision may not know the call's id.

        A new period of the audit stream may have begun since this process started. The former stream holds the ids of calls
        sent before that (SPEC.md section 7, step 6: `iat` not before the audit stream was created).
        """
        if self._created is None or posted.ack is None:
            return None
        if self._period is None or self._period[0] != posted.ack.stream:
            try:
                self._period = posted.ack.stream, await self._created(posted.ack.stream)
            except SealbusError as error:
                return _unavailable(f"decision not stored: {error.code}", error)
        if decided.opened.message.header.iat < self._period[1]:
            return EnvelopeError(Code.REPLAYED, 6, "sent before the audit stream's period began")
        return None

    def record(self, decided: Decided) -> DecisionRecord:
        """Return the record of a decision as it is stored. Raises `SealError` if the decision cannot be recorded."""
        message = decided.opened.message
        return self.recording.record(decision_record(decided), message.header.to, message.body)

    def _only_counted(self, decided: Decided) -> bool:
        """Return whether this is a denial beyond its sender's budget. Parked and resumed tasks are always recorded."""
        code = decided.code
        return (
            not decided.parks
            and decided.opened.resumed is None
            and code in DECISION_CODES
            and self._denials.only_counted(decided.opened.message.header.iss, code)
        )

    def counted_again(self, issuer: SpiffeId, code: str | None) -> bool:
        """Count a decision about an answer of `issuer` that has a record; see `Denials.counted_again`."""
        return self._denials.counted_again(issuer, code)

    async def note(
        self,
        record: Record,
        then: Callable[[], None] = lambda: None,
        about: VerifiedResult | None = None,
        *,
        lost: Callable[[], None] = lambda: None,
        kept: bool = False,
    ) -> None:
        """Queue `record` to be stored with others. After the attempt call `then`; if it failed, call `lost` first.

        A caller that has `kept` the record reports its loss or notes it again: here a failure is neither counted nor logged.
        """
        noted = _Noted(record, then, about, lost, kept)
        try:
            self._noted.put_nowait(noted)
        except asyncio.QueueFull:
            await self._noted.put(noted)

    async def _store(self, batch: AuditBatch, *, kept: bool = False) -> Posted | None:
        posted = None
        closed, records, began = batch.close(), len(batch), time.perf_counter()
        try:
            if self._spool is not None:
                await self._spool.store(closed)
            else:
                posted = await self._outbox.publish(record_message(self._subject, closed), within=self._limits.within)
                self._counters.add("sealbus_audit_messages_total")
        except SealbusError as error:
            if not kept:
                self._note_result(error)
            raise
        self._took.observe(time.perf_counter() - began, n=records)
        self._note_result(None)
        return posted

    async def _run(self) -> None:
        last = False
        while not last:
            waiting, last = batch_from(await self._noted.get(), self._noted, self._limits.batch)
            if waiting:
                await self._store_noted(waiting)

    async def _store_noted(self, waiting: Sequence[_Noted]) -> None:
        batch, first = AuditBatch(), 0
        for index, noted in enumerate(waiting):
            if batch.add(noted.record.encode(), noted.about) is None:
                await self._try_store(batch, waiting[first:index])
                batch, first = AuditBatch(), index
                batch.add(noted.record.encode(), noted.about)
        await self._try_store(batch, waiting[first:])
        for noted in waiting:
            noted.then()

    async def _try_store(self, batch: AuditBatch, waiting: Sequence[_Noted]) -> None:
        lost = sum(not noted.kept for noted in waiting)
        try:
            await self._store(batch, kept=not lost)
        except SealbusError as error:
            if lost:
                # The effect has happened and its decision is stored; handling it again would not recover the outcome.
                self._counters.add("sealbus_outcomes_lost_total", lost)
                _logger.error("%d outcomes not stored: %s", lost, error)  # noqa: TRY400 - the error says all
            for noted in waiting:
                noted.lost()


def _not_stored(error: SealbusError) -> SealbusError:
    """Return the error for a call whose decision the stream did not store under its guard id."""
    if isinstance(error, DuplicateFirstAttempt):
        return EnvelopeError(Code.REPLAYED, 13, "another replica decided on this call")
    return _unavailable(f"decision not stored: {error.code}", error)


def _unrecordable(error: SealError | None) -> AuditUnavailable:
    """Return the error for a decision that cannot be recorded; it affects that message alone."""
    _logger.error("a decision cannot be recorded: %s", error.detail if error is not None else "no room")
    return _unavailable("the decision cannot be recorded", error)


def _unavailable(detail: str, cause: SealbusError | None) -> AuditUnavailable:
    refused = AuditUnavailable(detail)
    refused.__cause__ = cause
    return refused


def decision_record(decided: Decided) -> DecisionRecord:
    """Return the record of the decision about one delivery."""
    opened = decided.opened
    message, position = opened.message, opened.delivery.arrival
    decision = decided.decision
    code = decided.code
    if code is not None and code not in DECISION_CODES:
        raise ValueError(f"{code} is not a decision")
    return DecisionRecord(
        header=message.header.raw,
        proof=message.proof,
        action=opened.route.action,
        place=(
            StreamPlace(stream=position.stream, sequence=position.sequence, stored=position.stored)
            if position is not None
            else CorePlace(opened=opened.time)
        ),
        delivery=position.delivery if position is not None else 1,
        allow=code is None,
        code=code,
        input=decided.input_document or None,
        reasons=decision.reasons if decision is not None else (),
        obligations=obligations_json(decision),
        revision=decision.revision if decision is not None else None,
        policy=decision.policy if decision is not None else None,
        engine=decision.engine if decision is not None else None,
        micros=decision.micros if decision is not None else None,
    )
