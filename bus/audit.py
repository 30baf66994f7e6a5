"""The audit writer: decisions are stored before anything is handled, outcomes after; one signed message for many records.

Evidence (credentials, contexts, ancestors) is stored once per audit message, found by the hash that a header already holds
(SPEC.md section 8). The decision on a core call is alone in its message, under the guard id that all replicas share.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sealbus.bus.counters import Counters
from sealbus.bus.letter import Letter
from sealbus.bus.outbox import DuplicateFirstAttempt, Outbox
from sealbus.bus.work import Judged
from sealbus.envelopes.audit_batch import AuditBatch
from sealbus.envelopes.audit_body import AUDIT_MEDIA_TYPE
from sealbus.envelopes.decision_record import DECISION_CODES, CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.errors import AuditUnavailable, Code, EnvelopeError, SealbusError, SealError
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records import Record, guard_id
from sealbus.envelopes.results import VerifiedResult
from sealbus.envelopes.spiffe_id import SpiffeId
from sealbus.envelopes.work_records import OutcomeRecord
from sealbus.policies.decision import Decision

__all__ = ["AuditLimits", "AuditWriter", "decision_record", "obligations_json"]

_log = logging.getLogger(__name__)

RECORD_LIFE = 3_600 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLimits:
    """Bounds and waits of the audit writer."""

    waiting: int = 16_384
    """Outcomes that wait to be stored; whoever finds it full waits, which holds the lanes up."""
    batch: int = 512
    """Outcomes in one audit message."""
    within: float = 10.0
    """Seconds that the stream has to acknowledge a decision; then `audit_unavailable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Noted:
    record: Record
    then: Callable[[], None]
    about: VerifiedResult | None


class AuditWriter:
    """Stores the records of one identity on `subject`; enter with `async with`, leave it and what waits is stored first."""

    def __init__(
        self,
        *,
        own: SpiffeId,
        subject: str,
        outbox: Outbox,
        counters: Counters,
        limits: AuditLimits | None = None,
    ) -> None:
        self._own = own
        self._subject = subject
        self._outbox = outbox
        self._counters = counters
        self._limits = limits or AuditLimits()
        self._noted: asyncio.Queue[_Noted | None] = asyncio.Queue(self._limits.waiting)
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._group.create_task(self._run(), name="audit-outcomes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._noted.put(None)
        await self._group.__aexit__(kind, error, trace)

    async def decisions(self, judged: Sequence[Judged]) -> Sequence[bytes | SealbusError]:
        """Store the decisions of one batch of stream deliveries; return each record's leaf, or why it is not stored.

        Returns only when the stream acknowledged (step 17). One message, or as few as the limit of a body allows.
        """
        batches: list[tuple[AuditBatch, list[int]]] = [(AuditBatch(), [])]
        leaves: list[bytes | SealbusError] = []
        for place, one in enumerate(judged):
            try:
                record = decision_record(one).encode()
                leaf = batches[-1][0].add(record, one.opened.message)
                if leaf is None:
                    batches.append((AuditBatch(), []))
                    leaf = batches[-1][0].add(record, one.opened.message)
            except SealError as error:
                leaves.append(_unrecordable(error))
                continue
            leaves.append(leaf or _unrecordable(None))
            batches[-1][1].append(place)
        for batch, places in batches:
            if not places:
                continue
            try:
                await self._store(batch)
            except SealbusError as error:
                refused = AuditUnavailable(f"decisions not stored: {error.code}")
                refused.__cause__ = error
                for place in places:
                    leaves[place] = refused
        return leaves

    async def call_decisions(self, judged: Sequence[Judged]) -> Sequence[bytes | SealbusError]:
        """Store each decision on a core call alone, all in one write; a replica that was first makes it `replayed`."""
        return await asyncio.gather(*(self._call_decision(one) for one in judged))

    async def _call_decision(self, judged: Judged) -> bytes | SealbusError:
        message = judged.opened.message
        batch = AuditBatch()
        try:
            leaf = batch.add(decision_record(judged).encode(), message)
        except SealError as error:
            return _unrecordable(error)
        try:
            await self._store(batch, id_=guard_id(self._own, message.header.digest))
        except DuplicateFirstAttempt:
            return EnvelopeError(Code.REPLAYED, 13, "another replica decided on this call")
        except SealbusError as error:
            refused = AuditUnavailable(f"decision not stored: {error.code}")
            refused.__cause__ = error
            return refused
        return leaf or _unrecordable(None)

    async def note(
        self, record: Record, then: Callable[[], None] = lambda: None, about: VerifiedResult | None = None
    ) -> None:
        """Store `record` soon, together with what else waits, and call `then` once that was tried."""
        await self._noted.put(_Noted(record=record, then=then, about=about))

    async def outcome(
        self,
        *,
        decision: bytes,
        code: Code | None,
        micros: int,
        delivery: int,
        sent: Sequence[bytes],
        then: Callable[[], None],
    ) -> None:
        """Note what came of an allowed decision, whose record's leaf is `decision`."""
        record = OutcomeRecord.of(decision=decision, code=code, micros=micros, delivery=delivery, sent=tuple(sent))
        await self.note(record, then)

    async def _store(self, batch: AuditBatch, *, id_: bytes | None = None) -> None:
        closed = batch.close()
        letter = Letter(
            kind=Kind.RECORD,
            to=self._subject,
            life=RECORD_LIFE,
            body=closed.body,
            dig=closed.dig,
            typ=AUDIT_MEDIA_TYPE,
            id=id_,
        )
        await self._outbox.publish(letter, within=self._limits.within, reseal=id_ is None, repeat_is_ours=id_ is None)
        self._counters.add("sealbus_audit_messages_total")

    async def _run(self) -> None:
        last = False
        while not last:
            first = await self._noted.get()
            if first is None:
                return
            waiting = [first]
            while len(waiting) < self._limits.batch and not self._noted.empty():
                following = self._noted.get_nowait()
                if following is None:
                    last = True
                    break
                waiting.append(following)
            await self._store_noted(waiting)

    async def _store_noted(self, waiting: Sequence[_Noted]) -> None:
        batch = AuditBatch()
        for one in waiting:
            if batch.add(one.record.encode(), one.about) is None:
                await self._try_store(batch)
                batch = AuditBatch()
                batch.add(one.record.encode(), one.about)
        await self._try_store(batch)
        for one in waiting:
            one.then()

    async def _try_store(self, batch: AuditBatch) -> None:
        try:
            await self._store(batch)
        except SealbusError as error:
            # The effect has happened and its decision is stored; handling again would not bring the outcome back.
            self._counters.add("sealbus_outcomes_lost_total", len(batch))
            _log.error("%d outcomes not stored: %s", len(batch), error)


def _unrecordable(error: SealError | None) -> AuditUnavailable:
    """Return why one decision cannot be recorded: it ends that message alone, and is ours to mend."""
    _log.error("a decision cannot be recorded: %s", error.detail if error is not None else "no room")
    refused = AuditUnavailable("the decision cannot be recorded")
    refused.__cause__ = error
    return refused


def decision_record(judged: Judged) -> DecisionRecord:
    """Return the record of what was decided about one delivery."""
    opened = judged.opened
    message, position = opened.message, opened.delivery.position
    decision = judged.decision
    code = judged.code
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
        allow=judged.allowed,
        code=code,
        input=judged.input_document or None,
        reasons=decision.reasons if decision is not None else (),
        obligations=obligations_json(decision),
        revision=decision.revision if decision is not None else None,
        policy=decision.policy if decision is not None else None,
        engine=decision.engine if decision is not None else None,
        micros=decision.micros if decision is not None else None,
    )


def obligations_json(decision: Decision | None) -> bytes:
    """Return a decision's obligations as a JSON array, empty for none."""
    if decision is None or not decision.obligations:
        return b""
    return json.dumps(
        [dict(one) for one in decision.obligations], separators=(",", ":"), ensure_ascii=False, sort_keys=True
    ).encode()
