from __future__ import annotations

import json
from pathlib import Path

import pytest

import sealbus.policies
from sealbus.agents.dev.idp.registry import DEMO_USERS, MOST_USERS, RESERVED_CLAIMS, DemoUser, merged_users
from sealbus.envelopes.errors import ConfigurationError


def test_everybody_in_the_starter_policy_can_log_in() -> None:
    data = Path(sealbus.policies.__path__[0]) / "rego" / "sealbus" / "registry" / "users" / "data.json"
    assert set(json.loads(data.read_text())) <= {user.identifier for user in DEMO_USERS}


def test_more_users_join_and_replace() -> None:
    users = {user.identifier: user for user in merged_users({"dora": {}, "bob": {"groups": ["a", "b"], "level": 3}})}
    assert list(users) == ["alice", "bob", "carol", "dave", "olga", "dora"]
    assert users["bob"].claims == {"groups": ("a", "b"), "level": 3}
    assert (users["dora"].name, users["alice"].name) == ("dora", "Alice Adams")


@pytest.mark.parametrize("identifier", ["", "a b", "<b>", "é", ".x", "x" * 65, "a\n"])
def test_an_identifier_is_plain(identifier: str) -> None:
    with pytest.raises(ConfigurationError, match="demo user"):
        DemoUser(identifier=identifier)


@pytest.mark.parametrize("name", [*sorted(RESERVED_CLAIMS), "Groups", "", "a.b"])
def test_a_user_cannot_have_what_a_token_says_of_itself(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a claim"):
        DemoUser(identifier="dora", claims={name: "x"})


@pytest.mark.parametrize("value", [1.5, {"a": 1}, [1], None, ["a", 2]])
def test_a_claim_is_what_a_context_can_hold(value: object) -> None:
    with pytest.raises(ConfigurationError, match="demo user dora: claim level must be"):
        merged_users({"dora": {"level": value}})


def test_how_a_user_logs_in_is_no_claim() -> None:
    said = {"acr": "urn:mfa", "amr": ["pwd", "otp"], "login_age": 3_600, "department": "shop"}
    user = next(user for user in merged_users({"dora": said}) if user.identifier == "dora")
    assert (user.acr, user.amr, user.login_age, dict(user.claims)) == (
        "urn:mfa",
        ("pwd", "otp"),
        3_600,
        {"department": "shop"},
    )


@pytest.mark.parametrize(
    "said",
    [
        {"acr": ["a"]},
        {"acr": "a b"},
        {"acr": "x" * 257},
        {"amr": "pwd"},
        {"amr": ["a b"]},
        {"amr": [""]},
        {"amr": ["a"] * 9},
        {"login_age": "3600"},
        {"login_age": True},
        {"login_age": -1},
        {"login_age": 10**9},
    ],
)
def test_what_no_login_can_be_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="demo user dora: "):
        merged_users({"dora": said})


def test_users_and_claims_are_bounded() -> None:
    with pytest.raises(ConfigurationError, match="more than 32 claims"):
        DemoUser(identifier="dora", claims={f"c{number}": 1 for number in range(33)})
    with pytest.raises(ConfigurationError, match="over 256 characters"):
        DemoUser(identifier="dora", claims={"groups": ("x" * 257,)})
    with pytest.raises(ConfigurationError, match="more than 200 users"):
        merged_users({f"u{number}": {} for number in range(MOST_USERS)})


def test_claims_cannot_be_changed_later() -> None:
    claims: dict[str, str | int | bool | tuple[str, ...]] = {"level": 1}
    user = DemoUser(identifier="dora", claims=claims)
    claims["sub"] = "root"
    assert user.claims == {"level": 1}
