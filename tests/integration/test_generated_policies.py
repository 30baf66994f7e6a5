"""Generated policies: what is admitted both embedded engines and OPA answer alike, and what is planted is found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from support import edge_values, engine_differences
from support.edge_values import CALLED
from support.engine_differences import compare, compare_edges, main
from support.opa import OpaServer
from support.policy_grammar import documents, policy, world

from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle, read_bundle
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.lint.syntax import Place
from sealbus.policies.types import expressions
from sealbus.policies.types.analysis import Analysis
from sealbus.policies.types.builtins import BUILTINS, Argument, Builtin
from sealbus.policies.types.facts import Facts
from sealbus.policies.types.value import BOOLEAN, number

ROOT = Path(__file__).parents[2]
SEED = 20261126
POLICIES = 300
NEAR = 200
"""Policies among which a planted difference has to be found, from a seed that is near one; `make policies-hour` goes far."""

EDGES = 24
"""Policies that call each builtin and operator three times at least, at the edges."""

pytestmark = pytest.mark.opa


@pytest.fixture(scope="module")
def opa() -> Iterator[OpaServer]:
    with OpaServer() as server:
        yield server


def test_the_same_seed_makes_the_same_policy() -> None:
    assert policy(SEED) == policy(SEED) != policy(SEED + 1)
    assert world(SEED) == world(SEED)
    assert documents(SEED, 3) == documents(SEED, 3)


def test_what_is_admitted_is_answered_alike(opa: OpaServer) -> None:
    found = compare(opa, range(SEED, SEED + POLICIES))
    assert found.differences == []
    assert found.share >= 0.5
    assert found.made == POLICIES
    assert 0.1 < found.allowed / found.asked < 0.9


def test_what_was_found_once_is_not_admitted_any_more(opa: OpaServer) -> None:
    found = compare(opa, [7_070_545])
    assert (found.made, found.admitted, found.differences) == (1, 0, [])


def test_everything_is_answered_alike_at_the_edges_and_verified_so(opa: OpaServer) -> None:
    found = compare_edges(opa, range(SEED, SEED + EDGES))
    assert found.differences == []
    assert found.admitted == EDGES
    assert found.verified == found.asked > 0
    assert found.calls.keys() == set(CALLED)
    assert found.refused_calls.total() < 0.15 * found.calls.total()
    assert found.none < 0.2 * found.asked


@pytest.mark.parametrize(
    ("functions", "called", "fine"),
    [
        ('f(x) if { not x == 0 }', "f(1)", True),
        ('f(x) if { not x == 0 }', 'f("a")', False),
        ('f(x) if { not x in {"a"} }', "f(1)", False),
        ('f(x) if { y := x in {"a"}; y == false }', "f(1)", False),
        ('f(x) if { not x == 0; is_string(x) }', "f(1)", True),
        ('f(x) if { not x == 0; is_string(x) }', 'f("a")', False),
        ('f(x) if { not g(x); is_string(x) }\n\ng(1) := true', "f(1)", True),
        ('f(x) if { not g(x); is_string(x) }\n\ng(1) := true', 'f("a")', False),
        ('f(x) if { not x == 0 } else if { x == "a" }', 'f("a")', True),
        ('f(x) if { not x == 0 } else if { x == "a" }', "f(true)", False),
        ('f(x, y) if { is_string(y); not x == y }', 'f(true, "a")', True),
        ('f(x, y) if { y == "a"; not x == y }', 'f(true, "a")', False),
        ('f(x) if { every y in ["a"] { not x == y } }', "f(1)", True),
        ('f(x) if { ys := [1 | not x == "a"]; count(ys) == 0 }', "f(1)", True),
        ('f(r) if { x := r.level; not x in ["low", "high"]; is_number(x) }', "f(request.resource.properties)", True),
        ('f(r) if { x := r.level; not x == 0; x == "a" }', "f(request.resource.properties)", True),
        ('f(r) if { not r.p == 0; r.p == "a" }', "f(request.action.properties)", True),
        ('f(r) if { some x in [1, "a"]; not x == 1; x == "a"; r }', "f(true)", True),
    ],
)  # fmt: skip
def test_what_an_argument_is_compared_with_says_what_a_function_takes(
    opa: OpaServer, functions: str, called: str, fine: bool
) -> None:
    """What is admitted OPA compiles, and what it compiles is not refused for the other reading."""
    text = f"""package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

{functions}

decide(request) := {{"allow": true, "reasons": [], "obligations": [], "policy": "p"}} if {{
	{called}
}} else := {{"allow": false, "reasons": [], "obligations": [], "policy": "p"}}
"""
    assert (opa.put_policy("compared", text) == "") is fine
    packed = pack_bundle({"authz.rego": text.encode()}, {}, Manifest(revision="1", roots=("sealbus",)))
    with nullcontext() if fine else pytest.raises(PolicyRefused, match=r"\[match\]"):
        check_bundle(read_bundle(packed))


def anything(*_: object) -> bool:
    return True


def admit(patch: pytest.MonkeyPatch, name: str, arguments: int) -> None:
    """Take `name` back into the list as if it were answered alike for all arguments."""
    old = BUILTINS.get(name)
    argument = Argument(text="anything", names=(), fits=anything)
    gives = old.result if old is not None else (lambda *_: number(1) if name == "count" else BOOLEAN)
    patch.setitem(BUILTINS, name, Builtin(arguments=(argument,) * arguments, result=gives))


def admit_form(patch: pytest.MonkeyPatch, admitted: str) -> None:
    """Take back what type inference refuses by the name `admitted`."""
    refuse = Analysis.refuse

    def refuse_others(self: Analysis, facts: Facts, place: Place, form: str, text: str) -> None:
        if form != admitted:
            refuse(self, facts, place, form, text)

    patch.setattr(Analysis, "refuse", refuse_others)


@pytest.mark.parametrize(
    ("planted", "first"),
    [
        ("count of a text", 20_261_540),
        ("a glob", 20_263_100),
        ("an else after what is undefined", 20_318_300),
        ("in as a value", 20_303_100),
        ("a head that may be undefined", 20_292_230),
    ],
)
def test_a_planted_difference_is_found(
    opa: OpaServer, planted: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    match planted:
        case "count of a text":
            admit(monkeypatch, "count", 1)
        case "a glob":
            admit(monkeypatch, "glob.match", 3)
        case "an else after what is undefined":
            admit_form(monkeypatch, "else")
        case "a head that may be undefined":
            admit_form(monkeypatch, "head")
        case _:
            admit_form(monkeypatch, "in")
    found = compare(opa, range(first, first + NEAR), most=1)
    [(_, difference)] = found.differences
    said = re.fullmatch(r"embedded (.*), in a batch (.*), native (.*), OPA (.*), asked \{.*", difference)
    assert said is not None
    # Without its wheel, the native engine says what the embedded one does.
    assert said[3] != said[4]


def test_a_planted_difference_at_the_edges_is_found(opa: OpaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of 64 bits and more, which regorus rounds. The seeds are others, because a bundle that passed stays so."""
    monkeypatch.setattr(expressions, "key_type", Analysis.expression_type)
    monkeypatch.setattr(edge_values, "SUSPECT", 0.5)
    first = SEED + 1_000
    found = compare_edges(opa, range(first, first + NEAR), most=1)
    [(_, difference)] = found.differences
    said = re.match(r"embedded (.*), in a batch (.*), native (.*), OPA (.*), asked \{", difference)
    assert said is not None
    assert said[1] != said[4]


def test_what_would_not_be_verified_is_found(opa: OpaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that rounds a number, as the native one once did, contradicts what is decided again."""

    def rounds(
        modules: Sequence[Module], data: bytes, rule: str, documents: Sequence[bytes], *, batch: str
    ) -> list[object]:
        del batch
        interpreter = Interpreter(modules, data)
        return [_rounded(interpreter.evaluate(rule, document)) for document in documents]

    monkeypatch.setattr(engine_differences, "evaluated", rounds)
    monkeypatch.setattr(engine_differences, "has_wheel", lambda: True)
    found = compare_edges(opa, range(SEED, SEED + NEAR), most=NEAR)
    again = re.compile(r"; decided again: (obligations|[a-z]+-to-[a-z]+)")
    assert any(again.search(difference) for _, difference in found.differences)


def _rounded(answer: object) -> object:
    if isinstance(answer, str):
        digits = re.search(r"[0-9]{20,}", answer)
        return answer if digits is None else answer.replace(digits[0], f"{float(digits[0]):g}")
    if isinstance(answer, list):
        return [_rounded(one) for one in answer]
    return {name: _rounded(one) for name, one in answer.items()} if isinstance(answer, dict) else answer


def test_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", str(SEED), "--policies", "3", "--show"]) in (0, 1)
    printed = capsys.readouterr().out
    assert printed.startswith("OPA 1.")
    assert f"seeds {SEED} to {SEED + 2}" in printed
    assert "differences 0" in printed
    assert "package sealbus.authz" in printed


@pytest.mark.parametrize("folder", ["rego", "platform"])
def test_every_policy_of_the_project_is_admitted(folder: str) -> None:
    assert build_bundle(ROOT / "policies" / folder, part=folder == "platform").modules
