"""Parts that are offered one after the other: each is taken or refused for itself."""

from __future__ import annotations

import pytest
from support.policies import signing_key
from support.teams import signed_platform, signed_team, team_policy

from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.lint.module import PolicyRefused, Problem

ROOT, STOCK, MONEY = signing_key(), signing_key(), signing_key()
TEAMS = {"stock": STOCK, "money": MONEY}


def parts() -> PartSet:
    found = PartSet({key_id(ROOT.public): ROOT.public})
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS))
    found.offer("stock", signed_team("stock", STOCK))
    found.offer("money", signed_team("money", MONEY))
    return found


def revision(found: PartSet) -> str:
    assert found.composed is not None
    return found.composed.revision.partition(".")[2]


def refused(found: PartSet, name: str, raw: bytes, why: str) -> None:
    before = found.composed
    with pytest.raises(PolicyRefused, match=why):
        found.offer(name, raw)
    assert found.composed is before
    assert name in found.problems


def test_each_part_under_its_own_key() -> None:
    found = parts()
    assert revision(found) == "platform-1.money-1.stock-1"
    assert [(one.name, one.serial, one.signer) for one in found.parts] == [
        ("money", 1, key_id(MONEY.public)),
        ("platform", 1, key_id(ROOT.public)),
        ("stock", 1, key_id(STOCK.public)),
    ]
    stock = found.bundle("stock")
    assert stock is not None
    assert stock.serial == 1
    assert found.bundle("other") is None
    assert found.problems == {}


def test_nothing_is_in_force_before_the_platform_is_and_then_what_waited_is() -> None:
    found = PartSet({key_id(ROOT.public): ROOT.public})
    for name, key in (("stock", STOCK), ("money", STOCK)):
        with pytest.raises(PolicyRefused, match="names no team"):
            found.offer(name, signed_team(name, key))
    assert found.composed is None
    assert found.parts == ()
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS))
    assert revision(found) == "platform-1.stock-1"
    assert "may not sign" in found.problems["money"]


def test_what_is_refused_leaves_all_parts_as_they_are_and_others_go_on() -> None:
    found = parts()
    refused(found, "stock", signed_team("stock", MONEY, serial=2), "may not sign")
    refused(found, "stock", signed_team("stock", STOCK, serial=1, data={}), "serial 1 is not after 1")
    refused(found, "stock", signed_team("money", MONEY, serial=2), "may not sign")
    refused(found, "money", signed_team("stock", MONEY, serial=2), "scope is not money")
    refused(found, "stock", signed_team("stock", STOCK, team_policy("money"), serial=2), "outside the bundle's roots")
    refused(found, "other", signed_team("other"), "names no team")
    refused(found, PLATFORM, signed_platform(STOCK, TEAMS, serial=2), "may not sign")
    refused(found, PLATFORM, signed_platform(ROOT, TEAMS, serial=1, revoked={"users": {"eve": True}}), "not after 1")
    found.offer("money", signed_team("money", MONEY, serial=2))
    assert revision(found) == "platform-1.money-2.stock-1"
    found.offer("stock", signed_team("stock", STOCK, serial=7))
    assert "stock" not in found.problems


def test_a_part_that_is_in_force_may_be_offered_again() -> None:
    found = parts()
    raw = signed_team("stock", STOCK, serial=2)
    found.offer("stock", raw)
    found.offer("stock", raw)
    assert revision(found) == "platform-1.money-1.stock-2"


def test_a_signer_that_the_platform_takes_away_takes_its_part_along() -> None:
    found = parts()
    found.offer("stock", signed_team("stock", STOCK, serial=5))
    found.offer(PLATFORM, signed_platform(ROOT, {"stock": MONEY, "money": MONEY}, serial=2))
    assert revision(found) == "platform-2.money-1"
    assert "names no team" in found.problems["stock"]
    refused(found, "stock", signed_team("stock", MONEY, serial=4), "not after 5")
    found.offer("stock", signed_team("stock", MONEY, serial=6))
    assert revision(found) == "platform-2.money-1.stock-6"


def test_a_team_that_does_not_go_with_the_new_platform_falls_out_alone() -> None:
    found = parts()
    looking = team_policy("stock", allow="data.sealbus.registry.revoked.more[request.action.name]")
    found.offer("stock", signed_team("stock", STOCK, looking, serial=2))
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS, serial=2, revoked={"more": ["a"]}))
    assert revision(found) == "platform-2.money-1"
    assert "stock/policy.rego:4:" in found.problems["stock"]
    found.offer("stock", signed_team("stock", STOCK, serial=3))
    assert revision(found) == "platform-2.money-1.stock-3"


def test_refusals_under_ever_new_names_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.policies.bundle.composition.MOST_TEAMS", 3)
    found = parts()
    for number in range(9):
        with pytest.raises(PolicyRefused, match="names no team"):
            found.offer(f"other{number}", b"junk")
    assert sorted(found.problems) == [f"other{number}" for number in range(4)]
    assert revision(found) == "platform-1.money-1.stock-1"


def test_whoever_holds_the_parts_may_refuse_what_they_come_to() -> None:
    unwanted: list[str] = []

    def check(composed: Bundle) -> None:
        if any(one in composed.revision for one in unwanted):
            raise PolicyRefused([Problem(file="", line=0, column=0, form="opa", text="unwanted")])

    found = PartSet({key_id(ROOT.public): ROOT.public}, check)
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS))
    found.offer("stock", signed_team("stock", STOCK))
    found.offer("money", signed_team("money", MONEY))
    unwanted.append("stock-2")
    refused(found, "stock", signed_team("stock", STOCK, serial=2), "unwanted")
    found.offer("money", signed_team("money", MONEY, serial=2))
    assert revision(found) == "platform-1.money-2.stock-1"
    # A platform with which one team is not wanted any more goes on without that team.
    unwanted.append("stock-1")
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS, serial=2))
    assert revision(found) == "platform-2.money-2"
    assert "unwanted" in found.problems["stock"]
