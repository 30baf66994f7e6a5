"""Decisions on answers: our own policy is asked about `<action>.reply` before an answer is returned to the caller.

This holds for replies, chunks and results of tasks (SPEC.md section 7). Records of these decisions are queued, not awaited.
A result in a stream can be read many times, as often as its reader likes. Each read is decided. One record is written for
the same message, user, session, client, policy, revocations and verdict; the same decision is then only counted (section 8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Final

from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.gate.authorizer import Authorizer, caller_for
from sealbus.bus.sending.answer import AnswerDenied
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.encoding.codec import Value, encode
from sealbus.envelopes.errors import AuditUnavailable, Code, SealbusError, SealError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.declaration import Declaration
from sealbus.envelopes.message.user_context import UserContext
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.trust.caches import BoundedMap
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations
from sealbus.policies.decision.decision import Decision, obligations_json, unknown_obligation
from sealbus.policies.decision.request import Request, input_document

_logger = logging.getLogger(__name__)

MOST: Final = 65_536
"""Decisions that are remembered, some 150 bytes each. The least recently used is forgotten, and recorded again."""


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
        most: int = MOST,
    ) -> None:
        self._authorizer = authorizer
        self._audit = audit
        self._revocations = revocations
        self._recorded: BoundedMap[bytes, bool] = BoundedMap(most)
        """The keys of decisions that have a record, or are about to have one."""

    async def decide(self, received: Sequence[Received], *, now: int) -> list[SealbusError | None]:
        """Return for each answer, in order, the error if it may not be used: `Denied`, or why the policy could not decide.

        `None` means that the answer may be used. `now` (microseconds) is the time given to the policy.
        """
        refusals: list[SealbusError | None] = [None] * len(received)
        questions: list[tuple[int, bytes]] = []
        for index, answer in enumerate(received):
            try:
                questions.append((index, input_document(_question(answer, now))))
            except SealbusError as error:
                refusals[index] = error
        outcomes = await self._authorizer.decide([document for _, document in questions]) if questions else ()
        for (index, document), outcome in zip(questions, outcomes, strict=True):
            answer = received[index]
            refusal = refusals[index] = _refusal(answer, outcome)
            header = answer.result.header
            try:
                key = self._key(answer, outcome, refusal)
                code = str(refusal.code) if refusal is not None else None
                if key is not None and self._recorded.get(key) and self._audit.counted_again(header.iss, code):
                    continue
                record = self._audit.recording.record(
                    _record(answer, document, outcome, refusal), header.to, answer.result.body
                )
            except SealError as error:
                _logger.error("a decision about an answer cannot be recorded: %s", error.detail)  # noqa: TRY400 - the detail says all
                refusals[index] = refusal or AuditUnavailable("the decision cannot be recorded")
                continue
            if key is None:
                await self._audit.note(record, about=answer.result)
            else:
                self._recorded.put(key, True)
                await self._audit.note(record, about=answer.result, lost=partial(self._recorded.forget, key))
        return refusals

    def _key(self, received: Received, outcome: Decision | SealbusError, refusal: SealbusError | None) -> bytes | None:
        """Return the key under which a decision is recorded once; `None` for an answer that can be read only once."""
        if not isinstance(received.place, StreamPlace):
            return None
        decision = outcome if isinstance(outcome, Decision) else None
        return read_key(
            received.result.header.digest,
            received.context,
            revision=(decision.revision or "") if decision is not None else "",
            serial=self._revocations().serial,
            code=str(refusal.code) if refusal is not None else "",
            reasons=decision.reasons if decision is not None else (),
        )


def _refusal(received: Received, outcome: Decision | SealbusError) -> SealbusError | None:
    """Return the error if an answer may not be used, or `None` if it may."""
    if not isinstance(outcome, Decision):
        return outcome
    if outcome.allow is not True:
        return AnswerDenied(f"our policy denies the answer to {received.action}", outcome.reasons)
    if unknown_obligation(outcome.obligations, frozenset()) is not None:
        return AnswerDenied(
            f"our policy puts an obligation on the answer to {received.action}", code=Code.OBLIGATION_UNKNOWN
        )
    return None


def _question(received: Received, now: int) -> Request:
    header = received.result.header
    return Request(
        caller=caller_for(
            header.iss, received.context, declared=Declaration.declared_in(header.ext) if header.ext else None
        ),
        action=f"{received.action}.reply",
        time=now,
        nats_subject=header.to,
        kind=header.kind.value,
        message_id=header.id.hex(),
    )


def _record(
    received: Received, document: bytes, outcome: Decision | SealbusError, error: SealbusError | None
) -> DecisionRecord:
    decision = outcome if isinstance(outcome, Decision) else None
    code = error.code if error is not None else None
    return DecisionRecord(
        header=received.result.header.raw,
        proof=received.result.proof,
        action=f"{received.action}.reply",
        place=received.place,
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


def read_key(
    digest: bytes, user: UserContext | None, *, revision: str, serial: int, code: str, reasons: tuple[str, ...] = ()
) -> bytes:
    """Return the key of a decision about the answer with H(header) `digest`, read for `user`.

    `revision` is the policy's, `serial` the revocations'. `code` is the verdict, empty if the read is allowed.
    """
    reader: list[Value] = []
    if user is not None:
        kind = user.typ.value if user.typ is not None else ""
        domain = user.dom.name if user.dom is not None else ""
        reader = [user.idp, user.sub, kind, domain, user.sid, user.cid]
    parts: list[Value] = [digest, reader, revision, serial, code, list(reasons)]
    return sha256(encode(parts, text_bytes=DEFAULT_LIMITS.spiffe_id_bytes)).digest()
