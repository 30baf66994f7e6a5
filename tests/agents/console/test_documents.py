"""What tests of pages invent is what the server sends, field by field: else they show what nobody will ever see."""

from __future__ import annotations

from typing import Any, TypedDict

import pytest
from support.console_answers import answers, live_map, rows
from support.shapes import optional_fields, unlike

from sealbus.agents.console.documents import DOCUMENTS, EVENTS, DecisionDocument, LinkDocument, LogDocument


@pytest.mark.parametrize("hostile", [False, True])
def test_what_tests_invent_is_what_is_sent(hostile: bool) -> None:
    found = []
    invented = answers(hostile=hostile)
    for path, answer in invented.items():
        kind = DOCUMENTS[path] if path in DOCUMENTS else DOCUMENTS[f"{path.rpartition('/')[0]}/{{id}}"]
        found += [f"{path}{one}" for one in unlike(answer, kind)]
    found += [f"rows{one}" for one in unlike({"rows": rows(1, 60, hostile=hostile)}, EVENTS["decisions"])]
    found += [f"map{one}" for one in unlike(live_map(1, rate=4.0, hostile=hostile), EVENTS["map"])]
    assert found == []
    # Each that has a fixed answer has one here.
    assert DOCUMENTS.keys() - invented.keys() == {"/api/decisions", "/api/decisions/{id}", "/api/approvals/{id}"}


class Inner(TypedDict, total=False):
    b: int


class Outer(TypedDict):
    a: str
    inner: list[Inner]
    n: float | None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"a": "", "inner": [{}, {"b": 1}], "n": None}, []),
        ({"a": "", "inner": [], "n": 2}, []),
        ({"a": "", "inner": []}, [".n: missing"]),
        ({"a": "", "inner": [], "n": 1.5, "x": 1}, [".x: unknown"]),
        ({"a": "", "inner": [{"b": "1"}], "n": 1.5}, [".inner[0].b: str, not int"]),
        ({"a": None, "inner": {}, "n": True}, [".a: NoneType, not str", ".inner: no array", ".n: bool, not float"]),
        ([], [": no object"]),
    ],
)
def test_a_difference_is_seen(value: Any, found: list[str]) -> None:
    assert sorted(unlike(value, Outer)) == found


def test_which_fields_may_be_missing() -> None:
    assert optional_fields(LogDocument) == frozenset()
    assert {"idp", "checks"} <= optional_fields(LinkDocument) <= optional_fields(DecisionDocument)
