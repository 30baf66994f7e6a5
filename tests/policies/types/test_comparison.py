"""Comparisons of generated and written arrays, sets and objects: none that OPA's compiler refuses is admitted."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.opa import require_opa
from support.rule_types import decides, refused

from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle, read_bundle
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.types.comparison import incomparable, never_equal
from sealbus.policies.types.value import ANY, NEVER, NUMBER, TEXT, Type, array_of, join, record, row_of, set_of

COMPARISONS = 300
POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": allow, "reasons": [], "obligations": [], "policy": "p"} if {
	allow := f0(request)
}
"""
LEAVES = ("1", "2", '"a"', '"b"', "true", "null")
OTHERS = ("request.subject.chain", "request.action.properties.z", '[y | some y in ["a"]]', "[y | some y in [1, 2]]")


def value(chance: random.Random, depth: int) -> str:
    """Return a value, as a policy writes it."""
    kind = chance.choice(("array", "array", "array", "set", "object", "leaf", "leaf", "other")) if depth else "leaf"
    match kind:
        case "array":
            return f"[{', '.join(value(chance, depth - 1) for _ in range(chance.randint(0, 3)))}]"
        case "set":
            return f"{{{', '.join(chance.choice(LEAVES) for _ in range(chance.randint(1, 2)))}}}"
        case "object":
            return f'{{"{chance.choice("ab")}": {value(chance, depth - 1)}}}'
        case "other":
            return chance.choice(OTHERS)
        case _:
            return chance.choice(LEAVES)


def function(chance: random.Random, number: int) -> str:
    """Return a function that compares two values."""
    left = value(chance, chance.randint(1, 3))
    if chance.random() < 1 / 3:
        return f"\nf{number}(request) if {{\n\t{left} == {value(chance, chance.randint(1, 3))}\n}} else := false\n"
    items = ", ".join(value(chance, chance.randint(1, 2)) for _ in range(chance.randint(1, 3)))
    if chance.random() < 1 / 2:
        return f"\nf{number}(request) := x if {{\n\tx := ({left} in [{items}])\n}} else := false\n"
    return f"\nf{number}(request) if {{\n\t{left} in [{items}]\n}} else := false\n"


def admitted(functions: Sequence[str]) -> bool:
    """Return whether a policy of these functions, the first of which is asked, is admitted."""
    policy = POLICY + "".join(functions)
    try:
        check_bundle(
            read_bundle(
                pack_bundle({"authz.rego": policy.encode()}, {}, Manifest(revision="generated", roots=("sealbus",)))
            )
        )
    except PolicyRefused:
        return False
    return True


@pytest.mark.opa
@pytest.mark.parametrize("seed", range(3))
def test_no_comparison_is_admitted_that_opa_refuses(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)  # noqa: S311 -- the same values each time
    last = "\nf0(request) := true\n"
    found = [one for number in range(1, COMPARISONS) if admitted([one := function(chance, number), last])]
    assert len(found) > COMPARISONS / 10
    (tmp_path / "authz.rego").write_text(POLICY + last + "".join(found))
    done = subprocess.run([require_opa(), "check", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def row(length: int) -> str:
    """Return an array of a text and numbers."""
    return "[\n\t" + ",\n\t".join(['"a"', *["1"] * (length - 1)]) + ",\n\t]"


@pytest.mark.parametrize(("length", "compared"), [(300, True), (1_100, False)])
def test_arrays_of_more_items_than_are_known_place_by_place_are_not_compared(length: int, compared: bool) -> None:
    comparison = f"{row(length)} == {row(length)}"
    assert admitted([f"\nf0(request) if {{\n\t{comparison}\n}} else := false\n"]) is compared


def test_what_is_not_known_of_an_array_is_not_known_beside_another() -> None:
    comparison = f'[y | some y in ["a"]] in [{row(1_100)}, [y | some y in [1, 2]]]'
    assert not admitted([f"\nf0(request) if {{\n\t{comparison}\n}} else := false\n"])


@pytest.mark.parametrize(
    ("left", "right", "differ"),
    [
        (TEXT, NUMBER, True),
        (TEXT, join(TEXT, NUMBER), False),
        (TEXT, NEVER, False),
        (row_of(TEXT), row_of(TEXT, TEXT), True),
        (row_of(TEXT), row_of(NUMBER), True),
        (row_of(TEXT), array_of(TEXT), False),
        (row_of(row_of(TEXT)), row_of(row_of(NUMBER)), True),
        # Only arrays are compared at depth.
        (set_of(TEXT), set_of(NUMBER), False),
        (join(TEXT, row_of(TEXT)), row_of(NUMBER), False),
    ],
)
def test_arrays_are_never_equal_if_their_lengths_or_items_differ(left: Type, right: Type, differ: bool) -> None:
    assert never_equal(left, right) is differ
    assert never_equal(right, left) is differ


@pytest.mark.parametrize(
    ("left", "right", "refused"),
    [
        (record({"a": TEXT}), record({"a": TEXT}), False),
        (record({"a": TEXT}), record({"b": TEXT}), True),
        (record({"a": TEXT}), record({"a": NUMBER}), True),
        (record({"a": TEXT}), ANY, False),
        (row_of(TEXT, NUMBER), row_of(TEXT, NUMBER), False),
        (row_of(TEXT, NUMBER), row_of(NUMBER, TEXT), True),
        (row_of(TEXT, TEXT), array_of(TEXT), False),
        (set_of(TEXT), set_of(NUMBER), True),
        (set_of(join(TEXT, NUMBER)), set_of(TEXT), True),
    ],
)
def test_objects_are_compared_by_their_names_and_arrays_place_by_place(left: Type, right: Type, refused: bool) -> None:
    assert incomparable(left, right) is refused
    assert incomparable(right, left) is refused


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ("\"a\" == 1", ["match"]),
        ("not \"a\" == 1", ["match"]),
        ("[1] == [\"a\"]", ["match"]),
        ("[1, 2] == [1]", ["match"]),
        ("{\"a\": 1} == {\"b\": 1}", ["match"]),
        ("not {\"a\": 1} == {\"a\": \"b\"}", ["match"]),
        ("xs := [{\"a\": 1}]\nxs == [{\"b\": 1}]", ["match"]),
        ("xs := {1: 1}\nxs == {2: 1}", ["match"]),
        ("xs := {1}\nxs == {\"a\"}", ["match"]),
        ("x := {\"a\": 1}\nx in [{\"b\": 1}]", ["match"]),
        ("x := {\"k\": {\"a\": 1}}\nx in {{\"k\": {\"b\": 1}}}", ["match"]),
        ("x := {1}\nnot x in [{\"a\"}]", ["match"]),
        ("1 in [\"a\"]", ["match"]),
    ],
)  # fmt: skip
def test_values_that_are_never_equal_are_not_compared(body: str, forms: list[str]) -> None:
    assert refused(decides(body)) == forms


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ("decide(request) := f(1)\nf(\"a\") := 1", ["match"]),
        ("decide(request) := f(true)\nf(null) := 1", ["match"]),
        ("decide(request) := f(\"a\")\nf(1) := 1", ["match"]),
        ("decide(request) := f([1])\nf([\"a\"]) := 1", ["match"]),
        ("decide(request) := f([1])\nf([x]) := x + 1", []),
    ],
)  # fmt: skip
def test_an_argument_that_no_pattern_matches_is_refused(rules: str, forms: list[str]) -> None:
    assert refused(rules) == forms
