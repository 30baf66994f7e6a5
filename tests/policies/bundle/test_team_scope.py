"""What a part may refer to."""

from __future__ import annotations

import pytest
from support.teams import team_policy

from sealbus.policies.bundle.composition import reference_problems
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.parse import parse


def problems(text: str, team: str | None = "stock") -> list[str]:
    return [str(one) for one in reference_problems([parse(Module(path="p.rego", text=text))], team)]


@pytest.mark.parametrize(
    "extra",
    [
        "a := data.sealbus.teams.stock.limit",
        "a := data.sealbus.registry.users",
        "a(x) := data.sealbus.platform.denials(x)",
        "a := data.other",
        "a(x) := input_of(x)\ninput_of(x) := x",
    ],
)
def test_its_own_and_the_platforms(extra: str) -> None:
    assert problems(team_policy("stock", extra=extra)) == []


@pytest.mark.parametrize(
    "extra",
    [
        "a := data.sealbus.teams.money.limit",
        "a(x) := data.sealbus.teams.money.decide(x)",
        "a(x) := data.sealbus.teams[x]",
        "a(x) := data.sealbus[x]",
        "a(x) := data[x]",
        "a := data",
        "a := [x | walk(data.sealbus, [_, x])]",
        "a := data.sealbus.authz.decision",
    ],
)
def test_what_may_be_another_teams(extra: str) -> None:
    found = problems(team_policy("stock", extra=extra))
    assert found
    assert all(one.startswith("p.rego:8:") and one.endswith("[team]") for one in found)


@pytest.mark.parametrize("path", ["sealbus", "sealbus.teams", "sealbus.teams.money"])
def test_imports(path: str) -> None:
    text = f"package sealbus.teams.stock\n\nimport data.{path} as other\n\na := other.x\n"
    assert problems(text)[0].startswith("p.rego:3:")


def test_the_platform_refers_to_no_team() -> None:
    assert problems("package sealbus.platform\n\na := data.sealbus.teams.stock.x\n", None)
    assert problems("package sealbus.platform\n\nimport rego.v1\n\na := data.sealbus.registry.x\n", None) == []
