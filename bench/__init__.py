"""Figures with their limits; `python -m bench` prints all of them in one run."""

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
# What tests use to start servers and to make messages is used here, too.
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT / "deploy" / "local")]
