"""The report of a backtest: counts, groups, a few samples and latencies; its size does not grow with the log."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sealbus.policies.backtest.recorded import (
    RISKS,
    Change,
    CountedDenials,
    NotReplayable,
    Recorded,
    RecordedDecision,
    Verdict,
    changes_of,
    verdict_of,
)
from sealbus.policies.decision.decision import Decision, obligations_json
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.engine import Answer

_STEPS: Final = 8
"""Counters for each doubling, so that a quantile is at most an eighth too high."""

GROUPS: Final = 1_000
"""Most values of one dimension that are counted separately for one change. Later values count as `OTHERS`."""
OTHERS: Final = "(others)"
SAMPLES: Final = 10
"""Most decisions that are shown for each change: the first ones."""
ENGINES: Final = 8
"""Most engines whose recorded times are counted separately."""
_TEXT: Final = 256


class Latencies:
    """A histogram of microseconds."""

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0
        self._buckets: dict[int, int] = {}

    def add(self, micros: int) -> None:
        """Count one duration, a whole number from 0."""
        self.count += 1
        self._sum += micros
        bucket = _bucket(micros)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 if there are none."""
        return self._sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> int:
        """Return a bound for the `share` (over 0, up to 1) of all durations, at most 1/8 too high; 0 if there are none."""
        wanted = math.ceil(share * self.count)
        for bucket, count in sorted(self._buckets.items()):
            wanted -= count
            if wanted <= 0:
                return _most(bucket)
        return 0


def _bucket(micros: int) -> int:
    """Return the number of the counter for `micros`: small values have one each, larger ones share."""
    if micros < 2 * _STEPS:
        return micros
    doubling = micros.bit_length() - _STEPS.bit_length()
    return doubling * _STEPS + (micros >> doubling)


def _most(bucket: int) -> int:
    """Return the highest duration that is counted in `bucket`."""
    if bucket < 2 * _STEPS:
        return bucket
    doubling = bucket // _STEPS - 1
    return ((bucket - doubling * _STEPS + 1) << doubling) - 1


class Dimension(StrEnum):
    """A property by which changed decisions are grouped."""

    CALLER = "caller"
    ACTION = "action"
    RESOURCE_TYPE = "resource type"
    USER = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One changed decision, as recorded and as made now. `error` is the engine's text if it made no decision."""

    recorded: RecordedDecision
    resource: str
    user: str
    verdict: Verdict
    reasons: tuple[str, ...]
    obligations: bytes
    error: str


@dataclass(slots=True, kw_only=True)
class BacktestReport:
    """The report, filled by `count` and `compare`; everything in it is bounded.

    `read` counts decisions of the log, including those that the log only counts. `unanswered` counts questions that the
    backtest's engine did not answer, so their decisions are unknown.
    """

    read: int = 0
    compared: int = 0
    same: int = 0
    unanswered: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    not_replayable: Counter[NotReplayable] = field(default_factory=Counter)
    groups: dict[Change, dict[Dimension, Counter[str]]] = field(default_factory=dict)
    samples: dict[Change, list[Sample]] = field(default_factory=dict)
    recorded_latency: dict[str, Latencies] = field(default_factory=dict)
    """The recorded times, by the engine that decided then."""
    latency: Latencies = field(default_factory=Latencies)

    def count(self, recorded: Recorded) -> InputDocument | None:
        """Count the decisions of one log entry. Return its input document, or `None` if it cannot be replayed."""
        if isinstance(recorded, CountedDenials):
            self.read += recorded.count
            self.not_replayable[NotReplayable.COUNTED] += recorded.count
            return None
        self.read += 1
        question = recorded.question()
        if isinstance(question, NotReplayable):
            self.not_replayable[question] += 1
            return None
        return question

    def compare(self, recorded: RecordedDecision, answer: Answer) -> tuple[Change, ...]:
        """Compare `answer`, made now from the recorded document, with the recorded decision; count and return the changes."""
        self.compared += 1
        if recorded.micros is not None:
            engine = _counted_as(recorded.engine, self.recorded_latency, ENGINES)
            self.recorded_latency.setdefault(engine, Latencies()).add(recorded.micros)
        if isinstance(answer, Decision):
            self.latency.add(answer.micros)
        changes = changes_of(recorded, answer)
        if not changes:
            self.same += 1
            return ()
        sample = _sample(recorded, answer)
        for change in changes:
            self._count_change(change, recorded, sample)
        return changes

    @property
    def differing(self) -> int:
        """How many decisions differ in any way."""
        return self.compared - self.same

    @property
    def risks(self) -> int:
        """How many messages would be handled now that were not handled then."""
        return sum(self.changes[change] for change in RISKS)

    @property
    def contradictions(self) -> int:
        """How many records contradict their own input and policy, if this policy was asked."""
        return self.differing + self.not_replayable[NotReplayable.BAD_INPUT]

    def counted(self) -> Mapping[str, int]:
        """Return every count that may have a limit, by name."""
        turned_to_error = (Change.ALLOW_TO_ERROR, Change.DENY_TO_ERROR)
        return {
            **{str(change): self.changes[change] for change in Change},
            "risks": self.risks,
            "errors": sum(self.changes[change] for change in turned_to_error),
            "changed": self.differing,
            "not-replayable": self.not_replayable.total(),
            "unanswered": self.unanswered,
        }

    def _count_change(self, change: Change, recorded: RecordedDecision, sample: Sample) -> None:
        self.changes[change] += 1
        values = {
            Dimension.CALLER: recorded.caller,
            Dimension.ACTION: recorded.action,
            Dimension.RESOURCE_TYPE: sample.resource.partition(":")[0],
            Dimension.USER: sample.user,
        }
        groups = self.groups.setdefault(change, {dimension: Counter() for dimension in Dimension})
        for dimension, value in values.items():
            groups[dimension][_counted_as(value, groups[dimension], GROUPS)] += 1
        samples = self.samples.setdefault(change, [])
        if len(samples) < SAMPLES:
            samples.append(sample)


def _sample(recorded: RecordedDecision, answer: Answer) -> Sample:
    # An engine has decided on this document, so it is one well-formed JSON object.
    document = json.loads(recorded.input or b"{}")
    decision = answer if isinstance(answer, Decision) else None
    resource = f"{_text(document, 'resource', 'type')}:{_text(document, 'resource', 'id')}"
    return Sample(
        recorded=recorded,
        resource=resource,
        user=_text(document, "context", "user", "id"),
        verdict=verdict_of(answer),
        reasons=decision.reasons if decision is not None else (),
        obligations=obligations_json(decision),
        error="" if isinstance(answer, Decision) else answer.detail,
    )


def _counted_as(value: str, counted: Collection[str], most: int) -> str:
    return value if value in counted or len(counted) < most else OTHERS


def _text(document: object, *path: str) -> str:
    """Return the text at `path`, shortened; empty if there is no text."""
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document[:_TEXT] if isinstance(document, str) else ""
