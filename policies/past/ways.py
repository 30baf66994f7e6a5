"""Recorded decisions grouped into ways of deciding, with the smallest recorded input of each.

Two decisions were made in one way if the same rule was asked, the same lines of the policy were evaluated, and verdict, code
and reasons are equal. The policy is asked through an `Evaluate`, so nothing here knows an engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.backtest.recorded import NotReplayable, Recorded, RecordedDecision, changes_of
from sealbus.policies.bundle.check import DECISION
from sealbus.policies.decision.approval import APPROVAL
from sealbus.policies.decision.decision import Decision, parse_decision
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.request import completed_document

WAYS: Final = 1_000
"""Most ways that are kept, which bounds memory: a document has at most 65,536 bytes."""

Line: TypeAlias = "tuple[str, int]"
"""A file of the policy, and the number of a line from 1."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a rule answers about one document, as JSON values, and the lines of the policy that were evaluated."""

    answer: object
    lines: frozenset[Line]


Evaluate: TypeAlias = Callable[[str, InputDocument], Evaluation]
"""Asks a rule of the policy about a document. Raises `PolicyFailed` if the rule cannot be evaluated."""


class LeftOut(StrEnum):
    """Why a decision that can be made again is in no way of deciding."""

    CHANGED = "changed"
    """The policy decides otherwise than was recorded: another policy made the decision."""
    FAILED = "failed"
    """The policy fails on it, then and now. `opa test` takes a failure for undefined, so that no test can hold it."""
    TOO_MANY = "too_many"
    """There are more ways than are kept."""


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """One way of deciding. Ways have an order, in which the first are kept."""

    rule: str
    verdict: str
    code: str
    reasons: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """A document that was decided in some way, and the leaf of its record. The smallest comes first."""

    size: int
    document: InputDocument
    leaf: bytes


class Ways:
    """Collects ways of deciding: `add` each recorded decision, in any order, and read `examples`.

    `counts` has the number of decisions for each way that is kept, `left_out` the others by why they are left out.
    """

    def __init__(self, evaluate: Evaluate, *, most: int = WAYS) -> None:
        self._evaluate = evaluate
        self._most = most
        self._decided = 0
        self._left_out: Counter[str] = Counter()
        self.examples: dict[Way, Example] = {}
        self.counts: Counter[Way] = Counter()

    @property
    def left_out(self) -> Counter[str]:
        """Return the numbers of decisions that are in no kept way, by `NotReplayable` or `LeftOut`."""
        too_many = self._decided - self.counts.total()
        return self._left_out + Counter({str(LeftOut.TOO_MANY): too_many})

    def add(self, recorded: Recorded) -> None:
        """Make `recorded` again, and put it into its way, or count why that is impossible."""
        if not isinstance(recorded, RecordedDecision):
            self._left_out[NotReplayable.COUNTED] += recorded.count
            return
        document = recorded.question()
        if isinstance(document, NotReplayable):
            self._left_out[document] += 1
            return
        document = completed_document(document)
        rule = APPROVAL if recorded.of_approval else DECISION
        lines: frozenset[Line] = frozenset()
        decision: Decision | PolicyFailed
        try:
            evaluation = self._evaluate(rule, document)
            lines, decision = evaluation.lines, decision_of(evaluation)
        except PolicyFailed as error:
            decision = error
        if changes_of(recorded, decision):
            self._left_out[LeftOut.CHANGED] += 1
        elif not isinstance(decision, Decision):
            self._left_out[LeftOut.FAILED] += 1
        else:
            code = str(recorded.code or "")
            way = Way(rule, str(recorded.verdict), code, recorded.reasons, tuple(sorted(lines)))
            self._keep(way, Example(len(document), document, recorded.leaf))

    def _keep(self, way: Way, example: Example) -> None:
        self._decided += 1
        self.counts[way] += 1
        present = self.examples.get(way)
        self.examples[way] = example if present is None else min(present, example)
        if len(self.examples) > self._most:
            # The last way in the order goes. So the kept ones do not depend on the order of the log.
            last = max(self.examples)
            del self.examples[last]
            del self.counts[last]


def decision_of(evaluation: Evaluation) -> Decision:
    """Return the decision in an evaluation; raise `PolicyFailed` for any other answer."""
    return parse_decision(evaluation.answer, revision="", engine="", micros=0)
