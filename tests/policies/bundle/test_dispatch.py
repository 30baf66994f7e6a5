"""The entry points of several teams, decided alike by both engines."""

from __future__ import annotations

import json

import pytest
from support.opa import OpaServer, require_opa
from support.policies import document, signing_key
from support.teams import owner, platform, team, team_policy

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.bundle.composition import compose
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.bundle.ownership import Owner, dispatch_text
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.opa.compiler import opa_check

KEY = signing_key()
PLANNER = "spiffe://example.org/agent/planner"
ODD = "package sealbus.teams.odd\n\ndecide(request) := request.resource.properties.nothing\n"


def policy(revoked: dict[str, Json] | None = None) -> Bundle:
    owners = {
        "stock": owner(KEY, ["inventory"]),
        "money": owner(KEY, ["pricing", "billing"]),
        "odd": owner(KEY, ["odd"]),
        "idle": owner(KEY, []),
        "absent": owner(KEY, ["absent"]),
    }
    teams = {
        "stock": team("stock", team_policy("stock", allow='request.action.name == "inventory.read"')),
        "money": team("money"),
        "odd": team("odd", ODD),
        "idle": team("idle"),
    }
    return compose(platform(owners, revoked=revoked), teams)


def asked(action: str) -> dict[str, Json]:
    found = json.loads(document(action))
    assert isinstance(found, dict)
    return found


INCOMPLETE: dict[str, Json] = {"action": {"name": "pricing.quote"}}
QUESTIONS: list[tuple[dict[str, Json], bool, list[str], str]] = [
    (asked("inventory.read"), True, [], "stock"),
    (asked("inventory.update"), False, ["not_stock"], "stock"),
    (asked("pricing.quote"), True, [], "money"),
    (asked("pricing.quote.reply"), True, [], "money"),
    (asked("billing.pay"), True, [], "money"),
    (asked("billings.pay"), False, ["no_decision"], "platform"),
    (asked("odd.thing"), False, ["no_decision"], "platform"),
    (asked("absent.thing"), False, ["no_decision"], "platform"),
    (INCOMPLETE, False, ["no_decision"], "platform"),
    ({}, False, ["no_decision"], "platform"),
]


def told(answers: object) -> list[tuple[object, object, object]]:
    assert isinstance(answers, list)
    return [(one["allow"], one["reasons"], one["policy"]) for one in answers]


def embedded(bundle: Bundle, questions: list[dict[str, Json]]) -> list[tuple[object, object, object]]:
    interpreter = Interpreter(bundle.modules, canonical(bundle.data))
    batch: Json = {"batch": list(questions)}
    for question in questions:
        assert interpreter.evaluate("data.sealbus.authz.decision", canonical(question)) is not None
    return told(interpreter.evaluate("data.sealbus.authz.batch", canonical(batch)))


def test_each_team_decides_its_own_agents_actions() -> None:
    found = embedded(policy(), [one[0] for one in QUESTIONS])
    assert found == [one[1:] for one in QUESTIONS]


def test_the_platform_denies_above_all_teams() -> None:
    found = embedded(policy({"agents": {PLANNER: True}}), [one[0] for one in QUESTIONS])
    denied = (False, ["revoked_agent"], "platform")
    assert found == [denied] * 8 + [(False, ["no_decision"], "platform")] * 2


def test_without_teams_everything_is_denied() -> None:
    assert embedded(compose(platform({}), {}), [asked("inventory.read"), {}]) == [
        (False, ["no_decision"], "platform"),
        (False, ["no_decision"], "platform"),
    ]


def test_a_team_without_agents_has_no_branch() -> None:
    idle = Owner(team="idle", agents=(), signers={})
    assert dispatch_text([idle]) == dispatch_text([])


@pytest.mark.opa
@pytest.mark.parametrize("revoked", [{}, {"agents": {PLANNER: True}}])
def test_opa_decides_alike(revoked: dict[str, Json]) -> None:
    bundle = policy(revoked)
    questions = [one[0] for one in QUESTIONS]
    with OpaServer() as opa:
        opa.put_data(bundle.data)
        for module in sorted(bundle.modules, key=lambda one: one.path.startswith("sealbus/authz")):
            assert opa.put_policy(module.path, module.text) == ""
        answer = opa.evaluate("sealbus.authz.batch", {"batch": questions})
    assert told(answer["value"]) == embedded(bundle, questions)


def test_many_teams_with_many_agents_fit() -> None:
    names = [f"team_{number:027d}" for number in range(40)]
    owners = {name: owner(KEY, [f"{name}-{agent}" for agent in range(5)]) for name in names}
    composed = compose(platform(owners), {name: team(name) for name in names})
    found = embedded(composed, [asked(f"{names[-1]}-4.read"), asked(f"{names[0]}-0.read"), asked("other.read")])
    assert [one[2] for one in found] == [names[-1], names[0], "platform"]


@pytest.mark.opa
@pytest.mark.parametrize("teams", [[], ["stock"]])
@pytest.mark.parametrize("owners", [{}, {"stock": owner(KEY, ["inventory"])}, {"stock": owner(KEY, [])}])
def test_opa_compiles_what_is_written_for_few_and_none(owners: dict[str, Json], teams: list[str]) -> None:
    opa_check(compose(platform(owners), {name: team(name) for name in teams}), require_opa())
