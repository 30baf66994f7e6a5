"""What a log says was decided, as a backtest needs it: read from anywhere, asked of any engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, TypeAlias

from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.documents import InputDocument, checked_document

__all__ = ["CountedDenials", "NotReplayable", "Recorded", "RecordedDecision", "RecordedSource", "Verdict"]


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


_NOT_ASKED: Final = frozenset({Code.BAD_BODY, Code.RESOURCE_NOT_FOUND, Code.RESOURCE_UNAVAILABLE})


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
