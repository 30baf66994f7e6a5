"""Decisions on answers: our own policy is asked about `<action>.reply` before an answer is returned to the caller.

This holds for replies, chunks and results of tasks (SPEC.md section 7). The decision's record is queued, not awaited. What is
read from a stream can be read again at no cost: each read is decided, and the same decision is recorded once, then counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sealbus.bus.audit.recorded_reads import RecordedReads, read_key
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.gate.authorizer import Authorizer, caller_for
from sealbus.bus.sending.answer import AnswerDenied
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.errors import AuditUnavailable, Code, SealbusError, SealError
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.policies.decision.decision import Decision, obligations_json, unknown_obligation
from sealbus.policies.decision.request import Request, input_document

__all__ = ["Received", "ReplyPolicy"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A verified answer to our request for `action`; `context` is the user on whose behalf we asked, if known."""

    action: str
    context: UserContext | None
    result: VerifiedResult
    place: CorePlace | StreamPlace


class ReplyPolicy:
    """Asks our own policy about answers, and records its decisions."""

    def __init__(
        self,
        *,
        authorizer: Authorizer,
        audit: AuditWriter,
        revocations: Callable[[], Revocations] = lambda: NONE_REVOKED,
        recorded: RecordedReads | None = None,
    ) -> None:
        self._authorizer = authorizer
        self._audit = audit
        self._revocations = revocations
        self._recorded = recorded if recorded is not None else RecordedReads()

    async def decide(self, received: Sequence[Received], *, now: int) -> list[SealbusError | None]:
        """Return for each answer, in order, why it may not be used: `Denied`, or why the policy could not decide.

        None means that the answer may be used. `now` (microseconds) is the time given to the policy.
        """
        refused: list[SealbusError | None] = [None] * len(received)
        asked: list[tuple[int, bytes]] = []
        for place, one in enumerate(received):
            try:
                asked.append((place, input_document(_question(one, now))))
            except SealbusError as error:
                refused[place] = error
        answers = await self._authorizer.decide([document for _, document in asked]) if asked else ()
        for (place, document), answer in zip(asked, answers, strict=True):
            one = received[place]
            why = refused[place] = _refusal(one, answer)
            try:
                key = self._key(one, answer, why)
                if key is not None and key in self._recorded and self._counted_again(one, why):
                    continue
                record = self._audit.recording.record(
                    _record(one, document, answer, why), one.result.header.to, one.result.body
                )
            except SealError as error:
                _log.error("a decision about an answer cannot be recorded: %s", error.detail)
                refused[place] = refused[place] or AuditUnavailable("the decision cannot be recorded")
                continue
            if key is None:
                await self._audit.note(record, about=one.result)
            else:
                self._recorded.add(key)
                await self._audit.note(record, about=one.result, lost=partial(self._recorded.forget, key))
        return refused

    def _counted_again(self, one: Received, why: SealbusError | None) -> bool:
        return self._audit.counted_again(one.result.header.iss, str(why.code) if why is not None else None)

    def _key(self, one: Received, answer: Decision | SealbusError, why: SealbusError | None) -> bytes | None:
        """Return what names a decision, so that every other one is recorded anew; `None` for what can be read only once."""
        if not isinstance(one.place, StreamPlace):
            return None
        decision = answer if isinstance(answer, Decision) else None
        return read_key(
            one.result.header.digest,
            one.context,
            revision=(decision.revision or "") if decision is not None else "",
            serial=self._revocations().serial,
            code=str(why.code) if why is not None else "",
            reasons=decision.reasons if decision is not None else (),
        )


def _refusal(one: Received, answer: Decision | SealbusError) -> SealbusError | None:
    """Return why an answer may not be used, or `None` if it may."""
    if not isinstance(answer, Decision):
        return answer
    if answer.allow is not True:
        return AnswerDenied(f"our policy denies the answer to {one.action}", answer.reasons)
    if unknown_obligation(answer.obligations, frozenset()) is not None:
        return AnswerDenied(
            f"our policy puts an obligation on the answer to {one.action}", code=Code.OBLIGATION_UNKNOWN
        )
    return None


def _question(one: Received, now: int) -> Request:
    header = one.result.header
    return Request(
        caller=caller_for(header.iss, one.context),
        action=f"{one.action}.reply",
        time=now,
        nats_subject=header.to,
        kind=header.kind.value,
        message_id=header.id.hex(),
    )


def _record(
    one: Received, document: bytes, answer: Decision | SealbusError, error: SealbusError | None
) -> DecisionRecord:
    decision = answer if isinstance(answer, Decision) else None
    code = error.code if error is not None else None
    return DecisionRecord(
        header=one.result.header.raw,
        proof=one.result.proof,
        action=f"{one.action}.reply",
        place=one.place,
        delivery=1,
        allow=code is None,
        code=code,
        input=document,
        reasons=decision.reasons if decision is not None else (),
        obligations=obligations_json(decision),
        revision=decision.revision if decision is not None else None,
        policy=decision.policy if decision is not None else None,
        engine=decision.engine if decision is not None else None,
        micros=decision.micros if decision is not None else None,
    )
