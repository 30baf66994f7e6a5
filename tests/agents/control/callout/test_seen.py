"""Requests that were answered are not answered again while they are fresh."""

from __future__ import annotations

import pytest

from sealbus.agents.control.callout.responder import SeenRequests
from sealbus.envelopes.errors import Code, ConnectRefused
from sealbus.envelopes.limits import SECOND

NOW = 1_700_000_000 * SECOND


def test_a_copy_is_refused() -> None:
    seen = SeenRequests()
    seen.take_request("U1", expires=1_700_000_002, now=NOW)
    seen.take_request("U2", expires=1_700_000_002, now=NOW)
    with pytest.raises(ConnectRefused) as caught:
        seen.take_request("U1", expires=1_700_000_002, now=NOW)
    assert caught.value.code is Code.REPLAYED


def test_memory_is_bounded_and_what_is_stale_makes_room() -> None:
    seen = SeenRequests(2)
    seen.take_request("U1", expires=1_700_000_002, now=NOW)
    seen.take_request("U2", expires=1_700_000_060, now=NOW)
    with pytest.raises(ConnectRefused) as caught:
        seen.take_request("U3", expires=1_700_000_060, now=NOW)
    assert caught.value.code is Code.OVERLOADED
    later = NOW + 8 * SECOND
    seen.take_request("U3", expires=1_700_000_060, now=later)
    with pytest.raises(ConnectRefused) as caught:
        seen.take_request("U2", expires=1_700_000_060, now=later)
    assert caught.value.code is Code.REPLAYED


def test_a_copy_is_remembered_as_long_as_it_would_be_taken() -> None:
    seen = SeenRequests(1)
    seen.take_request("U1", expires=1_700_000_002, now=NOW)
    with pytest.raises(ConnectRefused) as caught:
        seen.take_request("U2", expires=1_700_000_060, now=NOW + 7 * SECOND)
    assert caught.value.code is Code.OVERLOADED
