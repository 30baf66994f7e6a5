"""The end of `make test`: what several runs of pytest counted and skipped, and how long they took."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from support.run_summary import RUNS

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_passes(number):
    pass

@pytest.mark.skip(reason="there is no opa")
@pytest.mark.parametrize("number", range(2))
def test_needs_opa(number):
    raise AssertionError

def test_finds_out_later():
    pytest.skip("there is no chromium")

def test_fails():
    raise AssertionError
"""


def run(file: Path, runs: Path, *options: str) -> int:
    """Run pytest on `file` with the plugin, and return its exit code."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "support.run_summary",
            "--rootdir",
            str(file.parent),
            *options,
            str(file),
        ],
        env={**os.environ, RUNS: str(runs), "PYTHONPATH": str(ROOT / "tests")},
        cwd=file.parent,
        capture_output=True,
        check=False,
        timeout=300,
    ).returncode


def reported(runs: Path, *, begun: float) -> list[str]:
    """Return the lines of the report."""
    script = ROOT / "scripts" / "report_tests.py"
    done = subprocess.run(
        [sys.executable, str(script), str(runs), str(begun)], capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout.splitlines()


def test_all_runs_are_counted_together_with_every_reason(tmp_path: Path) -> None:
    file, runs = tmp_path / "test_some.py", tmp_path / "runs"
    file.write_text(TESTS)
    assert run(file, runs) == 1
    assert run(file, runs, "-n", "1") == 1
    first, second = [json.loads(line) for line in runs.read_text().splitlines()]
    assert first == second
    line, *skipped = reported(runs, begun=time.time() - 3_725)
    assert line.startswith("tests took 62 min ")
    assert line.endswith(": 6 passed, 2 failed, 6 skipped")
    assert skipped == ["  4 skipped: there is no opa", "  2 skipped: there is no chromium"]


def test_where_nothing_ran_that_is_said(tmp_path: Path) -> None:
    assert reported(tmp_path / "runs", begun=time.time())[0].endswith(": none ran")


def test_without_a_place_for_it_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text("def test_passes():\n    pass\n")
    environment = {name: value for name, value in os.environ.items() if name != RUNS}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "support.run_summary", "--rootdir", str(tmp_path), str(file)],
        env={**environment, "PYTHONPATH": str(ROOT / "tests")},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert {one.name for one in tmp_path.iterdir()} <= {"test_some.py", "__pycache__", ".pytest_cache"}
