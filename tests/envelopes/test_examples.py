"""The examples in the docstrings of packages run, and the error tree needs no cryptography."""

from __future__ import annotations

import doctest
import subprocess
import sys

import sealbus.envelopes
import sealbus.envelopes.log


def test_the_example_runs() -> None:
    result = doctest.testmod(sealbus.envelopes)
    assert result.attempted >= 18
    assert result.failed == 0


def test_the_example_of_the_log_runs() -> None:
    result = doctest.testmod(sealbus.envelopes.log)
    assert result.attempted >= 10
    assert result.failed == 0


def test_the_error_tree_does_not_load_the_cryptography() -> None:
    script = "import sys, sealbus.envelopes.errors; sys.exit(any(m.startswith('cryptography') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
