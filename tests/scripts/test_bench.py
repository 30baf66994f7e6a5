"""`make bench` begins: its modules find what they use, as `python -m bench` starts them. Guards fail a run, goals do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("__init__", "__main__", "audit_verify", "console_client", "edge_client", "streams_client")
"""What runs when it is imported: the first imports nothing, the others are processes of their own."""
MODULES = sorted(file.stem for file in (ROOT / "bench").glob("*.py") if file.stem not in SCRIPTS)

ROUNDS = """
from bench.report import document
from bench.rounds import Rounds

rounds = Rounds()
for ours, bare in ((2.0, 1.0), (4.0, 1.0), (8.0, 4.0)):
    rounds.add("ours", ours, server=ours / 1e6)
    rounds.add("bare", bare, server=bare / 1e6)
for guard in (0.4, 0.6):
    figure = rounds.ratio("ours / bare", "ours", "bare", guard=guard, goal=0.9)
    print(figure.holds, *figure.cells[1:6], sep="|")
print(rounds.times("ours / bare", "ours", "bare", guard=1.9, goal=1.0).holds)
print(document({"part": [figure]}).splitlines()[-1])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_its_modules_find_what_they_use() -> None:
    done = run("-c", "; ".join(f"import bench.{module}" for module in MODULES))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_guard_holds_or_not_and_a_goal_is_only_said() -> None:
    done = run("-c", ROUNDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "True|0.50 x|0.38 - 0.50|>= 0.4|>= 0.9 (not yet)|2.33 x",
        "False|0.50 x|0.38 - 0.50|>= 0.6 (BROKEN)|>= 0.9 (not yet)|2.33 x",
        "False",
        "| ours / bare | 0.50 x | 0.38 - 0.50 | >= 0.6 (BROKEN) | >= 0.9 (not yet) | 2.33 x |  |",
    ]


def test_a_part_that_is_not_there_is_refused() -> None:
    done = run("-m", "bench", "gates")
    assert (done.returncode, "no such part: gates" in done.stderr) == (2, True)
