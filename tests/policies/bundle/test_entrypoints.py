"""The entry points, and that nothing else reads the input."""

from __future__ import annotations

import pytest

from sealbus.policies.bundle.check import entrypoint_problems
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module

DECISION = "decision := decide(input)\n"
BATCH = "batch := [decide(r) | some r in input.batch]\n"
DECIDE = 'decide(r) := {"allow": r.x} if { r.x } else := {"allow": false}\n'
GOOD = DECISION + BATCH + DECIDE


def problems(text: str, *others: str) -> list[str]:
    files, refused = parse_all(
        [
            Module(path=f"{number}.rego", text=rego)
            for number, rego in enumerate([f"package sealbus.authz\n\n{text}", *others])
        ]
    )
    assert refused == []
    return [problem.text for problem in entrypoint_problems(files)]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD + "default decide(_) := {}\n",
        GOOD + "helper(request) := request.input.batch\n",
        GOOD.replace("(r)", "(q)").replace("some r", "some q").replace("r.x", "q.x"),
    ],
)
def test_accepted(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize("package", ["connect", "approval"])
def test_other_packages_may_have_their_own(package: str) -> None:
    other = f"package sealbus.{package}\n\ndecision := decide(input)\n\ndecide(r) := r.x\n"
    assert problems(GOOD, other) == []
    assert len(problems(GOOD, other.replace("decide(input)", "input.of"))) == 1
    assert len(problems(GOOD, other + "\nothers := input.of\n")) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 3),
        (DECISION + BATCH, 1),
        (BATCH + DECIDE, 1),
        (DECISION + DECIDE, 1),
        (GOOD + DECISION, 1),
        (GOOD + BATCH, 1),
        (GOOD.replace("decide(input)", "decide(input.x)"), 2),
        (GOOD.replace("decide(input)", "decide(data.x)"), 1),
        (GOOD.replace("decide(input)", "input.x"), 2),
        (GOOD.replace("decide(input)", "other(input)") + "other(r) := r\n", 2),
        (GOOD.replace("decide(input)", "decide(input, 1)"), 2),
        (GOOD.replace("decision := decide(input)", "decision := decide(input) if true"), 2),
        (GOOD.replace("decision := decide(input)", "decision.x := decide(input)"), 2),
        (GOOD.replace("decision := decide(input)", "decision contains decide(input)"), 2),
        (GOOD.replace("input.batch", "input.items"), 2),
        (GOOD.replace("input.batch", 'input["batch"][_]'), 2),
        (GOOD.replace("input.batch", "data.batch"), 1),
        (GOOD.replace("some r in input.batch", "some r in input.batch; r.ok"), 2),
        (GOOD.replace("some r in input.batch", "r := input.batch"), 2),
        (GOOD.replace("some r in", "some i, r in"), 2),
        (GOOD.replace("some r in input.batch", "some [r] in input.batch"), 2),
        (GOOD.replace("[decide(r) |", "[decide(input) |"), 3),
        (GOOD.replace("[decide(r) | some r in input.batch]", "{decide(r) | some r in input.batch}"), 2),
        (GOOD.replace("[decide(r) | some r in input.batch]", "input.batch"), 2),
        (GOOD.replace("decide(r) :=", "decide(r, _) :="), 1),
        (DECISION + BATCH + "decide := 1\n", 1),
        (GOOD + "helper if input.x\n", 1),
        (GOOD + "helper(r) if { not input.x == r }\n", 1),
        (GOOD + "helper := input\n", 1),
    ],
)
def test_refused(text: str, count: int) -> None:
    found = problems(text)
    assert len(found) == count, found


def test_input_in_another_package() -> None:
    assert problems(GOOD, "package lib\n\nx := input.y\n") == [
        "only decision and batch may read input: pass the request to a function as its argument"
    ]
