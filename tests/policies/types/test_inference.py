"""What the types of a policy's values tell: that nothing in it fails, and what OPA's compiler would refuse."""

from __future__ import annotations

import pytest

from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.lint.lint import parse_all
from sealbus.policies.lint.module import Module
from sealbus.policies.types.inference import type_problems
from sealbus.policies.types.rules import CALLS
from sealbus.policies.types.value import DataPath

DATA: Json = {
    "people": {"ann": {"level": 3, "groups": ["a"]}, "bob": {"level": 7, "groups": []}},
    "limits": {"a": 10},
    "odd": {"a": 1, "b": "x"},
    "empty": {},
}
UNCALLED = "decide(request) := 1 if { some x in []; f(x) }\n"
HEAD = "package sealbus.authz\n\nimport data.people as everybody\n\ndecision := decide(input)\n\n"


def refused(text: str, roots: tuple[DataPath, ...] = ((),), head: str = HEAD) -> list[str]:
    files, problems = parse_all([Module(path="a.rego", text=f"{head}{text}\n")])
    assert problems == []
    return sorted({found.form for found in type_problems(files, DATA, roots)})


def decides(body: str) -> str:
    return f"decide(request) := 1 if {{\n{body}\n}} else := 2"


@pytest.mark.parametrize(
    "body",
    [
        # What the shape of a question says.
        "startswith(request.action.name, request.subject.id)",
        "count(request.context.chain) > 1",
        'concat(",", request.context.chain) != ""',
        "request.context.delivery + 1 > 2",
        "time.clock(time.parse_rfc3339_ns(request.context.time)) == [1, 2, 3]",
        "t := request.context.time\ntime.weekday(time.parse_rfc3339_ns(t) + 60 * 1000000000) == \"Monday\"",
        # What the data says.
        "some name, one in data.people\nstartswith(name, \"a\")\none.level * 2 > 1\ncount(one.groups) == 0",
        "data.limits[request.action.name] + 1 > 2",
        "everybody[request.context.user.id].level > 1",
        "data.people.ann.groups[_] == \"a\"",
        "some x in data.empty\nx > 1",
        # What the policy asks.
        "x := request.resource.properties.owner\nis_string(x)\nstartswith(x, \"a\")",
        "is_string(request.resource.properties.owner)\nstartswith(request.resource.properties.owner, \"a\")",
        "x := request.resource.properties.owner\nx == request.context.user.id\nstartswith(x, \"a\")",
        "x := request.resource.properties.owner\n\"a\" == x\nstartswith(x, \"a\")",
        "x := request.resource.properties.owner\nx in [\"a\", \"b\"]\nstartswith(x, \"a\")",
        "x := request.resource.properties.tags\nis_array(x)\nsome y in x\nis_string(y)\nstartswith(y, \"a\")",
        "is_number(data.odd[request.action.name])\ndata.odd[request.action.name] + 1 > 1",
        "i := request.context.delivery\nxs := request.context.chain\nis_string(xs[i])\nstartswith(xs[i], \"a\")",
        "is_number(request.action.properties[request.context.tenant])\nrequest.action.properties[request.context.tenant] > 1",
        "every x in request.context.chain { is_string(x); startswith(x, \"a\") }",
        "every k, v in data.limits { startswith(k, \"a\"); v + 1 > 1 }",
        "some i, x in request.context.chain\ni + 1 == 2\nstartswith(x, \"a\")",
        "[a, b] := request.context.chain\nstartswith(a, b)",
        "some [a, _] in [[\"x\", 1]]\nstartswith(concat(\"\", [sprintf(\"%v\", [a])]), \"x\")",
        "some i\nrequest.context.chain[i] == \"a\"\ni + 1 == 2",
        "not request.context.user.present",
        "xs := [x | some x in request.context.chain]\nstartswith(xs[0], \"a\")",
        "xs := {x: 1 | some x in request.context.chain}\nxs.a + 1 == 2",
        "xs := {k: v | some k, v in data.limits}\nxs.a + 1 == 2",
        "xs := {\"a\", \"b\"} - {\"a\"}\n(xs | {\"c\"}) & {\"c\"} == {\"c\"}",
        "object.get(data.limits, request.action.name, 0) + 1 > 2",
        "object.get({\"a\": {\"b\": 1}}, [\"a\", \"b\"], 0) == 1",
        "o := object.union({\"a\": 1}, {\"b\": \"x\"})\nobject.get(o, \"a\", 1) == 1",
        "o := object.union({\"a\": {\"b\": 1}}, {\"a\": {\"c\": {1}}})\nobject.get(o, \"a\", 1) == 1",
        "request.context.delivery % 3 == 1",
        "abs(request.context.delivery - 3) == 1",
        'xs := request.context.chain\nx := "a" in xs\nx == true',
        "x := [1, \"a\" in [\"a\"]]\nx[1] == true",
        "g := \"a\"\n{g: 1}.a == 1",
        "null == request.action.properties.x",
        "[\"x\"][0] == \"x\"",
        "{1, 2}[1]",
        "1 in {1, 2}",
        "request.resource.properties.a < request.resource.properties.b",
    ],
)  # fmt: skip
def test_what_cannot_fail(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ("startswith(request.resource.properties.owner, \"a\")", ["type"]),
        ("count(request.resource.properties.tags) == 1", ["type"]),
        ("count(request.action.name) == 1", ["type"]),
        ("x := request.resource.properties.owner\nnot is_string(x)\nstartswith(x, \"a\")", ["type"]),
        ("x := request.resource.properties.owner\nis_number(x)\nstartswith(x, \"a\")", ["type"]),
        ("concat(\"\", request.resource.properties.tags) == \"\"", ["type"]),
        ("x := request.resource.properties.tags\nis_array(x)\nconcat(\"\", x) == \"\"", ["type"]),
        ("request.resource.properties.amount + 1 == 2", ["type"]),
        ("request.resource.properties.amount | {1} == {1}", ["type"]),
        ("{1} - request.resource.properties.amount == {1}", ["type"]),
        ("1 - {1} == 1", ["type"]),
        ("request.context.delivery % request.context.delivery == 1", ["type"]),
        ("request.context.delivery % 0 == 1", ["type"]),
        ("some x in request.resource.properties.tags\nx == 1", ["type"]),
        ("time.clock(request.context.delivery * 9007199254740991) == [1]", ["type"]),
        ("time.parse_rfc3339_ns(request.context.tenant) == 1", ["type"]),
        ("data.odd[request.action.name] + 1 == 2", ["type"]),
        ("sprintf(\"%v\", [request.context.chain]) == \"\"", ["type"]),
        ("[count(request.context.delivery), 1] == [1, 1]", ["type"]),
        ("x := \"a\" in request.resource.properties.tags\nx == false", ["in"]),
        ("x := request.resource.properties.owner in [\"a\"]\nx == false", ["in"]),
        ("x := max([]) in [1]\nx == false", ["in"]),
        ("xs := {{1}, {\"a\": 1}}\nxs == 1", ["match", "order"]),
        ("xs := {x | some x in [{1}, {\"a\": 1}]}\nxs != 1", ["order"]),
        ("xs := [{1}, 1]\nys := [{\"a\": 1}, 1]\nxs < ys", ["order"]),
        ("xs := {k: 1 | some k in [{1}, {\"a\": 1}]}\nxs != 1", ["type"]),
        ("k := {1}\nl := {\"a\": 1}\nxs := {k: 1, l: 2}\nxs != 1", ["type"]),
        ("xs := {k: v | some v, k in data.limits}\nxs != 1", ["conflict"]),
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
        ("o := {\"a\": 1}\no.b", ["match"]),
        ("o := {\"a\": 1}\no.a.b", ["match"]),
        ('x := 1\nis_string(x)\nstartswith(x, "a")', ["match"]),
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
def test_what_could_fail_or_means_another_thing_to_opa(body: str, forms: list[str]) -> None:
    assert refused(decides(body)) == forms


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ("decide(request) := f(request.action.name)\nf(x) := trim_space(x)", []),
        ("decide(request) := f(request.context.delivery)\nf(x) := trim_space(x)", ["type"]),
        ("decide(request) := 1\nf(x) := trim_space(x)", ["type"]),
        ("decide(request) := 1\nf(x) := trim_space(x) if is_string(x)", []),
        ("decide(request) := f(request.action.name)\nf(x) := trim_space(g(x))\ng(x) := x if x != \"\"", []),
        ("decide(request) := f(1)\nf(\"a\") := 1", ["match"]),
        # From what a function does with an argument OPA's compiler learns what it may be called with.
        ("decide(request) := f(\"a\", [1])\nf(\"a\", b) := 1 if { b in {\"0\"} }", ["match"]),
        ("decide(request) := f([1])\nf(a) := 1 if { a in {\"0\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { endswith(a, \"x\") } else := 2 if { a == \"s\" }", ["match", "type"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a == \"x\" }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not \"x\" == a }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a in {\"x\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := b if { b := a in {\"x\"} }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not g(a) }\ng(a) := 1 if { not a == \"x\" }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { not a == 0; is_string(a) }", []),
        ("decide(request) := f(true, \"x\")\nf(a, b) := 1 if { is_string(b); not a == b }", []),
        ("decide(request) := f(true, \"x\")\nf(a, b) := 1 if { b == \"x\"; not a == b }", ["match"]),
        ("decide(request) := f(request)\nf(r) := 1 if { x := r.resource.type; not x in {1}; is_string(x) }", []),
        ("decide(request) := f(1)\nf(a) := 1 if { every b in [\"x\"] { not a == b } }", []),
        # From where an argument stands OPA's compiler learns what it is.
        (UNCALLED + "f(a) := 1 if { endswith(a, \"x\"); xs := [1]; xs[a] == 1 }", ["match"]),
        (UNCALLED + "f(a) := 1 if { x := a + 1; xs := {\"k\": 1}; xs[a] == x }", ["match"]),
        (UNCALLED + "f(a) := 1 if { xs := {\"k\": 1}; xs[a] == 1; a == 1 }", ["match"]),
        (UNCALLED + "f(a) := 1 if { not endswith(a, \"x\"); xs := [1]; xs[a] == 1 }", ["match"]),
        # From what holds nothing OPA's compiler learns nothing.
        ("decide(request) := f(1)\nf(a) := 1 if { x := trim(\"ab\", \"b\"); x in []; x == 1 }", ["match"]),
        ("decide(request) := f(1)\nf(a) := 1 if { x := trim(\"ab\", \"b\"); xs := [1]; x in []; xs[x] == 1 }", ["match"]),
        # What a builtin gives, whatever it is given.
        ("decide(request) := f({{1}})\nf(a) := 1 if { intersection({a}) == \"x\" }", ["match"]),
        ("decide(request) := f({{1}})\nf(a) := 1 if { union({a}) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.filter(a, []) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.remove(a, []) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.union(a, a) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.union_n([a]) == \"x\" }", ["match"]),
        ("decide(request) := f(true)\nf(null) := 1", ["match"]),
        ("decide(request) := f(\"a\")\nf(1) := 1", ["match"]),
        ("decide(request) := f([1])\nf([\"a\"]) := 1", ["match"]),
        ("decide(request) := f([1])\nf([x]) := x + 1", []),
        ("decide(request) := r + 1\nr := 1", []),
        ("decide(request) := r + 1\nr := \"a\"", ["type"]),
        ("decide(request) := r + 1\ndefault r := 1\nr := 1 if data.odd.a == 1", []),
        ('decide(request) := f(1)[1]\nf(x) := ["a"] if { x == 1 } else := []', ["match"]),
        ('decide(request) := f(1)[1]\nf(x) := ["a"] if { x == 1 } else := ["a", "b"]', []),
        ('decide(request) := 1 if ["a"] == f(1)\nf(x) := ["a"] if { x == 1 } else := []', []),
        ("decide(request) := count(s)\ns contains x if some x in data.people", []),
        ('decide(request) := count(s["a"])\ns contains x if some x in [["a"], "a"]', ["type"]),
        ('decide(request) := trim_space(s["a"])\ns contains x if some x in [["a"], "a"]', []),
        ("decide(request) := 1 if { x := data.empty.a; is_string(x); trim_space(r[x]) }\nr := {\"a\": 1}", ["type"]),
        ('decide(request) := 1 if s["a"] == {1}\ns contains x if some x in data.odd', ["match"]),
        ("decide(request) := [trim_space(x) | some x; s[x]]\ns contains x if some x in [\"a\"]", []),
        ("decide(request) := [1 | s[_]]\ns contains x if some x in [\"a\"]", []),
        ("decide(request) := count(s)\ns contains x if some x in [{1}, {\"a\": 1}]", ["order"]),
        ("decide(request) := m.a + 1\nm[k] := v if some k, v in data.limits", []),
        ("decide(request) := m.a.x + 1\nm[k].x := v if some k, v in data.limits", ["conflict"]),
        ("decide(request) := m.x.a + 1\nm.x[k] := v if some k, v in data.limits", []),
        ("decide(request) := data.sealbus.authz.r[request.context.delivery]\nr := {\"1\": 1}", ["lookup", "match"]),
        ("decide(request) := 1 if { request.v == 1 } else := 2", []),
        ("decide(request) := request.resource.properties.a if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := a if { a := request.resource.properties.a } else := 2", []),
        ("decide(request) := request.resource.properties.a if { request.resource.properties.a } else := 2", []),
        ("decide(request) := data.people[request.context.user.id] if { data.people[request.context.user.id] } else := 2", []),
        ("decide(request) := data.people[_] if { data.people[_] } else := 2", ["conflict", "else"]),
        ("decide(request) := {\"a\": [count(\"a\" == 1)]} if { request.v == 1 } else := 2", ["type"]),
        ("decide(request) := {\"a\": [trim_space(\"a\"), 1 + 2]} if { request.v == 1 } else := 2", []),
        ("decide(request) := [f(1)] if { request.v == 1 } else := 2\nf(x) := x if { x > 2 }", ["else"]),
        ("decide(request) := [f(1)] if { request.v == 1 } else := 2\nf(x) := {\"a\": [x]}", []),
        ("decide(request) := f(request.v, 1) if { request.v == 1 } else := 2\nf(x, _) := [y | some y in [x]]", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := data.limits[x]", ["else"]),
        ("decide(request) := f(\"a\") if { request.v == 1 } else := 2\nf(\"a\") := 1", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := g(x)\ng(x) := [x]", []),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := g(x)\ng(x) := [x] if { x > 1 }", ["else"]),
        ("decide(request) := f(1) if { request.v == 1 } else := 2\nf(x) := 1 if { x > 2 }\nf(x) := 1", []),
        ("decide(request) := max([1]) if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := [input.a][0] if { request.v == 1 } else := 2", ["else"]),
        ("decide(request) := 1 if { request.v == 1 } else := request.resource.properties.a", []),
    ],
)  # fmt: skip
def test_rules_and_functions(rules: str, forms: list[str]) -> None:
    assert refused(rules) == forms


PRODUCT = "x{1} := y{0} * y{0}"


@pytest.mark.parametrize(
    "step",
    [
        "y{0} := x{0}",
        "y{0} := x{0} + 1",
        "y{0} := sum([x{0}])",
        "y{0} := max({{x{0}, 1}})",
        "some y{0} in array.concat([x{0}], [1])",
        "some y{0}, _ in {{x{0}: 1}}",
        "y{0} := f(x{0})",
        # Where it is looked up is known as JSON only, or not at all.
        'y{0} := object.get({{"a": {{"b": x{0}}}}}, ["a", "b"], 0)\nis_number(y{0})',
        'o{0} := object.union({{"a": {{"b": x{0}}}}}, {{"a": {{"c": 1}}}})\ny{0} := o{0}.a.b\nis_number(y{0})',
        'some y{0}, _ in object.union({{x{0}: {{"a": 1}}}}, {{x{0}: {{"b": 1}}}})\nis_number(y{0})',
        'some o{0} in [data.others, {{"n": x{0}}}]\ny{0} := o{0}.n\nis_number(y{0})',
        "some o{0} in [data.others, {{x{0}}}]\nis_set(o{0})\nsome y{0} in o{0}\nis_number(y{0})",
    ],
)
def test_no_way_around_makes_a_product_that_only_grows(step: str) -> None:
    rest = f"{step}\n{PRODUCT}"
    lines = ["x0 := request.context.delivery", *(rest.format(number, number + 1) for number in range(4)), "x4 > 1"]
    text = f'{decides(chr(10).join(lines))}\nf(x) := {{"a": x}}.a'
    assert refused(text, roots=(("people",), ("limits",))) == ["number"]


def test_what_multiplies_few_numbers_or_remainders_is_admitted() -> None:
    assert refused(decides("x := request.context.delivery\ny := x * x\ny * y > 1")) == []
    assert refused(decides("x := request.context.delivery\ny := x * x\ny * y * x > 1")) == ["number"]
    assert refused(decides("x := sum([n | some n in request.resource.properties.tags; is_number(n)])\nx > 1")) == [
        "type"
    ]
    assert refused(decides("x := sum([n | some _, n in data.limits])\nx * x * 10 > 1")) == []
    steps = "\n".join(f"x{number + 1} := (x{number} * x{number}) % 1000" for number in range(40))
    assert refused(decides(f"x0 := request.context.delivery\n{steps}\nx40 > 1")) == []
    sums = "\n".join(f"x{number + 1} := x{number} + x{number}" for number in range(300))
    assert refused(decides(f"x0 := request.context.delivery\n{sums}\nx300 > 1")) == []
    assert refused("decide(request) := f(request.context.delivery)\nf(x) := x * 2 if is_number(x)") == []
    assert refused("decide(request) := 1\nf(x) := x * 2 if is_number(x)") == ["number"]


def test_a_value_that_holds_the_one_before_twice_is_soon_unknown() -> None:
    steps = [f'x{number + 1} := {{"a": x{number}, "b": x{number}}}' for number in range(20)]
    for count, forms in ((10, []), (20, ["order"])):
        assert refused(decides("\n".join(["x0 := 1", *steps[:count], f"{{x{count}}} != set()"]))) == forms


def test_a_function_that_is_called_with_very_many_types_is_looked_at_as_if_they_were_unknown() -> None:
    def calls(count: int) -> str:
        nested = [f'f({"[" * depth}"a"{"]" * depth})' for depth in range(3)]
        records = [f'f({{"a{number}": 1}})' for number in range(count)]
        return "decide(request) := [\n" + ",\n".join([*nested, *records]) + "\n]\n\nf(x) := x == x"

    assert refused(calls(CALLS - 3)) == []
    assert refused(calls(CALLS * 2)) == []
    guarded = calls(CALLS * 2).replace("x == x", "trim_space(x)")
    assert refused(guarded) == ["type"]


def test_a_function_that_is_called_with_many_numbers_knows_how_large_they_are() -> None:
    calls = ", ".join(f"f({number})" for number in range(2, CALLS * 3))
    assert refused(f"decide(request) := [{calls}]\n\nf(x) := x * 100 if is_number(x)") == []
    squares = "f(x) := z if { y := (x * x) * (x * x); z := y * x }"
    assert refused(f"decide(request) := f(request.context.delivery)\n\n{squares}") == ["number"]


@pytest.mark.parametrize(
    ("head", "text", "forms"),
    [
        ("package sealbus.connect\n\n", "decision := decide(input)\n\ndecide(r) := count(r.context.own_subjects)", []),
        ("package sealbus.connect\n\n", "decide(request) := trim_space(request.subject.properties.token)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.of.context.user.id)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.context.approvals[0].user)", []),
        ("package sealbus.approval\n\n", "decide(request) := trim_space(request.obligation.queue)", ["type"]),
        ("package sealbus.approval\n\n", "decision := decide(input)\n\ndecide(r) := trim_space(input.of.resource.id)", []),
        ("package sealbus.approval\n\n", "other(r) := trim_space(input.obligation.queue)", ["type"]),
        ("package sealbus.approvals\n\n", "decide(request) := trim_space(request.of.resource.id)", ["type"]),
        ("package sealbus.platform\n\n", "denials(request) := trim_space(request.context.user.id)", []),
        ("package sealbus.teams.stock\n\n", "decide(request) := trim_space(request.action.name)", []),
        ("package sealbus.teams.stock\n\n", "decides(request) := trim_space(request.action.name)", ["type"]),
        ("package sealbus.teams.stock\n\n", "decide(request, x) := trim_space(request.action.name)", ["type"]),
    ],
)  # fmt: skip
def test_what_is_asked_of_each_part(head: str, text: str, forms: list[str]) -> None:
    assert refused(text, head=head) == forms


def test_what_belongs_to_others_may_be_anything() -> None:
    team = decides("some x in data.people.ann.groups\nx == \"a\"")  # fmt: skip
    assert refused(team) == []
    assert refused(team, roots=(("people",),)) == []
    assert refused(team, roots=(("sealbus", "teams"),)) == ["type"]


def test_tests_are_not_looked_at() -> None:
    files, _ = parse_all([Module(path="a_test.rego", text='package a\n\ntest_x if trim_space(1) == ""\n')])
    assert type_problems(files, DATA) == []


def test_what_another_form_refuses_has_no_type() -> None:
    assert refused(decides("x := 1 == -request.v\nx")) == []


def test_an_expression_that_is_too_long_is_refused() -> None:
    text = " +\n".join("1" for _ in range(420))
    assert refused(f"decide(request) := {text}") == ["nesting"]


def test_a_problem_says_what_to_do() -> None:
    body = 'count(request.resource.properties.tags) > 0\nconcat("", [1]) == ""\nabs("a") == 1'
    files, _ = parse_all([Module(path="a.rego", text=HEAD + decides(body))])
    unknown, inside, wrong = (str(problem) for problem in type_problems(files, DATA))
    assert unknown == (
        "a.rego:8:7: argument 1 of count is array, set or object, and this may be boolean or number or text: "
        "check it first with is_array [type]"
    )
    assert inside == (
        "a.rego:9:12: argument 2 of concat is array or set of texts: first collect the items that fit, as in "
        "[x | some x in xs; is_string(x)] [type]"
    )
    assert wrong == "a.rego:10:5: argument 1 of abs is number within 2^63, and this is text [type]"
