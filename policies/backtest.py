"""What another policy would have decided: recorded inputs asked again, in batches, and compared.

::

    async with open_policy(Path("candidate")) as engine:
        report = await backtest(decisions, engine)
    report.changes[Change.DENY_TO_ALLOW]        # the risk: what was denied and would be handled

`reproduce` asks each decision of its own archived policy instead: whatever differs there contradicts the log. Memory
stays what a few batches take, however long the log is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from sealbus.envelopes.errors import PolicyUnavailable
from sealbus.policies.archived_policies import ArchivedPolicies
from sealbus.policies.backtest_report import BacktestReport
from sealbus.policies.documents import InputDocument
from sealbus.policies.engine import PolicyEngine
from sealbus.policies.recorded import NotReplayable, RecordedDecision, RecordedSource

__all__ = ["BATCH", "WAITING", "backtest", "reproduce"]

BATCH: Final = 512
"""Decisions asked about together."""
WAITING: Final = 4_096
"""Decisions of several revisions that wait for their batch: policies change over gradually, and engines are few."""

_Asked: TypeAlias = "tuple[RecordedDecision, InputDocument]"


async def backtest(source: RecordedSource, engine: PolicyEngine, *, batch: int = BATCH) -> BacktestReport:
    """Ask `engine`, which is entered, about every decision of `source` that can be made again; return what differs.

    Raises what `source` raises.
    """
    report = BacktestReport()
    asked: list[_Asked] = []
    async for recorded in source:
        document = report.question(recorded)
        if document is not None and isinstance(recorded, RecordedDecision):
            asked.append((recorded, document))
        if len(asked) == batch:
            await _ask(asked, engine, report)
            asked = []
    await _ask(asked, engine, report)
    return report


async def reproduce(source: RecordedSource, policies: ArchivedPolicies, *, batch: int = BATCH) -> BacktestReport:
    """Ask each decision's own policy, by its recorded revision; return what does not come out as recorded.

    A decision whose revision `policies` do not have is counted as not replayable. Raises what `source` raises.
    """
    report = BacktestReport()
    asked: dict[str, list[_Asked]] = {}
    waiting = 0
    async for recorded in source:
        document = report.question(recorded)
        if document is None or not isinstance(recorded, RecordedDecision):
            continue
        if not policies.has(recorded.revision):
            report.not_replayable[NotReplayable.NO_BUNDLE] += 1
            continue
        asked.setdefault(recorded.revision, []).append((recorded, document))
        waiting += 1
        if len(asked[recorded.revision]) == batch or waiting == WAITING:
            revision = max(asked, key=lambda one: len(asked[one]))
            several = asked.pop(revision)
            waiting -= len(several)
            await _ask_archived(several, revision, policies, report)
    for revision, several in asked.items():
        await _ask_archived(several, revision, policies, report)
    return report


async def _ask_archived(
    asked: Sequence[_Asked], revision: str, policies: ArchivedPolicies, report: BacktestReport
) -> None:
    engine = await policies.engine(revision)
    if engine is not None:
        await _ask(asked, engine, report)
        return
    report.not_replayable[NotReplayable.NO_BUNDLE] += len(asked)


async def _ask(asked: Sequence[_Asked], engine: PolicyEngine, report: BacktestReport) -> None:
    answers = await engine.decide([document for _, document in asked]) if asked else ()
    for (recorded, _), answer in zip(asked, answers, strict=True):
        if isinstance(answer, PolicyUnavailable):
            report.unanswered += 1
        else:
            report.compare(recorded, answer)
