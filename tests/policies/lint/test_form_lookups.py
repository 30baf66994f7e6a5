"""Looking up where the data has an array."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.parse import parse
from sealbus.policies.lint.undefined import lookup_problems

DATA: dict[str, Json] = {"list": [1, 2], "tree": {"a": {"l": [[1]]}, "b": {"m": 1}}, "one": 1}


def refused(text: str) -> list[tuple[str, int]]:
    file = parse(Module(path="a.rego", text=f"package p\n\nimport data.tree as t\nimport rego.v1\n\n{text}\n"))
    return [(found.form, found.column) for rule in file.rules for found in lookup_problems(file, rule, DATA)]


@pytest.mark.parametrize(
    "text",
    [
        "r := data.list[0]",
        "r if { some i; data.list[i] == 1 }",
        "r if { data.list[_] == 1 }",
        "r if { some x in data.list; x == 1 }",
        "r := data.tree.a.l[0][0]",
        "r(x) := data.tree[x].m",
        "r(x) := data.none[x]",
        "r(x) := data.one[x]",
        "r(x) := x[0].y",
        "r := [1][0]",
        "r := data.list",
    ],
)
def test_alike(text: str) -> None:
    assert refused(text) == []


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ('r := data.list["1"]', 16),
        ("r(x) := data.list[x]", 19),
        ("r(x) := data.tree[x].l[x]", 24),
        ("r(x) := t.a.l[x]", 15),
        ("r(x) := data.tree.a.l[0][x.y]", 26),
    ],
)
def test_otherwise(text: str, column: int) -> None:
    assert refused(text) == [("lookup", column)]
