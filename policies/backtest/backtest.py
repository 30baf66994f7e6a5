"""Backtests decide recorded inputs again, in batches, and compare the decisions.

::

    async with open_policy(Path("candidate")) as engine:
        report = await backtest(decisions, engine)
    report.changes[Change.DENY_TO_ALLOW]        # the risk: denied then, handled now

`reproduce` asks each decision's own archived policy instead. There any difference contradicts the log. Memory holds a few
batches, however long the log is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.recorded import NotReplayable, RecordedDecision, RecordedSource, changes_of
from sealbus.policies.backtest.report import BacktestReport
from sealbus.policies.decision.documents import InputDocument
from sealbus.policies.decision.engine import Answer, PolicyEngine
from sealbus.policies.decision.request import completed_document

BATCH: Final = 512
"""Decisions that are asked about together."""
WAITING: Final = 4_096
"""Most decisions that wait for the batch of their revision. A new policy spreads gradually, and few engines are open."""

OnContradiction: TypeAlias = Callable[[RecordedDecision, Sequence[str]], None]

_Question: TypeAlias = "tuple[RecordedDecision, InputDocument]"


async def backtest(source: RecordedSource, engine: PolicyEngine, *, batch: int = BATCH) -> BacktestReport:
    """Make every decision of `source` again that can be made, with the entered `engine`; return the differences.

    Documents from before a member was added are completed (`completed_document`).

    Raises what `source` raises.
    """
    report = BacktestReport()
    questions: list[_Question] = []
    async for recorded in source:
        document = report.count(recorded)
        if document is not None and isinstance(recorded, RecordedDecision):
            questions.append((recorded, completed_document(document)))
        if len(questions) == batch:
            await _ask(questions, engine, report)
            questions = []
    await _ask(questions, engine, report)
    return report


async def reproduce(
    source: RecordedSource,
    policies: ArchivedPolicies,
    *,
    batch: int = BATCH,
    on_contradiction: OnContradiction = lambda _recorded, _why: None,
) -> BacktestReport:
    """Ask each decision's own policy, by its recorded revision; return the differences from the records.

    A decision is counted as not replayable if `policies` do not have its revision. If a revision has several bundles, one
    of them must decide as recorded. `on_contradiction` is called with each decision that does not follow from its
    record, and how it differs. Raises what `source` raises.
    """
    report = BacktestReport()
    questions: dict[str, list[_Question]] = {}
    waiting = 0
    async for recorded in source:
        impossible = report.not_replayable[NotReplayable.BAD_INPUT]
        document = report.count(recorded)
        if not isinstance(recorded, RecordedDecision):
            continue
        if document is None:
            if report.not_replayable[NotReplayable.BAD_INPUT] != impossible:
                on_contradiction(recorded, (str(NotReplayable.BAD_INPUT),))
            continue
        if not policies.has(recorded.revision):
            report.not_replayable[NotReplayable.NO_BUNDLE] += 1
            continue
        questions.setdefault(recorded.revision, []).append((recorded, document))
        waiting += 1
        if len(questions[recorded.revision]) == batch or waiting == WAITING:
            revision = max(questions, key=lambda waiting_revision: len(questions[waiting_revision]))
            batched = questions.pop(revision)
            waiting -= len(batched)
            await _ask_archived(batched, revision, policies, report, on_contradiction)
    for revision, batched in questions.items():
        await _ask_archived(batched, revision, policies, report, on_contradiction)
    return report


async def _ask_archived(
    questions: Sequence[_Question],
    revision: str,
    policies: ArchivedPolicies,
    report: BacktestReport,
    on_contradiction: OnContradiction,
) -> None:
    answers: dict[int, Answer] = {}
    number = 0
    for _ in range(policies.count(revision)):
        engine = await policies.engine(revision, number)
        # After a refusal the next bundle has this number.
        number += engine is not None
        await _ask_again(questions, engine, answers)
    for at, (recorded, _) in enumerate(questions):
        match answers.get(at):
            case None:
                report.not_replayable[NotReplayable.NO_BUNDLE] += 1
            case PolicyUnavailable():
                report.unanswered += 1
            case answer:
                if changes := report.compare(recorded, answer):
                    on_contradiction(recorded, changes)


async def _ask_again(questions: Sequence[_Question], engine: PolicyEngine | None, answers: dict[int, Answer]) -> None:
    """Ask about the decisions that no bundle has yet made as recorded."""
    again = [at for at, (recorded, _) in enumerate(questions) if not _agrees(recorded, answers.get(at))]
    if engine is None or not again:
        return
    new_answers = await _ask_engine([questions[at] for at in again], engine)
    for at, answer in zip(again, new_answers, strict=True):
        # An unanswered question stays unknown, whatever another bundle answers.
        if at not in answers or isinstance(answer, PolicyUnavailable) or _agrees(questions[at][0], answer):
            answers[at] = answer


async def _ask_engine(questions: Sequence[_Question], engine: PolicyEngine) -> Sequence[Answer]:
    """Ask about each decision at the rule that made it."""
    alone = [recorded.of_approval for recorded, _ in questions]
    together = [document for (_, document), by_itself in zip(questions, alone, strict=True) if not by_itself]
    answers = iter(await engine.decide(together) if together else ())
    return [
        await engine.approve(document) if by_itself else next(answers)
        for (_, document), by_itself in zip(questions, alone, strict=True)
    ]


def _agrees(recorded: RecordedDecision, answer: Answer | None) -> bool:
    return answer is not None and not isinstance(answer, PolicyUnavailable) and not changes_of(recorded, answer)


async def _ask(questions: Sequence[_Question], engine: PolicyEngine, report: BacktestReport) -> None:
    answers = await _ask_engine(questions, engine)
    for (recorded, _), answer in zip(questions, answers, strict=True):
        if isinstance(answer, PolicyUnavailable):
            report.unanswered += 1
        else:
            report.compare(recorded, answer)
