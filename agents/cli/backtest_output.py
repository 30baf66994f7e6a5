"""What a backtest found, as tables for people and as one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sealbus.agents.cli.output import note, print_table, shown_time
from sealbus.policies.backtest_report import BacktestReport, Dimension, Sample
from sealbus.policies.changes import Change
from sealbus.policies.latencies import Latencies

__all__ = ["BacktestResult", "as_document", "print_result"]

_ERROR: Final = 1
_UNVERIFIED: Final = 4
_GROUPS_SHOWN: Final = 5
_GROUPS_PRINTED: Final = 100
"""Of each dimension: on a screen, and in JSON."""


@dataclass(slots=True, kw_only=True)
class BacktestResult:
    """One finished backtest: what was asked, what came out, how many records did not verify."""

    limits: Sequence[tuple[str, int]] = ()
    own_policies: bool = False
    """Whether each decision was made again by its own policy."""
    revision: str = ""
    engine: str = ""
    findings: int = 0
    report: BacktestReport = field(default_factory=BacktestReport)

    @property
    def failed(self) -> list[str]:
        """Which limits are exceeded, in words."""
        counted = self.report.counted()
        return [f"{name}: {counted[name]}, at most {most}" for name, most in self.limits if counted[name] > most]

    @property
    def exit_code(self) -> int:
        """Return what the command exits with."""
        if self.findings or (self.own_policies and self.report.contradictions):
            return _UNVERIFIED
        return _ERROR if self.failed or self.report.unanswered else 0


def as_document(result: BacktestResult) -> Mapping[str, object]:
    """Return a result as one JSON object; the risks come first in each part."""
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
                str(dimension): _most(report.groups[change][dimension], _GROUPS_PRINTED) for dimension in Dimension
            }
            for change in Change
            if change in report.groups
        },
        "samples": {
            str(change): [_sample(one) for one in report.samples[change]]
            for change in Change
            if change in report.samples
        },
        "micros": {
            "recorded": {engine: _latency(one) for engine, one in sorted(report.recorded_latency.items())},
            "now": _latency(report.latency),
        },
        "findings": result.findings,
        "failed": result.failed,
        "exit_code": result.exit_code,
    }


def print_result(result: BacktestResult) -> None:
    """Print tables on stdout, the risk first, and what the exit code says on stderr."""
    report = result.report
    asked = "its own policy" if result.own_policies else f"revision {result.revision}"
    rows = [(str(change), str(report.changes[change])) for change in Change]
    rows += [(f"not replayable: {why}", str(count)) for why, count in sorted(report.not_replayable.items())]
    rows += [("unanswered", str(report.unanswered))] if report.unanswered else []
    rows += [("same", str(report.same)), ("all", str(report.read))]
    print_table(f"recorded decisions against {asked}, {result.engine}", ("decisions", "number"), rows)
    for change in Change:
        if change in report.groups:
            _print_change(change, report.groups[change], report.samples[change])
    times = [(f"recorded, {engine}", one) for engine, one in sorted(report.recorded_latency.items())]
    times.append((f"now, {result.engine}", report.latency))
    print_table(
        "microseconds a decision",
        ("when", "mean", "half within", "99 % within"),
        [
            (name, f"{one.mean:.0f}", str(one.quantile(0.5)), str(one.quantile(0.99)))
            for name, one in times
            if one.count
        ],
    )
    if result.findings:
        note(f"{result.findings} records do not verify and were not asked about")
    if result.own_policies and report.contradictions:
        note(f"{report.contradictions} decisions do not follow from their recorded input and policy")
    if report.unanswered:
        note(f"{report.unanswered} questions were not answered: nothing is known about these")
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
                f"#{one.recorded.sequence}",
                shown_time(one.recorded.time),
                one.recorded.caller,
                one.recorded.action,
                one.resource,
                one.user or "-",
                _said(str(one.recorded.verdict), one.recorded.reasons, one.recorded.obligations, ""),
                _said(str(one.verdict), one.reasons, one.obligations, one.error),
            )
            for one in samples
        ],
    )


def _said(verdict: str, reasons: Sequence[str], obligations: bytes, error: str) -> str:
    return " ".join(part for part in (verdict, ", ".join(reasons), obligations.decode(errors="replace"), error) if part)


def _most(counter: Counter[str], most: int) -> list[Mapping[str, object]]:
    return [{"value": value, "count": count} for value, count in counter.most_common(most)]


def _sample(one: Sample) -> Mapping[str, object]:
    recorded = one.recorded
    return {
        "sequence": recorded.sequence,
        "time": shown_time(recorded.time),
        "record": recorded.leaf.hex(),
        "recorder": recorded.recorder,
        "caller": recorded.caller,
        "action": recorded.action,
        "resource": one.resource,
        "user": one.user,
        "then": {
            "verdict": str(recorded.verdict),
            "code": str(recorded.code) if recorded.code is not None else "",
            "reasons": list(recorded.reasons),
            "obligations": recorded.obligations.decode(errors="replace"),
            "revision": recorded.revision,
        },
        "now": {
            "verdict": str(one.verdict),
            "reasons": list(one.reasons),
            "obligations": one.obligations.decode(),
            "error": one.error,
        },
    }


def _latency(one: Latencies) -> Mapping[str, object]:
    return {
        "count": one.count,
        "mean": round(one.mean, 1),
        "half_within": one.quantile(0.5),
        "99_percent_within": one.quantile(0.99),
    }
