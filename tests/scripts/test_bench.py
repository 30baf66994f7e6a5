"""`make bench` begins: its modules find what they use, as `python -m bench` starts them."""

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


@pytest.mark.slow
def test_its_modules_find_what_they_use() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", "; ".join(f"import bench.{module}" for module in MODULES)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
