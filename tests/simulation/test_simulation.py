"""Seeds keep every promise; one seed is one history; each safeguard that is removed is missed, and a page shows how."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.planted import PLANTED, RARE
from simulation.seeds import HASH_SEED

TESTS = Path(__file__).parents[1]


def simulate(folder: Path, *options: str) -> tuple[int, str]:
    """Run the command in `folder`; return its exit status, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONHASHSEED": HASH_SEED}
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "--jobs", "1", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_every_promise_is_kept(tmp_path: Path) -> None:
    code, said = simulate(tmp_path, "--seeds", "300")
    assert code == 0, said
    found = re.search(r"^300 seeds, (\d+) steps", said, re.MULTILINE)
    assert found is not None, said
    assert int(found[1]) > 300 * 3_000


def test_a_seed_is_one_history(tmp_path: Path) -> None:
    pages = []
    for run in ("one", "two"):
        folder = tmp_path / run
        folder.mkdir()
        assert simulate(folder, "--seed", "7")[0] == 0
        pages.append(re.sub(r"[0-9a-f]{20,}", "", (folder / ".cache/simulation/seed-7.html").read_text()))
    assert pages[0] == pages[1]
    assert pages[0].count("<circle") > 20


@pytest.mark.parametrize("planted", sorted(PLANTED.keys() - RARE))
def test_a_safeguard_that_is_removed_is_missed(planted: str, tmp_path: Path) -> None:
    code, said = simulate(tmp_path, "--seeds", "60", "--planted", planted, "--tries", "5")
    assert code == 1, said
    [page] = (tmp_path / ".cache/simulation").iterdir()
    assert planted in page.read_text()
