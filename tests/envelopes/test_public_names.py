"""What `sealbus.envelopes` offers: the list is pinned, every name is there, and its example runs."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

import sealbus.envelopes
import sealbus.envelopes.log
from sealbus.envelopes import errors
from sealbus.envelopes.message import seal
from sealbus.envelopes.trust import spiffe_id


def test_every_public_name_is_there_and_no_other() -> None:
    for name in sealbus.envelopes.__all__:
        assert getattr(sealbus.envelopes, name) is not None
    assert sorted(sealbus.envelopes.__all__) == sorted(sealbus.envelopes._HOME_OF)
    assert sealbus.envelopes.SealbusError is errors.SealbusError
    assert sealbus.envelopes.SpiffeId is spiffe_id.SpiffeId
    assert callable(seal.seal)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sealbus.envelopes.nonsense  # noqa: B018  # looking it up is the test


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
