"""The list takes up what is reported, and lets go of what is over."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import ValidationError

from sealbus.agents.runtime.policy.revocation import AHEAD, KEPT, Revocation, listed_with
from sealbus.envelopes.limits import SECOND
from sealbus.policies.decision.documents import DataDocument

IDP, OTHER = "https://idp.example", "https://other.example"
NOW = 10 * KEPT


def one(kind: Literal["user", "session"], name: str, at: int, issuer: str = IDP) -> Revocation:
    return Revocation(kind=kind, issuer=issuer, id=name, at=at)


def test_kinds_and_issuers_are_kept_apart() -> None:
    more = [one("user", "a", NOW), one("session", "a", NOW - 1), one("user", "a", NOW - 2, OTHER)]
    assert listed_with({}, more, now=NOW) == {
        "users": {IDP: {"a": NOW}, OTHER: {"a": NOW - 2}},
        "sessions": {IDP: {"a": NOW - 1}},
    }


def test_of_two_times_the_later_counts_and_a_repetition_changes_nothing() -> None:
    listed: DataDocument = {"users": {IDP: {"a": NOW}}}
    assert listed_with(listed, [one("user", "a", NOW - 1)], now=NOW) == listed
    assert listed_with(listed, [one("user", "a", NOW)] * 3, now=NOW) == listed
    assert listed_with(listed, [one("user", "a", NOW + 1)], now=NOW + 1) == {"users": {IDP: {"a": NOW + 1}}}
    assert listed == {"users": {IDP: {"a": NOW}}}


def test_a_time_to_come_is_no_further_ahead_than_clocks_may_be() -> None:
    # A provider's clock is ahead of ours: a login just before the event must not be later than what is listed.
    for ahead, counts in ((4 * SECOND, 4 * SECOND), (AHEAD, AHEAD), (AHEAD + 1, AHEAD), (KEPT, AHEAD)):
        listed = listed_with({}, [one("user", "a", NOW + ahead)], now=NOW)
        assert listed == {"users": {IDP: {"a": NOW + counts}}}


def test_users_and_sessions_end_and_clients_do_not() -> None:
    times = {"old": NOW - KEPT, "young": NOW - KEPT + 1}
    listed: DataDocument = {kind: {IDP: {**times}, OTHER: {"old": 0}} for kind in ("users", "sessions", "clients")}
    left: DataDocument = {IDP: {"young": NOW - KEPT + 1}}
    assert listed_with(listed, [], now=NOW) == {"users": left, "sessions": left, "clients": listed["clients"]}


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "client"},
        {"kind": "everybody"},
        {"issuer": ""},
        {"id": ""},
        {"id": "x" * 257},
        {"at": -1},
        {"at": 1 << 53},
        {"more": "x"},
    ],
)
def test_what_is_no_revocation(said: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Revocation.model_validate({"kind": "user", "issuer": IDP, "id": "a", "at": 1, **said})
