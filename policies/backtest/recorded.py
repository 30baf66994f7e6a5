"""What a log says was decided, as a backtest needs it, and how a decision made now differs from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, TypeAlias

from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.policies.decision.decision import OBLIGATION_NESTING, Decision, obligations_json, unknown_obligation
from sealbus.policies.decision.documents import InputDocument, canonical, checked_document
from sealbus.policies.decision.engine import Answer

__all__ = [
    "RISKS",
    "Change",
    "CountedDenials",
    "NotReplayable",
    "Recorded",
    "RecordedDecision",
    "RecordedSource",
    "Verdict",
    "changes_of",
    "verdict_of",
]

_NOT_ASKED: Final = frozenset({Code.BAD_BODY, Code.RESOURCE_NOT_FOUND, Code.RESOURCE_UNAVAILABLE})


class Verdict(StrEnum):
    """What a policy said about one document; `error` is anything that is no decision, and allows nothing."""

    ALLOW = "allow"
    DENY = "deny"
    ERROR = "error"


class NotReplayable(StrEnum):
    """Why a recorded decision cannot be made again."""

    NOT_ASKED = "not_asked"
    """The message never came to the policy: its body was bad, or its resource not there."""
    UNANSWERED = "unanswered"
    """The engine did not answer (`policy_unavailable`): there is nothing to compare with."""
    NO_INPUT = "no_input"
    """No input document could be made."""
    REDACTED = "redacted"
    """A part of the input document was taken out before it was recorded."""
    BAD_INPUT = "bad_input"
    """The recorded input is no document that an engine may be given, so that no engine was given it."""
    COUNTED = "counted"
    """A denial beyond its sender's budget: counted, and not recorded one by one."""
    NO_BUNDLE = "no_bundle"
    """The policy bundle of the recorded revision is not at hand, or is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """One verified decision record: what the policy was asked and what it said.

    `sequence` and `time` (microseconds) are those of the audit message that holds it, `leaf` names the record there;
    `caller` is who sealed the decided message. `obligations` is a JSON array, empty for none.
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
        """Take what a backtest needs out of a record that its reader has verified."""
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
        """What the policy said at the time; every failure is an error, whoever failed."""
        if self.code is None or self.code is Code.OBLIGATION_UNKNOWN:
            return Verdict.ALLOW
        return Verdict.DENY if self.code is Code.DENIED else Verdict.ERROR

    def question(self) -> InputDocument | NotReplayable:
        """Return the document to ask an engine about, or why there is nothing to ask.

        A decision can be made again where the policy was asked and answered: it allowed, it denied, or its answer was no
        decision (`policy_error`).
        """
        if self.code in _NOT_ASKED:
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
    """Denials of one caller in one minute that were only counted: they stand in the log without their inputs."""

    caller: str
    count: int


Recorded: TypeAlias = RecordedDecision | CountedDenials

RecordedSource: TypeAlias = AsyncIterator[Recorded]
"""Where a backtest reads from, in the order of the log. Verifying is the source's own part: it yields what holds."""


class Change(StrEnum):
    """One way in which a decision differs from the recorded one, the riskiest first."""

    DENY_TO_ALLOW = "deny-to-allow"
    ERROR_TO_ALLOW = "error-to-allow"
    """The recorded policy failed on it, so that nothing was handled; now it is allowed."""
    ALLOW_TO_DENY = "allow-to-deny"
    ALLOW_TO_ERROR = "allow-to-error"
    DENY_TO_ERROR = "deny-to-error"
    ERROR_TO_DENY = "error-to-deny"
    REASONS = "reasons"
    """The same verdict for other reasons."""
    OBLIGATIONS = "obligations"
    """The same verdict with other obligations."""


RISKS: Final = frozenset({Change.DENY_TO_ALLOW, Change.ERROR_TO_ALLOW})
"""What was not handled then and would be now."""

_VERDICTS: Final = {(then, now): f"{then}-to-{now}" for then in Verdict for now in Verdict if then is not now}
_TURNED: Final = {pair: Change(name) for pair, name in _VERDICTS.items()}


def verdict_of(answer: Answer) -> Verdict:
    """Return the verdict that an engine's answer is."""
    if not isinstance(answer, Decision):
        return Verdict.ERROR
    return Verdict.ALLOW if answer.allow is True else Verdict.DENY


def changes_of(recorded: RecordedDecision, answer: Answer) -> tuple[Change, ...]:
    """Return how `answer` differs from what was recorded about the same document; empty where it does not.

    A turned verdict is one change, whatever else changed with it. Reasons are compared in their order, obligations as
    JSON values. Two errors are the same: an error's text is not recorded.
    """
    then, now = recorded.verdict, verdict_of(answer)
    if then is not now:
        return (_TURNED[then, now],)
    if not isinstance(answer, Decision):
        return ()
    if recorded.code is Code.OBLIGATION_UNKNOWN and (
        unknown_obligation(answer.obligations, frozenset()) is None or not _obliges(recorded, answer)
    ):
        # It was allowed, and not handled for what it obliged to: without that it would be.
        return (Change.DENY_TO_ALLOW,)
    reasons = (Change.REASONS,) if answer.reasons != recorded.reasons else ()
    return reasons if _obliges(recorded, answer) else (*reasons, Change.OBLIGATIONS)


def _obliges(recorded: RecordedDecision, answer: Decision) -> bool:
    now = obligations_json(answer)
    return now == recorded.obligations or now == _again(recorded.obligations)


def _again(recorded: bytes) -> bytes | None:
    """Return recorded obligations as `obligations_json` writes them; None for what no policy can have answered."""
    try:
        # Strict parsing is for objects: more than the one name means that the bytes were no JSON value.
        document = parse_object(b'{"all":' + recorded + b"}", depth=OBLIGATION_NESTING + 3)
        if document.keys() != {"all"}:
            return None
        return canonical(document["all"]) if document["all"] != [] else b""
    except ValueError:
        return None
