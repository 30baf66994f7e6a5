"""What `make weaken` makes weaker: each shape, and that what is probed says what it said before."""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def weakenings() -> ModuleType:
    """Load the script's module, which stands beside the packages and is not installed."""
    for name in ("weakening_shapes", "weakenings"):
        path = Path(__file__).resolve().parents[2] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        # The second imports the first, and neither folder is on the path of the tests.
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["weakenings"]


@pytest.fixture
def helped(weakenings: ModuleType) -> Iterator[object]:
    """Let weakened code find what it calls."""
    helper = weakenings.Probe()
    setattr(builtins, weakenings.HELPER, helper)
    yield helper
    delattr(builtins, weakenings.HELPER)


def functions(weakenings: ModuleType, source: str) -> dict[str, object]:
    """Return what `f` says under each weakening of `source`, by what was made weaker."""
    found = {}
    for one in weakenings.find_weakenings("m", source):
        names: dict[str, object] = {}
        exec(one.make(), names)  # noqa: S102 -- compiled from this very text
        found[one.what] = names["f"]
    return found


@pytest.mark.parametrize(
    ("source", "arguments", "weaker"),
    [
        ("return a == b", ("spiffe://x/a", "spiffe://x/ab"), {"a == b [by prefix]"}),
        ("return a == b", (b"abc", b"abd"), {"a == b [by prefix]"}),
        ("return a == b", ("spiffe://x/a", "spiffe://y/a"), {"a == b [by path]"}),
        ("return not a != b", ("A", "a"), {"a != b [by case]"}),
        ("return a in b", ("A", {"a"}), {"a in b [by case]"}),
        ("return not a not in b", ("spiffe://x/a", ["spiffe://y/a"]), {"a not in b [by path]"}),
        ("return a < b", (1, 1), {"a < b [bound]"}),
        ("return 0 < a <= b", (0, 1), {"0 < a <= b [bound at 0]"}),
        ("return a.startswith(b)", ("Ab", "a"), {"a.startswith(b) [by case]"}),
        ("return min(a, b)", (0, 1), {"min(a, b) [max]"}),
        ("return max(a, default=b)", ([0, -1], 0), {"max(a, default=b) [min]"}),
        ("return a and b", (True, False), {"a and b [b dropped]"}),
        ("return not (a or b)", (False, True), {"a or b [b dropped]"}),
        ("return a is not None and b and a", (True, False), {"a is not None and b and a [b dropped]"}),
        ("return all(one for one in a)", ([1, 0], 0), {"all((one for one in a)) [first only]"}),
        ("return all(one for one in a)", ([0, 1], 0), {"all((one for one in a)) [last only]"}),
    ],
)
def test_each_shape(
    weakenings: ModuleType, helped: object, source: str, arguments: tuple[object, ...], weaker: set[str]
) -> None:
    text = f"def f(a, b):\n    {source}\n"
    strict: dict[str, object] = {}
    exec(text, strict)  # noqa: S102 -- this very text
    ordinary = strict["f"]
    assert callable(ordinary)
    assert not ordinary(*arguments)
    made = functions(weakenings, text)
    assert {what for what, one in made.items() if callable(one) and one(*arguments)} == weaker
    # Probed, it says what it said, and tells which weakening would have said something else.
    names: dict[str, object] = {}
    exec(weakenings.probed("m", text), names)  # noqa: S102 -- compiled from this very text
    probed = names["f"]
    assert callable(probed)
    assert not probed(*arguments)
    numbers = {one.number for one in weakenings.find_weakenings("m", text) if one.what in weaker}
    assert numbers <= {number for _, number in getattr(helped, "found")}  # noqa: B009 -- of a module that is loaded here
    assert getattr(helped, "entered") == {"f"}  # noqa: B009


def test_a_part_less_under_a_hash_and_an_await_less(weakenings: ModuleType) -> None:
    source = "def f(a, b):\n    return sha256(a + b + c).digest()\n"
    assert [one.what for one in weakenings.find_weakenings("m", source)] == [
        f"a + b + c [without {part}]" for part in "abc"
    ]
    source = "async def f(before):\n    await before.wait()\n    await other()\n"
    assert [one.what for one in weakenings.find_weakenings("m", source)] == ["await before.wait() -> pass"]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def f(a, b):\n    return sha256(f'{a} {b}x'.encode()).digest()\n", ["a", "b"]),
        ("def f(a, b):\n    return sha256(pack([1, a, b]))\n", ["1", "a", "b"]),
        ("def f(a, b):\n    return hmac.new(a, b'x' + b, sha256)\n", ["b'x'", "b"]),
        ("def f(a, b):\n    key = (a, b)\n    return cache.get(key)\n", ["a", "b"]),
        ("def f(a, b):\n    if (key := (a, b)) in c: return a, b\n", ["a", "b"]),
        ("def cache_key(a, b):\n    return a, b\n", ["a", "b"]),
        ("def f(a, b):\n    pair = (a, b)\n    return note(f'{a}{b}'), pack([a, b])\n", []),
    ],
)
def test_a_field_less(weakenings: ModuleType, source: str, what: list[str]) -> None:
    found = [one.what for one in weakenings.find_weakenings("m", source)]
    assert [one[one.index("[without ") :] for one in found if "[without " in one] == [
        f"[without {one}]" for one in what
    ]


def test_an_argument_of_the_same_type(weakenings: ModuleType, helped: object) -> None:
    source = (
        "def f(a: int, b: int, c: str):\n"
        "    if a < 0: raise ValueError(a or 'x', key=a)\n"
        "    self.log.warning('x', a)\n"
        "    return g(a, c, key=b)\n"
    )
    made = {one.what: one for one in weakenings.find_weakenings("m", source)}
    assert list(made) == ["a < 0 [bound]", "g of a [b instead]", "key=b of b [a instead]"]
    names: dict[str, object] = {"g": lambda one, other, *, key: (one, other, key)}
    exec(made["g of a [b instead]"].make(), names)  # noqa: S102 -- compiled from this very text
    weak = names["f"]
    assert callable(weak)
    names["self"] = SimpleNamespace(log=SimpleNamespace(warning=lambda *_: None))
    assert weak(1, 2, "c") == (2, "c", 2)
    exec(weakenings.probed("m", source), names)  # noqa: S102 -- compiled from this very text
    probed = names["f"]
    assert callable(probed)
    assert probed(2, 2, "c") == (2, "c", 2)
    assert not {("f", 1), ("f", 2)} & getattr(helped, "found")  # noqa: B009
    assert probed(1, 2, "c") == (1, "c", 2)
    assert {("f", 1), ("f", 2)} <= getattr(helped, "found")  # noqa: B009


def test_a_clause_that_asks_for_a_type_stays(weakenings: ModuleType) -> None:
    source = "def f(a, b):\n    self.log.warning('%s', a or b)\n    raise X(f'{a or b}')\n"
    assert weakenings.find_weakenings("m", source) == []
    source = "def f(a, b):\n    return a is None or not isinstance(b, int) or type(b) is bool or a.x\n"
    assert [one.what.rpartition(" [")[2] for one in weakenings.find_weakenings("m", source)] == ["a.x dropped]"]


@pytest.mark.parametrize("default", ["''", "b''", "0", "0.0", "None", "False", "{}", "[]", "()"])
def test_a_default_that_is_false_stays(weakenings: ModuleType, helped: object, default: str) -> None:
    source = f"def f(a, b):\n    return a or b or {default}\n"
    assert [one.what.rpartition(" [")[2] for one in weakenings.find_weakenings("m", source)] == [
        "a dropped]",
        "b dropped]",
    ]
    names: dict[str, object] = {}
    exec(weakenings.probed("m", source), names)  # noqa: S102 -- compiled from this very text
    probed = names["f"]
    assert callable(probed)
    assert probed("", 1) == 1
    assert getattr(helped, "asked") == {("f", 0), ("f", 1)}  # noqa: B009
    assert getattr(helped, "found") == {("f", 1)}  # noqa: B009


@pytest.mark.parametrize("source", ["a or 'x'", "a or {1: 2}", "a or [b]", "a or b", "a and None"])
def test_what_is_no_default_or_not_false_is_dropped(weakenings: ModuleType, source: str) -> None:
    found = weakenings.find_weakenings("m", f"def f(a, b):\n    return {source}\n")
    assert len(found) == 2


def test_a_text_that_stands_twice_is_two(weakenings: ModuleType) -> None:
    source = "def f(a):\n    if a < 1:\n        return 0\n    return a < 1\n"
    assert [str(one) for one in weakenings.find_weakenings("m", source)] == [
        "m.f: a < 1 [bound]",
        "m.f: a < 1 [bound] (2)",
    ]


def test_a_loop_that_refuses_and_one_that_does_not(weakenings: ModuleType) -> None:
    refusing = "def f(a):\n    for b in a:\n        check(b)\n"
    assert len(weakenings.find_weakenings("m", refusing)) == 2
    assert weakenings.find_weakenings("m", refusing.replace("check", "note")) == []
