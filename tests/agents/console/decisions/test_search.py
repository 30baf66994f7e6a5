"""Filters of decisions: each field alone, and all that a page is asked for."""

from __future__ import annotations

import pytest

from sealbus.agents.console.decisions.rows import DecisionRow, shown_name
from sealbus.agents.console.decisions.search import DecisionFilter
from sealbus.bus.inspection.documents import shown_time
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

ROW = DecisionRow(
    sequence=7, record=b"r" * 32, time=1_800_000_000_123_456, message=b"m" * 16, digest=b"d" * 32, txn=b"t" * 16,
    action="inventory.read", sender="shop", decider="inventory", user="alice", allow=False, reasons=("not_owner",),
    code="denied",
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ({"agent": "shop"}, {"agent": "planner"}),
        ({"agent": "inventory"}, {"agent": "shop-web"}),
        ({"user": "alice"}, {"user": "ali"}),
        ({"action": "inventory.read"}, {"action": "inventory"}),
        ({"reason": "not_owner"}, {"reason": "not"}),
        ({"reason": "denied"}, {"reason": "expired"}),
        ({"allow": False}, {"allow": True}),
        ({"since": ROW.time}, {"since": ROW.time + 1}),
        ({"until": ROW.time + 1}, {"until": ROW.time}),
        ({}, {"agent": "shop", "user": "bob"}),
    ],
)
def test_a_filter_matches_what_it_says(wanted: dict[str, object], other: dict[str, object]) -> None:
    assert DecisionFilter(**wanted).matches(ROW)  # type: ignore[arg-type]  # fields of a table
    assert not DecisionFilter(**other).matches(ROW)  # type: ignore[arg-type]


def test_a_row_goes_by_each_of_its_names() -> None:
    for name in (b"r" * 32, b"m" * 16, b"d" * 32, b"t" * 16):
        assert ROW.is_called(name)
    assert not ROW.is_called(b"x" * 16)


def test_a_row_without_a_message_says_how_many() -> None:
    counted = ROW._replace(message=b"", times=12).document()
    assert (counted["count"], counted["message"]) == (12, "")
    assert "count" not in ROW.document()


def test_names_and_times_are_shown_as_elsewhere() -> None:
    names = Names(TrustDomain("example.org"))
    assert shown_name(SpiffeId("spiffe://example.org/agent/shop"), names) == "shop"
    assert shown_name(SpiffeId("spiffe://partner.example/x"), names) == "spiffe://partner.example/x"
    assert shown_time(1_800_000_000_123_456) == "2027-01-15T08:00:00.123Z"
