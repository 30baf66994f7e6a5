"""Recorded decisions as a backtest needs them, and how a new decision differs from a recorded one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, TypeAlias

from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.bundle.revocations import REVOCATIONS
from sealbus.policies.decision.approval import APPROVE, is_question
from sealbus.policies.decision.decision import OBLIGATION_NESTING, Decision, obligations_json, unknown_obligation
from sealbus.policies.decision.documents import InputDocument, canonical, checked_document
from sealbus.policies.decision.engine import Answer

_NOT_ASKED: Final = frozenset(
    {
        Code.BAD_BODY,
        Code.RESOURCE_NOT_FOUND,
        Code.RESOURCE_UNAVAILABLE,
        Code.APPROVAL_FOREIGN,
        Code.APPROVAL_CLOSED,
        Code.APPROVAL_SELF,
        Code.APPROVAL_REPEATED,
        Code.APPROVAL_WEAK,
    }
)


class Verdict(StrEnum):
    """A policy's verdict on one document. `error` is any answer that is not a decision; it allows nothing."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class NotReplayable(StrEnum):
    """Why a recorded decision cannot be made again."""

    NOT_ASKED = "not_asked"
    """The message never reached the policy: its body was bad, its resource not found, or its user revoked."""
    UNANSWERED = "unanswered"
    """The engine did not answer (`policy_unavailable`), so there is no decision to compare with."""
    NO_INPUT = "no_input"
    """No input document could be made."""
    REDACTED = "redacted"
    """A part of the input document was redacted before it was recorded."""
    BAD_INPUT = "bad_input"
    """The recorded input is not a valid input document, so no engine can have decided on it."""
    COUNTED = "counted"
    """A denial beyond its sender's budget was only counted, not recorded."""
    NO_BUNDLE = "no_bundle"
    """The policy bundle of the recorded revision is not available, or is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """One verified decision record: the policy's input and its answer.

    `sequence` and `time` (microseconds) are those of its audit message, in which `leaf` names the record. `caller` is the
    sender of the decided message. `obligations` is a JSON array, empty for none.
    """

    sequence: int
    time: int
    leaf: bytes
    recorder: str
    caller: str
    action: str
    code: str | None
    input: bytes | None
    redacted: bool
    reasons: tuple[str, ...]
    obligations: bytes
    revision: str
    engine: str
    micros: int | None

    @classmethod
    def of(cls, record: DecisionRecord, *, sequence: int, time: int, leaf: bytes, recorder: str, caller: str) -> Self:
        """Return the decision in a record that its reader has verified."""
        return cls(
            sequence=sequence,
            time=time,
            leaf=leaf,
            recorder=recorder,
            caller=caller,
            action=record.action,
            code=record.code,
            input=record.input,
            redacted=bool(record.redacted),
            reasons=record.reasons,
            obligations=record.obligations,
            revision=record.revision or "",
            engine=record.engine or "",
            micros=record.micros,
        )

    @property
    def verdict(self) -> Verdict:
        """The policy's recorded verdict. Every failure is an error, whatever failed."""
        if self.code is None or self.code is Code.OBLIGATION_UNKNOWN:
            return Verdict.ALLOW
        return Verdict.DENY if self.code is Code.DENIED else Verdict.ERROR

    @property
    def of_approval(self) -> bool:
        """Whether the rule for approvers made it, on a valid question (`question`)."""
        return self.action.endswith(APPROVE) and self.input is not None and is_question(self.input)

    def question(self) -> InputDocument | NotReplayable:
        """Return the document for an engine, or why there is none.

        A decision can be made again if the policy was asked and answered: it allowed, it denied, or its answer was not a
        decision (`policy_error`).
        """
        if self.code in _NOT_ASKED or self.engine == REVOCATIONS:
            return NotReplayable.NOT_ASKED
        if self.code is Code.POLICY_UNAVAILABLE:
            return NotReplayable.UNANSWERED
        if self.input is None:
            return NotReplayable.NO_INPUT
        if self.redacted:
            return NotReplayable.REDACTED
        try:
            return checked_document(self.input)
        except PolicyFailed:
            return NotReplayable.BAD_INPUT


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedDenials:
    """Denials of one caller in one minute that were only counted. The log does not have their inputs."""

    caller: str
    count: int


Recorded: TypeAlias = RecordedDecision | CountedDenials

RecordedSource: TypeAlias = AsyncIterator[Recorded]
"""The entries that a backtest reads, in the order of the log. The source yields only verified entries."""


class Change(StrEnum):
    """One way in which a decision differs from the recorded one, the riskiest first."""

    DENY_TO_ALLOW = "deny-to-allow"
    ERROR_TO_ALLOW = "error-to-allow"
    """The recorded policy failed, so that nothing was handled; now it is allowed."""
    ALLOW_TO_DENY = "allow-to-deny"
    ALLOW_TO_ERROR = "allow-to-error"
    DENY_TO_ERROR = "deny-to-error"
    ERROR_TO_DENY = "error-to-deny"
    REASONS = "reasons"
    """The same verdict for other reasons."""
    OBLIGATIONS = "obligations"
    """The same verdict with other obligations."""


RISKS: Final = frozenset({Change.DENY_TO_ALLOW, Change.ERROR_TO_ALLOW})
"""Changes by which a message is handled now that was not handled then."""

_VERDICTS: Final = {(then, now): f"{then}-to-{now}" for then in Verdict for now in Verdict if then is not now}
_TURNED: Final = {pair: Change(name) for pair, name in _VERDICTS.items()}


def verdict_of(answer: Answer) -> Verdict:
    """Return the verdict of an engine's answer."""
    if not isinstance(answer, Decision):
        return Verdict.ERROR
    return Verdict.ALLOW if answer.allow is True else Verdict.DENY


def changes_of(recorded: RecordedDecision, answer: Answer) -> tuple[Change, ...]:
    """Return how `answer` differs from the recorded decision on the same document; empty if it does not.

    A changed verdict is one change, whatever else changed with it. Reasons are compared in order, obligations as JSON
    values. Two errors are equal: an error's text is not recorded.
    """
    then, now = recorded.verdict, verdict_of(answer)
    if then is not now:
        return (_TURNED[then, now],)
    if not isinstance(answer, Decision):
        return ()
    if recorded.code is Code.OBLIGATION_UNKNOWN and (
        unknown_obligation(answer.obligations, frozenset()) is None or not _same_obligations(recorded, answer)
    ):
        # It was allowed, but not handled because of an obligation. Without this obligation it would be handled.
        return (Change.DENY_TO_ALLOW,)
    reasons = (Change.REASONS,) if answer.reasons != recorded.reasons else ()
    return reasons if _same_obligations(recorded, answer) else (*reasons, Change.OBLIGATIONS)


def _same_obligations(recorded: RecordedDecision, answer: Decision) -> bool:
    now = obligations_json(answer)
    return now == recorded.obligations or now == _canonical_obligations(recorded.obligations)


def _canonical_obligations(recorded: bytes) -> bytes | None:
    """Return recorded obligations as `obligations_json` writes them, or None if no policy can give such obligations."""
    try:
        # Strict parsing is for objects. A second name means that the bytes were not one JSON value.
        document = parse_object(b'{"all":' + recorded + b"}", depth=OBLIGATION_NESTING + 3)
        if document.keys() != {"all"}:
            return None
        return canonical(document["all"]) if document["all"] != [] else b""
    except ValueError:
        return None
