"""Final answers to a publish: each is for the sender an error of the bus, with a code that says what it was."""

from __future__ import annotations

import pytest

from sealbus.bus.ports import DuplicateFirstAttempt, NotPermitted, Overloaded, StreamRefused
from sealbus.envelopes.errors import BusUnavailable, Code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StreamRefused("sealed", 10_109), Code.BUS_UNAVAILABLE),
        (Overloaded("full"), Code.OVERLOADED),
        (NotPermitted("task.a.b"), Code.BUS_UNAVAILABLE),
        (DuplicateFirstAttempt("taken"), Code.REPLAYED),
    ],
)
def test_codes(error: BusUnavailable, code: Code) -> None:
    assert error.code is code


def test_a_stream_says_which_error_it_was() -> None:
    assert StreamRefused("full", 10_077).err_code == 10_077
