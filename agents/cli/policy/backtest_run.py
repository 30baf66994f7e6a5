"""Run the backtests of `sealbus policy backtest`, and print their results."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sealbus.agents.cli.output import note, print_table, progress_bar
from sealbus.agents.cli.policy.emitted_tests import EmittedTests, Emitter
from sealbus.bus.audit.trail import AuditEntry, AuditFilter, Finding, recorded_decisions
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.export.trust_root import Root
from sealbus.policies.backtest.archived_policies import ArchivedPolicies
from sealbus.policies.backtest.backtest import backtest, reproduce
from sealbus.policies.backtest.recorded import Change
from sealbus.policies.backtest.report import BacktestReport, Dimension, Latencies, Sample
from sealbus.policies.decision.engine import PolicyEngine
from sealbus.policies.engines.open import open_policy

FINDINGS_SHOWN = 20
"""Most findings that are printed; all are counted."""

_ERROR: Final = 1
_UNVERIFIED: Final = 4
_GROUPS_SHOWN: Final = 5
_GROUPS_PRINTED: Final = 100
"""Most values of each dimension that are shown in a terminal (above) and in JSON."""


async def run_backtest(
    entries: AsyncIterable[AuditEntry | Finding],
    *,
    policy: Path | None,
    bundles: Path | None,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
    digests: Set[bytes] | None = None,
    emit: Path | None = None,
) -> BacktestResult:
    """Ask `policy`, or without it each decision's own policy from `bundles`, about the decisions of `entries`.

    With `digests` only the bundles with these hashes count (`ArchivedPolicies`). With `policy` and `emit`, tests are written
    into this folder, which must be new or empty.
    """
    result = BacktestResult(limits=limits)

    def on_finding(finding: Finding) -> None:
        result.findings += 1
        if result.findings <= FINDINGS_SHOWN:
            note(f"{_place(finding)} DOES NOT VERIFY: {finding.code} at {finding.step}")

    def opening(file: Path) -> AbstractAsyncContextManager[PolicyEngine]:
        return open_policy(file, opa=opa)

    async with aclosing(recorded_decisions(entries, on_finding)) as decisions:
        if policy is not None:
            emitter = await Emitter.open(policy, emit) if emit is not None else None
            async with opening(policy) as engine:
                status = await engine.status()
                result.revision, result.engine = status.revision, status.engine
                source = decisions if emitter is None else emitter.collect(decisions)
                result.report = await backtest(source, engine)
            result.emitted = emitter.write() if emitter is not None else None
        elif bundles is not None:
            async with ArchivedPolicies(bundles, open_engine=opening, digests=digests) as archived:
                result.own_policies = True
                result.engine = "embedded" if opa is None else "sidecar"
                result.report = await reproduce(decisions, archived)
                for name, problem in archived.problems.items():
                    note(f"{name}: {problem}")
    return result


async def backtest_export(
    folder: Path,
    root: Root,
    wanted: AuditFilter,
    *,
    policy: Path | None,
    bundles: Path | None,
    opa: Path | None,
    limits: tuple[tuple[str, int], ...],
    emit: Path | None = None,
) -> BacktestResult:
    """Verify the export in `folder` with `root`, then run a backtest on its decisions.

    Without `policy` and `bundles`, each decision is checked against its own policy, from the bundles that the log names.
    """
    from sealbus.agents.evidence.decisions import POLICIES, decision_entries
    from sealbus.agents.evidence.files import FolderFiles
    from sealbus.agents.evidence.verify import verify_export

    files = FolderFiles(folder)
    with progress_bar("verifying") as progress:
        report = await asyncio.to_thread(lambda: verify_export(files, root, progress=progress))
    own, digests = bundles, None
    if policy is None and bundles is None:
        own, digests = folder / POLICIES, report.policies
    async with aclosing(decision_entries(files, root, report, wanted)) as entries:
        return await run_backtest(
            entries, policy=policy, bundles=own, opa=opa, limits=limits, digests=digests, emit=emit
        )


def _place(finding: Finding) -> str:
    # Anyone may have chosen a file name in an export, so it is printed escaped.
    place = ascii(finding.subject)[1:-1] if not finding.sequence else f"#{finding.sequence}"
    return f"{shown_time(finding.stored)} {place}" if finding.stored else place


@dataclass(slots=True, kw_only=True)
class BacktestResult:
    """The result of a backtest: the asked policy, the report, and the number of records that did not verify."""

    limits: Sequence[tuple[str, int]] = ()
    own_policies: bool = False
    """Whether each decision was made again by its own policy."""
    revision: str = ""
    engine: str = ""
    findings: int = 0
    report: BacktestReport = field(default_factory=BacktestReport)
    emitted: EmittedTests | None = None

    @property
    def failed(self) -> list[str]:
        """Describe the limits that are exceeded."""
        counted = self.report.counted()
        return [f"{name}: {counted[name]}, at most {most}" for name, most in self.limits if counted[name] > most]

    @property
    def exit_code(self) -> int:
        """Return the command's exit code."""
        if self.findings or (self.own_policies and self.report.contradictions):
            return _UNVERIFIED
        return _ERROR if self.failed or self.report.unanswered else 0


def as_document(result: BacktestResult) -> Mapping[str, object]:
    """Return a result as one JSON object; each part lists the risks first."""
    report = result.report
    return {
        "asked": "own" if result.own_policies else "candidate",
        "revision": result.revision,
        "engine": result.engine,
        "read": report.read,
        "compared": report.compared,
        "same": report.same,
        "unanswered": report.unanswered,
        "changes": {str(change): report.changes[change] for change in Change},
        "not_replayable": {str(why): count for why, count in sorted(report.not_replayable.items())},
        "groups": {
            str(change): {
                str(dimension): _most_common(report.groups[change][dimension], _GROUPS_PRINTED)
                for dimension in Dimension
            }
            for change in Change
            if change in report.groups
        },
        "samples": {
            str(change): [_sample(sample) for sample in report.samples[change]]
            for change in Change
            if change in report.samples
        },
        "micros": {
            "recorded": {engine: _latency(latencies) for engine, latencies in sorted(report.recorded_latency.items())},
            "now": _latency(report.latency),
        },
        "findings": result.findings,
        "tests": _emitted(result.emitted) if result.emitted is not None else None,
        "failed": result.failed,
        "exit_code": result.exit_code,
    }


def print_result(result: BacktestResult) -> None:
    """Print tables on stdout, the risks first, and the reasons for the exit code on stderr."""
    report = result.report
    policy = "its own policy" if result.own_policies else f"revision {result.revision}"
    rows = [(str(change), str(report.changes[change])) for change in Change]
    rows += [(f"not replayable: {why}", str(count)) for why, count in sorted(report.not_replayable.items())]
    rows += [("unanswered", str(report.unanswered))] if report.unanswered else []
    rows += [("same", str(report.same)), ("all", str(report.read))]
    print_table(f"recorded decisions against {policy}, {result.engine}", ("decisions", "number"), rows)
    for change in Change:
        if change in report.groups:
            _print_change(change, report.groups[change], report.samples[change])
    times = [(f"recorded, {engine}", latencies) for engine, latencies in sorted(report.recorded_latency.items())]
    times.append((f"now, {result.engine}", report.latency))
    print_table(
        "microseconds a decision",
        ("when", "mean", "half within", "99 % within"),
        [
            (name, f"{latencies.mean:.0f}", str(latencies.quantile(0.5)), str(latencies.quantile(0.99)))
            for name, latencies in times
            if latencies.count
        ],
    )
    if result.emitted is not None:
        _print_emitted(result.emitted)
    if result.findings:
        note(f"{result.findings} records do not verify and were not asked about")
    if result.own_policies and report.contradictions:
        note(f"{report.contradictions} decisions do not follow from their recorded input and policy")
    if report.unanswered:
        note(f"{report.unanswered} questions were not answered: nothing is known about their decisions")
    for text in result.failed:
        note(f"failed on {text}")


def _print_change(change: Change, groups: Mapping[Dimension, Counter[str]], samples: Sequence[Sample]) -> None:
    rows = [
        (str(dimension), value or "-", str(count))
        for dimension in Dimension
        for value, count in groups[dimension].most_common(_GROUPS_SHOWN)
    ]
    print_table(str(change), ("by", "value", "number"), rows)
    print_table(
        "",
        ("record", "time", "caller", "action", "on", "for", "then", "now"),
        [
            (
                f"#{sample.recorded.sequence}",
                shown_time(sample.recorded.time),
                sample.recorded.caller,
                sample.recorded.action,
                sample.resource,
                sample.user or "-",
                _verdict_text(str(sample.recorded.verdict), sample.recorded.reasons, sample.recorded.obligations, ""),
                _verdict_text(str(sample.verdict), sample.reasons, sample.obligations, sample.error),
            )
            for sample in samples
        ],
    )


def _print_emitted(emitted: EmittedTests) -> None:
    rows = [("tests", str(emitted.tests)), ("decisions that they stand for", str(emitted.decisions))]
    rows += [("ways of deciding that no test can hold", str(emitted.unwritable))] if emitted.unwritable else []
    rows += [(f"left out: {why}", str(count)) for why, count in emitted.left_out.items()]
    print_table(f"tests in {emitted.folder}", ("what", "number"), rows)


def _emitted(emitted: EmittedTests) -> Mapping[str, object]:
    return {
        "folder": str(emitted.folder),
        "files": list(emitted.files),
        "tests": emitted.tests,
        "decisions": emitted.decisions,
        "unwritable": emitted.unwritable,
        "left_out": dict(emitted.left_out),
    }


def _verdict_text(verdict: str, reasons: Sequence[str], obligations: bytes, error: str) -> str:
    return " ".join(part for part in (verdict, ", ".join(reasons), obligations.decode(errors="replace"), error) if part)


def _most_common(counter: Counter[str], most: int) -> list[Mapping[str, object]]:
    return [{"value": value, "count": count} for value, count in counter.most_common(most)]


def _sample(sample: Sample) -> Mapping[str, object]:
    recorded = sample.recorded
    return {
        "sequence": recorded.sequence,
        "time": shown_time(recorded.time),
        "record": recorded.leaf.hex(),
        "recorder": recorded.recorder,
        "caller": recorded.caller,
        "action": recorded.action,
        "resource": sample.resource,
        "user": sample.user,
        "then": {
            "verdict": str(recorded.verdict),
            "code": str(recorded.code) if recorded.code is not None else "",
            "reasons": list(recorded.reasons),
            "obligations": recorded.obligations.decode(errors="replace"),
            "revision": recorded.revision,
        },
        "now": {
            "verdict": str(sample.verdict),
            "reasons": list(sample.reasons),
            "obligations": sample.obligations.decode(),
            "error": sample.error,
        },
    }


def _latency(latencies: Latencies) -> Mapping[str, object]:
    return {
        "count": latencies.count,
        "mean": round(latencies.mean, 1),
        "half_within": latencies.quantile(0.5),
        "99_percent_within": latencies.quantile(0.99),
    }
