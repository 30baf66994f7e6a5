"""Types of what stands in the data."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.types.data import DataTypes
from sealbus.policies.types.value import (
    ANY,
    BOOLEAN,
    JSON,
    NEVER,
    NUMBER,
    TEXT,
    DataPath,
    array_of,
    join,
    narrowed,
    number,
    object_of,
    record,
    set_of,
)

DATA: Json = {
    "people": {"ann": {"level": 3, "groups": ["a"]}, "bob": {"level": -7}, "0": None},
    "list": [1, "a", [True]],
    "empty": {},
}
KNOWN = DataTypes(DATA, [()])


@pytest.mark.parametrize(
    ("path", "names", "most"),
    [
        (("people",), {"object"}, 0),
        (("people", None), {"object", "null"}, 0),
        (("people", None, "level"), {"number"}, 7),
        (("people", "ann", "groups", None), {"text"}, 0),
        (("list", None), {"number", "text", "array"}, 1),
        (("list", None, None), {"boolean"}, 0),
        (("list", "0"), set(), 0),
        (("empty", None), set(), 0),
        (("nothing",), set(), 0),
    ],
)
def test_what_stands_at_a_path(path: DataPath, names: set[str], most: int) -> None:
    found = KNOWN.at(path)
    assert set(found.names) == names
    assert found.most == most


def test_of_a_part_only_what_is_below_its_roots_is_known() -> None:
    part = DataTypes(DATA, [("people",)])
    assert part.at(("people", "bob", "level")).most == 7
    assert part.at(("list",)) == JSON
    assert DataTypes(DATA, [()], known=False).at(("people",)) == ANY


def test_items_keys_and_fields() -> None:
    people = KNOWN.at(("people",))
    assert KNOWN.items(people).names == {"object", "null"}
    assert KNOWN.keys(people) == TEXT
    assert KNOWN.field(KNOWN.field(people, "ann"), "level").most == 3
    assert KNOWN.field(people, "eve") == NEVER
    assert KNOWN.keys(KNOWN.at(("list",))) == NUMBER
    assert KNOWN.items(TEXT) == KNOWN.field(TEXT, "a") == NEVER
    assert KNOWN.items(JSON) == KNOWN.field(JSON, "a") == JSON
    assert KNOWN.items(ANY) == KNOWN.field(ANY, "a") == KNOWN.keys(ANY) == ANY
    assert KNOWN.keys(narrowed(ANY, frozenset({"text"}))) == NEVER
    assert KNOWN.keys(set_of(BOOLEAN)) == BOOLEAN
    assert KNOWN.keys(object_of(NUMBER, TEXT)) == NUMBER
    assert KNOWN.field(record({"a": TEXT}), "b") == NEVER
    assert KNOWN.field(object_of(TEXT, NUMBER), "b") == NUMBER
    assert KNOWN.items(join(record({"a": TEXT}), array_of(number(4)))) == join(TEXT, number(4))
