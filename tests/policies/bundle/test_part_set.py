"""Parts that are offered one after the other: each is taken or refused for itself."""

from __future__ import annotations

import pytest
from support.policies import signing_key
from support.teams import naming, revocations, signed_platform, signed_team, team_policy

from sealbus.envelopes.trust.keys import key_id
from sealbus.policies.bundle.composition import PartSet
from sealbus.policies.bundle.format import Bundle, read_bundle
from sealbus.policies.bundle.ownership import PLATFORM
from sealbus.policies.bundle.revocations import REVOCATIONS
from sealbus.policies.bundle.signing import sign_bundle
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


@pytest.mark.parametrize("error", [RecursionError("too deep"), ValueError("name is too long")])
def test_whatever_is_unusual_in_a_part_only_refuses_that_part(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team must not end the processes that read its part."""
    found = parts()

    def fails(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("sealbus.policies.bundle.composition.check_team", fails)
        refused(found, "stock", signed_team("stock", STOCK, serial=2), f"unusual: {error}")
    found.offer("stock", signed_team("stock", STOCK, serial=2))
    assert found.problems == {}


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


def sessions(found: PartSet) -> set[str]:
    return {session for _, session in found.revocations.sessions}


def test_revocations_are_in_force_beside_what_is_composed() -> None:
    revoker = signing_key()
    found = parts()
    refused(found, REVOCATIONS, revocations(revoker), "may not sign")
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=2))
    # What was refused waited for this.
    assert sessions(found) == {"s-1"}
    assert found.problems == {}
    composed = found.composed
    found.offer(REVOCATIONS, revocations(revoker, 2, session="s-2"))
    assert sessions(found) == {"s-2"}
    assert found.revocations.revision == "revocations-2"
    assert found.composed is composed
    assert revision(found) == "platform-2.money-1.stock-1"
    assert [one.name for one in found.parts] == ["money", "platform", REVOCATIONS, "stock"]
    refused(found, REVOCATIONS, revocations(revoker, 2), "serial 2 is not after 2")
    refused(found, REVOCATIONS, revocations(STOCK, 3), "may not sign")
    refused(found, REVOCATIONS, signed_team("stock", STOCK, serial=9), "may not sign")
    assert sessions(found) == {"s-2"}
    # A team that is pushed composes without them.
    found.offer("stock", signed_team("stock", STOCK, serial=2))
    assert revision(found) == "platform-2.money-1.stock-2"
    assert sessions(found) == {"s-2"}


def test_what_their_signer_signs_is_nothing_else() -> None:
    revoker = signing_key()
    found = parts()
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=2))
    above = sign_bundle(read_bundle(naming(ROOT, TEAMS, revoker, serial=3)), revoker, scope=PLATFORM)
    refused(found, PLATFORM, above.raw, "may not sign")
    refused(found, "stock", signed_team("stock", revoker, serial=3), "may not sign")
    as_part = sign_bundle(read_bundle(naming(ROOT, TEAMS, revoker, serial=3)), revoker, scope=REVOCATIONS).raw
    refused(found, REVOCATIONS, as_part, "must have the one root")


def test_revocations_of_a_signer_who_is_named_no_longer_end_with_that() -> None:
    revoker, another = signing_key(), signing_key()
    found = parts()
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=2))
    found.offer(REVOCATIONS, revocations(revoker))
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, another, serial=3))
    assert sessions(found) == {"s-1"}
    found.offer(PLATFORM, naming(ROOT, TEAMS, another, serial=4))
    assert sessions(found) == set()
    assert "names no" in found.problems[REVOCATIONS]
    found.offer(REVOCATIONS, revocations(another, 2, session="s-2"))
    assert sessions(found) == {"s-2"}
    assert found.problems == {}


def test_revocations_are_in_force_again_once_their_signer_is_named_again() -> None:
    revoker = signing_key()
    found = parts()
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=2))
    found.offer(REVOCATIONS, revocations(revoker, 2, session="s-2"))
    # By mistake a platform's bundle is pushed that names nobody; and meanwhile somebody stores what counts for nothing.
    found.offer(PLATFORM, signed_platform(ROOT, TEAMS, serial=3))
    assert sessions(found) == set()
    refused(found, REVOCATIONS, revocations(revoker, 1), "may not sign")
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=4))
    assert sessions(found) == {"s-2"}
    assert "not after 2" in found.problems[REVOCATIONS]
    found.offer(REVOCATIONS, revocations(revoker, 3, session="s-3"))
    assert (sessions(found), found.problems) == ({"s-3"}, {})


def test_a_serial_by_a_signer_who_is_named_no_longer_keeps_nobody_out() -> None:
    stolen, another = signing_key(), signing_key()
    found = parts()
    found.offer(PLATFORM, naming(ROOT, TEAMS, stolen, another, serial=2))
    found.offer(REVOCATIONS, revocations(stolen, (1 << 53) - 1))
    refused(found, REVOCATIONS, revocations(another, 1, session="s-2"), "not after")
    found.offer(PLATFORM, naming(ROOT, TEAMS, another, serial=3))
    # What waited is in force, and what comes counts from there.
    assert (sessions(found), found.problems) == ({"s-2"}, {})
    found.offer(REVOCATIONS, revocations(another, 2, session="s-3"))
    refused(found, REVOCATIONS, revocations(another, 1, session="s-2"), "not after 2")
    assert sessions(found) == {"s-3"}


def test_before_there_is_a_platform_there_are_none() -> None:
    revoker = signing_key()
    found = PartSet({key_id(ROOT.public): ROOT.public})
    refused(found, REVOCATIONS, revocations(revoker), "names no")
    found.offer(PLATFORM, naming(ROOT, TEAMS, serial=1))
    assert "may not sign" in found.problems[REVOCATIONS]
    assert sessions(found) == set()
    found.offer(PLATFORM, naming(ROOT, TEAMS, revoker, serial=2))
    assert sessions(found) == {"s-1"}


def test_no_team_has_their_name() -> None:
    with pytest.raises(PolicyRefused, match="is not the name of a team"):
        parts().offer(PLATFORM, signed_platform(ROOT, {**TEAMS, REVOCATIONS: STOCK}, serial=2))
