"""Ownership of roots: what the platform may say of its teams."""

from __future__ import annotations

import pytest
from support.policies import bundle, signing_key
from support.teams import owner, platform

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.envelopes.trust.keys import key_id, public_pem
from sealbus.policies.bundle.ownership import is_part, owners_of, team_root
from sealbus.policies.lint.module import PolicyRefused

KEY = signing_key()
GOOD = owner(KEY, ["inventory"])
PEM = public_pem(KEY.public)


def test_a_policy_without_owners_is_whole() -> None:
    assert owners_of(bundle()) is None
    assert owners_of(platform(None)) is None


def test_teams_by_name() -> None:
    found = owners_of(platform({"stock": GOOD, "money": owner(KEY, ["pricing", "billing"])}))
    assert found is not None
    assert list(found) == ["money", "stock"]
    assert found["money"].agents == ("billing", "pricing")
    assert found["stock"].signers == {key_id(KEY.public): KEY.public}
    assert team_root("stock") == "sealbus/teams/stock"
    assert owners_of(platform({})) == {}


@pytest.mark.parametrize(
    ("owners", "why"),
    [
        ({"Stock": GOOD}, "not the name of a team"),
        ({"platform": GOOD}, "not the name of a team"),
        ({"stock": 1}, "agents and signers"),
        ({"stock": {"agents": {}}}, "agents and signers"),
        ({"stock": {"agents": [], "signers": {key_id(KEY.public): PEM}}}, "not names of agents"),
        ({"stock": {"agents": {"a.b": True}, "signers": {key_id(KEY.public): PEM}}}, "not names of agents"),
        ({"stock": {"agents": {"a": False}, "signers": {key_id(KEY.public): PEM}}}, "not names of agents"),
        ({"stock": {"agents": {}, "signers": {}}}, "public keys by key id"),
        ({"stock": {"agents": {}, "signers": []}}, "public keys by key id"),
        ({"stock": {"agents": {}, "signers": {"x": 1}}}, "not a public key"),
        ({"stock": {"agents": {}, "signers": {"x": PEM}}}, "under another id"),
        ({"stock": GOOD, "money": GOOD}, "inventory belongs to both money and stock"),
        ({f"t{number}": owner(KEY, []) for number in range(257)}, "at most 256 teams"),
    ],
)
def test_what_says_nothing_clear(owners: dict[str, Json], why: str) -> None:
    with pytest.raises(PolicyRefused, match=why):
        owners_of(platform(owners))


def test_owners_are_an_object() -> None:
    with pytest.raises(PolicyRefused, match="not an object"):
        owners_of(bundle(data={"sealbus": {"platform": {"owners": []}}}))


def test_names_of_parts() -> None:
    assert [is_part(name) for name in ("platform", "stock_2", "stock@7", "../x", "Stock", "", "x" * 33)] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
