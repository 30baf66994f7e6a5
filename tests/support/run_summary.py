"""What one run of pytest counted and skipped, kept in a file for the end of `make test`, which has several runs.

As a plugin it appends one line of JSON to the file that TEST_RUNS_FILE names. `scripts/report_tests.py` prints the file.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

__all__ = ["RUNS", "pytest_terminal_summary"]

RUNS = "TEST_RUNS_FILE"
_COUNTED = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Append the counts of this run, and each reason why tests were skipped with their number."""
    file = os.environ.get(RUNS)
    # A worker of xdist reports to the process that distributes tests, which counts them.
    if not file or hasattr(config, "workerinput"):
        return
    stats = terminalreporter.stats
    reasons = Counter(_reason(one) for one in stats.get("skipped", ()))
    run = {"counts": {kind: len(stats.get(kind, ())) for kind in _COUNTED}, "skipped": reasons}
    with Path(file).open("a", encoding="utf-8") as runs:
        runs.write(json.dumps(run) + "\n")


def _reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)
