"""Lookups in names, the request, data and rules."""

from __future__ import annotations

import pytest
from support.rule_types import decides, refused


@pytest.mark.parametrize(
    "body",
    [
        "some name, one in data.people\nstartswith(name, \"a\")\none.level * 2 > 1\ncount(one.groups) == 0",
        "data.limits[request.action.name] + 1 > 2",
        "everybody[request.context.user.id].level > 1",
        "data.people.ann.groups[_] == \"a\"",
        "some x in data.empty\nx > 1",
        "some i\nrequest.context.chain[i] == \"a\"\ni + 1 == 2",
        "g := \"a\"\n{g: 1}.a == 1",
        "[\"x\"][0] == \"x\"",
        "{1, 2}[1]",
    ],
)  # fmt: skip
def test_lookups_that_cannot_fail(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ("o := {\"a\": 1}\no.b", ["match"]),
        ("o := {\"a\": 1}\no.a.b", ["match"]),
        ("xs := [1]\nxs[1] == 1", ["match"]),
        ("xs := [[1], []]\nx := xs[0]\nx[1] == 1", ["match"]),
        ("xs := []\nxs[_] == 1", ["match"]),
        ("xs := [x | some x in []]\nxs[1] == 1", ["match"]),
        ('some x in []\ns := {"a"}\ns[x] == [1]', ["match"]),
        ("xs := [1]\nx := request.action.name\nxs[x] == 1", ["match"]),
        ("xs := {1}\nx := request.action.name\nxs[x]", ["match"]),
        ("xs := [1]\n[a, b] := xs\na == b", ["match"]),
        ('xs := [1]\n[a, b] := ["x", 1]\nxs[a] == b', ["match"]),
        ("data.sealbus[request.action.name]", ["lookup"]),
        ("x := request.context.delivery\neverybody[x].level == 1", ["lookup"]),
    ],
)  # fmt: skip
def test_lookups_that_find_nothing_or_differ(body: str, forms: list[str]) -> None:
    assert refused(decides(body)) == forms


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ('decide(request) := f(1)[1]\nf(x) := ["a"] if { x == 1 } else := []', ["match"]),
        ('decide(request) := f(1)[1]\nf(x) := ["a"] if { x == 1 } else := ["a", "b"]', []),
        ('decide(request) := count(s["a"])\ns contains x if some x in [["a"], "a"]', ["type"]),
        ('decide(request) := trim_space(s["a"])\ns contains x if some x in [["a"], "a"]', []),
        ("decide(request) := 1 if { x := data.empty.a; is_string(x); trim_space(r[x]) }\nr := {\"a\": 1}", ["type"]),
        ('decide(request) := 1 if s["a"] == {1}\ns contains x if some x in data.odd', ["match"]),
        ("decide(request) := [trim_space(x) | some x; s[x]]\ns contains x if some x in [\"a\"]", []),
        ("decide(request) := [1 | s[_]]\ns contains x if some x in [\"a\"]", []),
        ("decide(request) := m.a + 1\nm[k] := v if some k, v in data.limits", []),
        ("decide(request) := m.a.x + 1\nm[k].x := v if some k, v in data.limits", ["conflict"]),
        ("decide(request) := m.x.a + 1\nm.x[k] := v if some k, v in data.limits", []),
        ("decide(request) := r + 1\nr := 1", []),
        ("decide(request) := r + 1\nr := \"a\"", ["type"]),
        ("decide(request) := r + 1\ndefault r := 1\nr := 1 if data.odd.a == 1", []),
        ("decide(request) := count(s)\ns contains x if some x in data.people", []),
        ("decide(request) := count(m)\nm[k][l] := 1 if { some k, _ in data.limits; some l, _ in data.people }", ["lookup"]),
        ("decide(request) := data.sealbus.authz.r[request.context.delivery]\nr := {\"1\": 1}", ["lookup", "match"]),
    ],
)  # fmt: skip
def test_lookups_in_rules_and_results_of_functions(rules: str, forms: list[str]) -> None:
    assert refused(rules) == forms
