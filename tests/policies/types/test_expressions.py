"""Calls, operators, `in` and written collections: what they accept and give, and how large a product may be."""

from __future__ import annotations

import pytest
from support.rule_types import decides, refused


@pytest.mark.parametrize(
    "body",
    [
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
        "null == request.action.properties.x",
        "1 in {1, 2}",
        "request.resource.properties.a < request.resource.properties.b",
    ],
)  # fmt: skip
def test_calls_operators_and_collections_that_cannot_fail(body: str) -> None:
    assert refused(decides(body)) == []


@pytest.mark.parametrize(
    ("body", "forms"),
    [
        ("startswith(request.resource.properties.owner, \"a\")", ["type"]),
        ("count(request.resource.properties.tags) == 1", ["type"]),
        ("count(request.action.name) == 1", ["type"]),
        ("concat(\"\", request.resource.properties.tags) == \"\"", ["type"]),
        ("request.resource.properties.amount + 1 == 2", ["type"]),
        ("request.resource.properties.amount | {1} == {1}", ["type"]),
        ("{1} - request.resource.properties.amount == {1}", ["type"]),
        ("1 - {1} == 1", ["type"]),
        ("request.context.delivery % request.context.delivery == 1", ["type"]),
        ("request.context.delivery % 0 == 1", ["type"]),
        ("some x in request.resource.properties.tags\nx == 1", ["type"]),
        ("time.clock(request.context.delivery * 9007199254740991) == [1]", ["type"]),
        ("time.parse_rfc3339_ns(request.context.tenant) == 1", ["type"]),
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
    ],
)  # fmt: skip
def test_calls_operators_and_collections_that_could_fail_or_differ(body: str, forms: list[str]) -> None:
    assert refused(decides(body)) == forms


@pytest.mark.parametrize(
    ("rules", "forms"),
    [
        ("decide(request) := f({{1}})\nf(a) := 1 if { intersection({a}) == \"x\" }", ["match"]),
        ("decide(request) := f({{1}})\nf(a) := 1 if { union({a}) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.filter(a, []) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.remove(a, []) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.union(a, a) == \"x\" }", ["match"]),
        ("decide(request) := f({})\nf(a) := 1 if { object.union_n([a]) == \"x\" }", ["match"]),
    ],
)  # fmt: skip
def test_a_builtin_gives_its_type_whatever_its_argument_is(rules: str, forms: list[str]) -> None:
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
