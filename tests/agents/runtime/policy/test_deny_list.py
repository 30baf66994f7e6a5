"""Denials as documents of the registry."""

from __future__ import annotations

import pytest

from sealbus.agents.runtime.policy.deny_list import Denial, add, carry, denials, forget
from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.decision.documents import DataDocument

PRICING = "spiffe://example.org/agent/pricing"


def test_what_is_added_is_there_and_the_rest_stays() -> None:
    data: DataDocument = {"sealbus": {"registry": {"users": {"alice": {}}, "revoked": {"users": {"mallory": True}}}}}
    add(Denial(kind="user", id="eve", at="now", reason="left"))(data)
    add(Denial(kind="client", id="web", at="now"))(data)
    add(Denial(kind="workload", id=PRICING, before=5))(data)
    assert data == {
        "sealbus": {
            "registry": {
                "users": {"alice": {}},
                "revoked": {
                    "users": {"mallory": True, "eve": {"at": "now", "reason": "left"}},
                    "clients": {"web": {"at": "now"}},
                },
                "issued_before": {PRICING: 5},
            }
        }
    }
    assert list(denials(data)) == [
        Denial(kind="user", id="eve", at="now", reason="left"),
        Denial(kind="user", id="mallory"),
        Denial(kind="client", id="web", at="now"),
        Denial(kind="workload", id=PRICING, before=5),
    ]
    forget("user", "eve")(data)
    forget("workload", PRICING)(data)
    assert [one.id for one in denials(data)] == ["mallory", "web"]
    for kind, one in (("user", "eve"), ("workload", PRICING), ("session", "s")):
        with pytest.raises(ConfigurationError, match="is not denied"):
            forget(kind, one)(data)


def test_nothing_is_denied_by_an_empty_policy_or_by_false() -> None:
    assert list(denials({})) == []
    assert list(denials({"sealbus": {"registry": {"revoked": {"users": {"eve": False}}}}})) == []


def test_a_registry_of_another_form() -> None:
    with pytest.raises(ConfigurationError, match="registry is not an object"):
        list(denials({"sealbus": {"registry": []}}))


def test_what_is_in_force_is_carried_over() -> None:
    current: DataDocument = {}
    for one in (Denial(kind="user", id="eve", at="now", reason="left"), Denial(kind="workload", id=PRICING, before=5)):
        add(one)(current)
    data: DataDocument = {}
    assert carry(data, current)
    assert list(denials(data)) == list(denials(current))
    assert not carry(data, current)
    later: DataDocument = {}
    add(Denial(kind="workload", id=PRICING, before=9))(later)
    assert carry(later, current)
    assert [(one.id, one.before) for one in denials(later)] == [("eve", 0), (PRICING, 9)]
    assert carry(data, later)
    assert [one.before for one in denials(data)] == [0, 9]


def test_of_two_times_the_later_stays() -> None:
    data: DataDocument = {}
    for time, stays in ((2_000, 2_000), (1_000, 2_000), (3_000, 3_000)):
        add(Denial(kind="workload", id="spiffe://example.org/agent/shop", before=time))(data)
        assert [one.before for one in denials(data)] == [stays]
