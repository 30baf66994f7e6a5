"""The closed list of builtins: for every value of the types that are admitted, both engines give the same, and give one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.native_wheel import evaluated, has_wheel
from support.opa import OpaServer

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.lint.syntax import Array, Expression, Number, Place, Text
from sealbus.policies.types.builtins import BUILTINS, GUARDS, Argument, Builtin, mixed
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.value import (
    ANY,
    JSON,
    NEVER,
    NUMBER,
    TEXT,
    Type,
    array_of,
    join,
    number,
    object_of,
    record,
    set_of,
)

TEXTS: list[Json] = [
    *("", "a", "b", "ab", "aba", "A b", "aXbXc", "0", "-7", "true", "a.b", "a/b", "é", "e\u0301", "ß", "İ", "ς"),
    *("😀", "a😀b", "😀😀", "ü☃", "\u0000", "x\u0000y", "\u00a0 t\n", "\u2028", "\\d", '"', "<&>", "%v"),
]
NUMBERS: list[Json] = [0, 1, 2, 3, 7, 10, 60, 255, -1, -7, 2**31, 2**53 - 1, -(2**53) + 1]
ARRAYS: list[Json] = json.loads(
    """[[], [1], ["a"], ["a", "b"], ["b", "a", "b"], ["😀", ""], [""], ["ü", "A b"], [3, 1, 2, 1], [9007199254740991, 1, -1],
    [[1], [2, []]], [{"a": 1}], [{"a": {"b": 1}}, {"a": {"c": [1]}}], [1, "a", null, true, [], {}], [null], [["a"]]]"""
)
OBJECTS: list[Json] = json.loads(
    """[{}, {"a": 1}, {"a": 1, "b": {"c": 2}}, {"😀": "ü"}, {"": 0}, {"a": {"b": 1, "c": []}}, {"a": {"b": {"d": 2}}},
    {"0": "x", "1": "y"}, {"a": [1, {"b": 2}]}, {"a": null, "b": false}]"""
)
JSON_VALUES: list[Json] = [*TEXTS, *NUMBERS, True, False, None, *ARRAYS, *OBJECTS]
SETS_OF: list[list[Json]] = [
    [],
    [1],
    ["a"],
    ["a", "b"],
    ["😀", "ü"],
    [3, 1, 2],
    [1, "a", None, True],
    [[1], ["a"]],
    [{"a": 1}, {}],
    [""],
]

PLACE = Place(line=1, column=1)
TYPES = DataTypes({"values": JSON_VALUES, "sets": [list(one) for one in SETS_OF]}, [()])


@dataclass(frozen=True)
class Value:
    """One value as it is written in Rego, with its type; `said` is its expression where it is a literal text or number."""

    written: str
    of: Type
    said: Expression


def _values() -> list[Value]:
    found: list[Value] = []
    one: Json
    for one in JSON_VALUES:
        said: Expression = Array(place=PLACE, items=())
        if isinstance(one, str):
            said = Text(place=PLACE, value=one)
        elif isinstance(one, int) and not isinstance(one, bool):
            said = Number(place=PLACE, written=str(one))
        of = DataTypes({"value": one}, [()]).at(("value",))
        found.append(Value(json.dumps(one, ensure_ascii=False), _closed(one, of), said))
    for items in SETS_OF:
        written = f"{{{', '.join(json.dumps(item, ensure_ascii=False) for item in items)}}}" if items else "set()"
        found.append(Value(written, set_of(_closed_all(items)), Array(place=PLACE, items=())))
    flat = {value.written: value for value in found}
    sets = [flat[written] for written in ("set()", "{1}", '{"a", "b"}', "{3, 1, 2}")]
    for several in ((), sets[:2], sets[1:], sets):
        written = f"{{{', '.join(one.written for one in several)}}}" if several else "set()"
        inside = NEVER
        for value in several:
            inside = join(inside, value.of)
        found.append(Value(written, set_of(inside), Array(place=PLACE, items=())))
    return found


def _closed(value: Json, of: Type) -> Type:
    """Return the type of a value by itself, without any place in the data."""
    if isinstance(value, list):
        return array_of(_closed_all(value))
    if isinstance(value, dict):
        return record({name: _closed(one, DataTypes({"v": one}, [()]).at(("v",))) for name, one in value.items()})
    return Type(names=of.names, most=of.most)


def _closed_all(values: list[Json]) -> Type:
    found = NEVER
    for one in values:
        found = join(found, _closed(one, DataTypes({"v": one}, [()]).at(("v",))))
    return found


VALUES = _values()
FEW = VALUES[::2]


def fitting(argument: Argument) -> list[Value]:
    return [one for one in VALUES if argument.fits(one.said, one.of, TYPES)]


def literal(argument: Argument) -> bool:
    """Say whether the argument has to be written out: then no other expression of the same type will do."""
    return not any(argument.fits(Array(place=PLACE, items=()), one.of, TYPES) for one in VALUES)


SPECIAL = {
    "regex.match": ['regex.match("^[a-z]*$", {})', 'regex.match("^.{{2}}$", {})', 'regex.match("a|(b+)?[^a.]", {})'],
    "sprintf": ['sprintf("%v-%%%v", [{}, true])'],
    "time.parse_rfc3339_ns": [
        '[time.parse_rfc3339_ns("1970-01-01T00:00:00Z"), time.parse_rfc3339_ns("2255-06-05T23:47:34Z"), {}]'
    ],
}


def calls(name: str, builtin: Builtin) -> Iterator[tuple[str, list[list[Value]]]]:
    """Yield each call to be written, with {} for what is put in, and the values for that."""
    if name in SPECIAL:
        scalars = (
            [one for one in VALUES if one.of.scalar] if name == "sprintf" else fitting(BUILTINS["split"].arguments[0])
        )
        for template in SPECIAL[name]:
            yield template, [scalars]
        return
    written = [
        [json.loads(one.written) for one in fitting(argument)] if literal(argument) else [None]
        for argument in builtin.arguments
    ]
    for chosen in itertools.product(*written):
        given = ", ".join("{}" if one is None else json.dumps(one, ensure_ascii=False) for one in chosen)
        yield (
            f"{name}({given})",
            [fitting(argument) for argument, one in zip(builtin.arguments, chosen, strict=True) if one is None],
        )


MOST = 4_000
"""Combinations of one call that are asked; of more, every n-th."""


def ask(opa: OpaServer, call: str, pools: list[list[Value]]) -> None:
    combinations = list(itertools.product(*pools))
    combinations = combinations[:: len(combinations) // MOST + 1]
    values = sorted({one.written for combination in combinations for one in combination})
    index = {written: number_of for number_of, written in enumerate(values)}
    arguments = [f"values[given[{number_of}]]" for number_of in range(len(pools))]
    listed = ",\n".join(values)
    text = (
        f"package p\n\nvalues := [\n{listed}\n]\n\n"
        f'r[number] := {{"value": value}} if {{\n\tsome number, given in input.given\n'
        f"\tvalue := {call.format(*arguments)}\n}}\n"
    )
    document = {"given": [[index[one.written] for one in combination] for combination in combinations]}
    modules, asked = [Module(path="p.rego", text=text)], json.dumps(document).encode()
    here = Interpreter(modules, b"{}").evaluate("data.p.r", asked)
    if has_wheel():
        assert evaluated(modules, b"{}", "data.p.r", [asked]) == [here]
    opa.put_data({})
    assert opa.put_policy("p", text) == ""
    there: Any = opa.evaluate("p.r", document)
    assert here == there["value"]
    assert isinstance(here, dict)
    name = call.partition("(")[0]
    if name not in BUILTINS or not BUILTINS[name].partial:
        assert len(here) == len(combinations)
    assert combinations


@pytest.fixture(scope="module")
def opa() -> Iterator[OpaServer]:
    with OpaServer() as server:
        yield server


@pytest.mark.opa
@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_a_builtin_gives_the_same_for_everything_that_it_may_be_given(opa: OpaServer, name: str) -> None:
    for call, pools in calls(name, BUILTINS[name]):
        ask(opa, call, pools)


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_what_a_builtin_gives_is_of_the_type_that_is_said(name: str) -> None:
    builtin = BUILTINS[name]
    if name in SPECIAL:
        return
    pools = [fitting(argument)[::3] for argument in builtin.arguments]
    combinations = list(itertools.product(*pools))
    for combination in combinations[:: len(combinations) // 60 + 1]:
        given = builtin.result([one.said for one in combination], [one.of for one in combination], TYPES)
        call = f"{name}({', '.join(one.written for one in combination)})"
        text = f'package p\n\nr := {{\n"name": type_name(v),\n"value": v\n}} if v := {call}\n'
        found = Interpreter([Module(path="p.rego", text=text)], b"{}").evaluate("data.p.r", b"{}")
        if isinstance(found, dict):
            assert str(found["name"]).replace("string", "text") in given.names, call
            if isinstance(found["value"], int) and not isinstance(found["value"], bool):
                assert abs(found["value"]) <= given.most, call
            if found["name"] in ("array", "set") and found["value"]:
                items = [DataTypes({"v": item}, [()]).at(("v",)).names for item in found["value"]]
                assert all(item & TYPES.items(given).names or TYPES.items(given).may_hold("set") for item in items), (
                    call
                )


@pytest.mark.parametrize(
    ("name", "place", "one", "fits"),
    [
        ("count", 0, TEXT, False),
        ("count", 0, join(TEXT, array_of(TEXT)), False),
        ("concat", 1, array_of(join(TEXT, NUMBER)), False),
        ("concat", 1, array_of(NEVER), True),
        ("object.subset", 0, array_of(TEXT), False),
        ("object.subset", 0, object_of(TEXT, TEXT), False),
        ("replace", 1, TEXT, False),
        ("substring", 1, NUMBER, False),
        ("substring", 2, number(2**60), False),
        ("abs", 0, number(2**64), False),
        ("time.clock", 0, number(2**63), False),
        ("time.clock", 0, array_of(NUMBER), False),
        ("time.parse_rfc3339_ns", 0, TEXT, False),
        ("sort", 0, set_of(join(set_of(TEXT), object_of(TEXT, TEXT))), False),
        ("sort", 0, ANY, False),
        ("sort", 0, array_of(JSON), True),
        ("sprintf", 1, array_of(array_of(TEXT)), False),
        ("union", 0, set_of(array_of(TEXT)), False),
        ("strings.any_prefix_match", 0, array_of(NUMBER), False),
    ],
)
def test_what_a_builtin_takes(name: str, place: int, one: Type, fits: bool) -> None:
    said = Array(place=PLACE, items=())
    assert BUILTINS[name].arguments[place].fits(said, one, TYPES) is fits


@pytest.mark.parametrize(
    "gone", ["glob.match", "walk", "http.send", "lower", "to_number", "json.marshal", "numbers.range"]
)
def test_what_is_not_in_the_list(gone: str) -> None:
    assert gone not in BUILTINS


def test_the_guards_are_builtins_of_one_argument() -> None:
    assert all(len(BUILTINS[name].arguments) == 1 for name in GUARDS)


def test_sets_and_objects_mix_at_every_depth() -> None:
    assert mixed(array_of(set_of(TEXT)), object_of(TEXT, TEXT))
    assert not mixed(array_of(set_of(TEXT)), array_of(TEXT))
    assert not mixed(JSON)
