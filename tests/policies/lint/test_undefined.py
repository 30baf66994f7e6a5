"""What may stand under `not`."""

from __future__ import annotations

import pytest
from support.rego_forms import problems_of


def refused(statement: str) -> list[str]:
    text = (
        "package p\n\nf(x) if x == 1\n\ng(x) if {\n  named := x.a\n  other := 1\n  every e in [1] { e == 1 }\n"
        f"  {statement}\n}}\n\nrule := 1\n"
    )
    return [problem.text for problem in problems_of(text) if problem.form == "negation"]


@pytest.mark.parametrize(
    "statement",
    ["not named", "not true", "not x.y.z", "not data.d[named]", "not data.d[named].e[other]", "not x.y == 1",
     "not x.y == x.z",
     "not named == other", "not named in [other, 2]", "not f(named)", "not named > 3", "not [named] == [1]",
     'not {"k": named} == {"k": 1}', 'not data.d["a"]', "not rule", "every e in [1] { not e == named }"],
)  # fmt: skip
def test_alike(statement: str) -> None:
    assert refused(statement) == []


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("not data.d[x.y]", "may be undefined"),
        ("not f(x.y)", "may be undefined"),
        ("not f(rule)", "may be undefined"),
        ("not f(count(named))", "may be undefined"),
        ("not x.y in [1]", "may be undefined"),
        ("not x.y != 1", "may be undefined"),
        ("not x.y + 1 == 2", "may be undefined"),
        ("not data.d[x.y] == 1", "may be undefined"),
        ("not [x.y] == [1]", "may be undefined"),
        ("not [named][0]", "a lookup under `not` needs a name"),
        ("not [y | y := named]", "name it first"),
        ("not data.d[_]", "write a rule for this"),
        ("every e in [1] { not data.d[e] }", "of `every`"),
    ],
)
def test_otherwise(statement: str, why: str) -> None:
    [text] = refused(statement)
    assert why in text
