"""Comparisons of generated arrays, sets and objects: what is admitted here is nothing that OPA's compiler refuses."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.opa import require_opa

from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.format import Manifest, pack_bundle, read_bundle
from sealbus.policies.lint.module import PolicyRefused

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
