"""What `make removal` takes for a check: each shape, its polarity, and that nothing refuses unseen."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def removals() -> ModuleType:
    """Load the script's module, which stands beside the packages and is not installed."""
    path = Path(__file__).resolve().parents[2] / "scripts" / "removals.py"
    spec = importlib.util.spec_from_file_location("removals", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["removals"] = module
    spec.loader.exec_module(module)
    return module


def found(removals: ModuleType, source: str) -> list[str]:
    """Return what is removed from `source`, one check a line."""
    return [removal.what for removal in removals.find_removals("wire", source)]


RAISE = "        raise EnvelopeError(Code.MALFORMED, 4)\n"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("a", ["a -> False"]),
        ("not a", ["not a -> not True"]),
        ("a or b", ["a or b -> False or b", "a or b -> a or False"]),
        ("a and b", ["a and b -> False"]),
        ("not (a and b)", ["not (a and b) -> not (True and b)", "not (a and b) -> not (a and True)"]),
        ("not a < b < c", ["not a < b < c -> not b < c", "not a < b < c -> not a < b"]),
        ("a < b < c", ["a < b < c -> False"]),
    ],
)
def test_each_operand_of_a_condition_is_a_check(removals: ModuleType, condition: str, expected: list[str]) -> None:
    assert found(removals, f"def f(a, b, c):\n    if {condition}:\n{RAISE}") == expected


def test_other_shapes(removals: ModuleType) -> None:
    assert found(removals, f"def f(a):\n    if a:\n        return a\n{RAISE[4:]}") == ["a -> True"]
    assert found(removals, f"def f(a):\n    if a:\n        g()\n    else:\n{RAISE}") == ["a -> True"]
    assert found(removals, "def f(a):\n    check_it(a)\n") == ["check_it(a) -> pass"]
    handled = f"def f(a):\n    try:\n        g()\n    except ValueError as error:\n{RAISE}"
    assert found(removals, handled) == ["raise EnvelopeError(Code.MALFORMED, 4) -> raise"]
    tried = (
        f"def f(a):\n    try:\n        if a:\n            return a\n    except ValueError:\n        pass\n{RAISE[4:]}"
    )
    assert found(removals, tried) == ["a -> True"]


def test_a_predicate_that_a_check_asks_is_part_of_it(removals: ModuleType) -> None:
    source = f"def f(a):\n    if not fits(a):\n{RAISE}\ndef fits(a) -> bool:\n    return a > 0 and a < 9\n"
    assert found(removals, source) == [
        "not fits(a) -> not True",
        "a > 0 and a < 9 -> True and a < 9",
        "a > 0 and a < 9 -> a > 0 and True",
    ]


def test_the_step_comes_from_the_refusal(removals: ModuleType) -> None:
    [removal] = removals.find_removals("wire", f"def f(a):\n    if a:\n{RAISE}")
    assert removal.step == 4
    maker = "def _refused():\n    return EnvelopeError(Code.MALFORMED, 6)\n"
    through = f"def f(a):\n    if a:\n        raise _refused()\n\n{maker}"
    assert [removal.step for removal in removals.find_removals("wire", through)] == [6]


def test_what_is_removed_is_removed_from_the_code(removals: ModuleType) -> None:
    [removal] = removals.find_removals("wire", f"def f(a):\n    if a:\n{RAISE}    return 'accepted'\n")
    names: dict[str, object] = {}
    exec(removal.code, names)  # noqa: S102 -- compiled above, from this very text
    function = names["f"]
    assert callable(function)
    assert function(1) == "accepted"


def test_a_fault_of_ones_own_is_no_check(removals: ModuleType) -> None:
    assert found(removals, "def f(a):\n    if a:\n        raise SealError('x')\n") == []


def test_a_refusal_of_an_unknown_shape_is_told(removals: ModuleType) -> None:
    known = f"def f(a):\n    if a:\n{RAISE}"
    assert removals.unseen_refusals("wire", known) == []
    unknown = f"def f(a):\n    for b in a:\n        g(b)\n{RAISE}"
    assert len(removals.unseen_refusals("wire", unknown)) == 1
