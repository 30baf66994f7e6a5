"""Say how the runs of `make test` came out together: how long they took, what they counted, and what was skipped and why.

Usage: report_tests.py RUNS BEGUN. RUNS is the file that `tests/support/run_summary.py` writes, BEGUN is seconds since 1970.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def report(lines: Iterable[str], *, seconds: int) -> str:
    """Return the report about the runs in `lines`, one JSON object each, which took `seconds` together."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for line in lines:
        run = json.loads(line)
        counts.update(run["counts"])
        skipped.update(run["skipped"])
    total = ", ".join(f"{number:,} {kind}" for kind, number in counts.items() if number or kind in ("passed", "failed"))
    took = f"{seconds // 60} min {seconds % 60} s"
    return "\n".join(
        [
            f"tests took {took}: {total or 'none ran'}",
            *(f"  {number} skipped: {why}" for why, number in skipped.most_common()),
        ]
    )


def main(runs: str, begun: str) -> None:
    """Print the report."""
    file = Path(runs)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    sys.stdout.write(report(lines, seconds=round(time.time() - float(begun))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
