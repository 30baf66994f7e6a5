"""Every form is decided alike by the embedded interpreter and by OPA, or refused; `tests/policies/forms` is the table."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.central_opa import CentralOpa, tls_of
from support.opa import OpaServer
from support.rego_forms import DATA, FORMS, INPUT, Form, embedded_says, problems_of
from support.x509 import ThrowawayCa

from sealbus.policies.bundle.format import Manifest, pack_bundle
from sealbus.policies.decision.decision import Decision
from sealbus.policies.engines.central import CentralEngine
from sealbus.policies.lint import lint as forms
from sealbus.policies.lint.module import Module, Problem
from sealbus.policies.lint.regorus import Interpreter

ALIKE = [form for form in FORMS if form.gives]
REFUSED = [form for form in FORMS if form.refused]
DIFFERING = [form for form in FORMS if form.opa]


def by_name(form: Form) -> str:
    return f"{form.group}/{form.name}"


@pytest.fixture(scope="module")
def opa() -> Iterator[OpaServer]:
    with OpaServer() as server:
        server.put_data(DATA)
        yield server


@pytest.fixture(scope="module")
def opa_with_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpaServer]:
    """OPA with all that is decided alike, compiled once."""
    with OpaServer(str(written(tmp_path_factory, {form.name: form.module for form in ALIKE}))) as server:
        server.put_data(DATA)
        yield server


def written(folders: pytest.TempPathFactory, policies: Mapping[str, str]) -> Path:
    folder = folders.mktemp("policies")
    for name, text in policies.items():
        (folder / f"{name}.rego").write_text(text)
    return folder


def said(answer: Mapping[str, Any]) -> str:
    if "error" in answer:
        return "error"
    return json.dumps(answer["value"], sort_keys=True) if "value" in answer else "undefined"


def test_the_table_is_large_enough_to_mean_something() -> None:
    assert len(ALIKE) > 430
    assert len(REFUSED) > 300
    assert len({form.name for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("form", ALIKE, ids=by_name)
def test_an_accepted_form_gives_what_the_table_says(form: Form) -> None:
    assert problems_of(form.module) == []
    assert said(embedded_says(form)) == form.gives


@pytest.mark.opa
def test_opa_gives_the_same_for_every_accepted_form(opa_with_all: OpaServer) -> None:
    answers = {form.name: said(opa_with_all.evaluate(form.rule, INPUT)) for form in ALIKE}
    assert answers == {form.name: form.gives for form in ALIKE}


@pytest.mark.opa
async def test_the_central_engine_gets_the_same_for_every_accepted_form(tmp_path: Path) -> None:
    """Each form's value comes as a reason of the decision about its name; undefined and errors are no decision."""
    file = tmp_path / "bundle.tar.gz"
    file.write_bytes(pack_bundle(*telling_policy(ALIKE)))
    ca = ThrowawayCa("example.org")
    with CentralOpa(ca, file) as server:
        async with CentralEngine([server.url], tls=tls_of(ca), deadline=50.0) as engine:
            answers = await engine.decide([json.dumps({"action": {"name": form.name}}).encode() for form in ALIKE])
    given = {
        form.name: said({"value": json.loads(answer.reasons[0])}) if isinstance(answer, Decision) else str(answer.code)
        for form, answer in zip(ALIKE, answers, strict=True)
    }
    none = {"undefined": "policy_error", "error": "policy_error"}
    assert given == {form.name: none.get(form.gives, form.gives) for form in ALIKE}


def telling_policy(forms: Sequence[Form]) -> tuple[dict[str, bytes], dict[str, Any], Manifest]:
    """Return a bundle of `forms` that allows what is asked for by a form's name, and tells the value of its rule."""
    telling = ["package sealbus.authz", "batch := [decide(request) | some request in input.batch]"]
    telling += [
        'decide(request) := {"allow": true, "reasons": [json.marshal(value)], "obligations": [], "policy": "forms"} if {\n'
        f'\trequest.action.name == "{form.name}"\n\tvalue := data.{form.rule} with input as data.asked\n}}'
        for form in forms
    ]
    modules = {f"forms/{form.name}.rego": form.module.encode() for form in forms}
    data = {**DATA, "asked": INPUT}
    manifest = Manifest(revision="forms", roots=("sealbus", "forms", *data))
    return {**modules, "authz.rego": "\n\n".join(telling).encode()}, data, manifest


@pytest.mark.parametrize("form", REFUSED, ids=by_name)
def test_a_form_that_may_be_decided_otherwise_is_refused_with_its_place(form: Form) -> None:
    problems = problems_of(form.module)
    assert sorted({problem.form for problem in problems}) == list(form.refused)
    lines = form.module.count("\n")
    for problem in problems:
        assert problem.file == "policy.rego"
        assert problem.form == "compile" or 1 <= problem.line <= lines
        assert problem.text


@pytest.mark.parametrize("form", DIFFERING, ids=by_name)
def test_a_difference_that_no_check_sees_is_the_one_written_down(form: Form) -> None:
    assert problems_of(form.module) == []
    assert said(embedded_says(form)) == form.embedded


@pytest.mark.opa
@pytest.mark.parametrize("form", DIFFERING, ids=by_name)
def test_opa_differs_as_written_down(form: Form, opa: OpaServer) -> None:
    message = opa.put_policy("differing", form.module)
    if message:
        assert form.opa == f"not compiled: {message}"
    else:
        assert said(opa.evaluate(form.rule, INPUT)) == form.opa
        opa.delete_policy("differing")


# Statements in all places where a statement can stand: the two engines plan each place by code of its own.

WORLD = """
seen contains n if some n in ["a", "q"]
known := {"a": true, "f": false}
nested := {"a": {"v": true}}
is_a(n) if n == "a"
number(n) := 1 if n == "a"
number(n) := 2 if n == "b"
names := ["a", "b", "z", "f"]
tree := {"a": {"p": {"q": true}}, "b": {"p": {}}, "f": {"p": {"q": false}}}
"""

STATEMENTS = [
    "tree[x]", "tree[x].p.q", "tree[x].p[key]", "seen[x]", "x in seen", "x in names", "known[x]", "local[x]",
    "local[x].k", "tree[x].p.q == true", "tree[x].p.q == false", "tree[x].p.q != true", "is_a(x)", "number(x) == 1",
    'x == "a"', 'startswith(x, "a")', '{"a", "b"}[x]', 'object.get(known, x, false)', "nested[x].v == tree[x].p.q",
    "count(tree[x].p) > 0", "names[zero] == x", "[x] == [names[0]]", "data.places.PACKAGE.known[x]",
    "every y in [x] { tree[y] }", "count([y | y := tree[x].p]) == 1", "k := x; tree[k]", "k := tree[x]; k.p.q",
    "some y in tree[x]; y.q",
]  # fmt: skip
PLACES = {
    "rule": "r contains x if { BIND; some x in names; STATEMENT }",
    "pair": 'r contains x if { BIND; some x, _ in {"a": 1, "b": 1, "z": 1, "f": 1}; STATEMENT }',
    "matched": 'r contains x if { BIND; some [x, _] in [["a", 1], ["b", 1], ["z", 1], ["f", 1]]; STATEMENT }',
    "index": "r contains x if { BIND; some i; x := names[i]; STATEMENT }",
    "argument": "h(x) if { BIND; STATEMENT }\nEACH",
    "otherwise": 'h(x) := 1 if { x == "none" } else := 2 if { BIND; STATEMENT } else := 3\nr[n] := h(n) if some n in names',
    "every": "h(n) if { BIND; every x in [n] { STATEMENT } }\nEACH",
    "every twice": "h(n) if { BIND; every w in [n] { every x in [w] { STATEMENT } } }\nEACH",
    "every second": "h(n) if { BIND; every x in [n] { true; STATEMENT } }\nEACH",
    "every pair": "h(n) if { BIND; every x, v in {n: 1} { v == 1; STATEMENT } }\nEACH",
    "renamed": "h(n) if { BIND; every w in [n] { x := w; STATEMENT } }\nEACH",
    "inside every": "h(x) if { BIND; every w in [1, 2] { w > 0; STATEMENT } }\nEACH",
    "array": "r := z if { BIND; z := [x | some x in names; STATEMENT] }",
    "set": "r := z if { BIND; z := {x | some x in names; STATEMENT} }",
    "object": "r := z if { BIND; z := {x: 1 | some x in names; STATEMENT} }",
    "closed over": "r[x] := z if { BIND; some x in names; z := [1 | STATEMENT] }",
    "closed argument": "h(x) := z if { BIND; z := [1 | STATEMENT] }\nr[n] := h(n) if some n in names",
    "head": 'h(x) := {"z": [1 | BIND; STATEMENT]}\nr[n] := h(n) if some n in names',
    "closed in every": "h(x) if { BIND; every w in [1] { z := [w | STATEMENT]; count(z) == 1 } }\nEACH",
}
EACH = "r contains n if { some n in names; h(n) }"
BIND = 'zero := 0; key := "q"; local := {"a": {"k": true}}'


def _places() -> Iterator[tuple[str, str]]:
    every_one = itertools.product(("", "not "), STATEMENTS, PLACES.items())
    for number, (negation, statement, (_, place)) in enumerate(every_one):
        if negation and ";" in statement:
            continue
        package = f"p{number}"
        body = (
            place.replace("BIND", BIND)
            .replace("STATEMENT", f"{negation}{statement}")
            .replace("PACKAGE", package)
            .replace("EACH", EACH)
        )
        yield package, f"package places.{package}\n{WORLD}\n{body}\n"


@pytest.mark.opa
def test_a_statement_means_the_same_in_every_place_that_is_accepted(tmp_path_factory: pytest.TempPathFactory) -> None:
    accepted = {package: text for package, text in _places() if not problems_of(text)}
    assert len(accepted) > 550
    with OpaServer(str(written(tmp_path_factory, accepted))) as opa:
        given = opa.evaluate("places")["value"]
    different: list[tuple[str, str, str]] = []
    for package, text in accepted.items():
        interpreter = Interpreter([Module(path="policy.rego", text=text)], b"{}")
        value = interpreter.evaluate(f"data.places.{package}.r", b"{}")
        here = {} if value == "<undefined>" else {"value": value}
        there = {"value": given[package]["r"]} if "r" in given.get(package, {}) else {}
        if here != there:
            different.append((text.splitlines()[-2], said(here), said(there)))
    assert different == []


def test_the_documented_names_are_those_in_use() -> None:
    lines = (forms.__doc__ or "").split("====\n")[1].splitlines()
    documented = {
        name.strip(",") for line in lines if line[:1].strip() for name in line.split("  ")[0].replace(",", " ").split()
    }
    used = {form for entry in REFUSED for form in entry.refused}
    assert used <= documented | {"lookup"}


def test_several_files_are_looked_at_together() -> None:
    one = Module(path="one.rego", text="package a\n\nx := y\n")
    two = Module(path="two.rego", text="package a\n\ny := x\n")
    files, problems = forms.parse_all([one, two])
    assert problems == []
    assert [problem.form for problem in forms.refused_forms(files)] == ["recursion"]


def test_what_cannot_be_parsed_is_a_problem_of_its_file_alone() -> None:
    files, problems = forms.parse_all(
        [Module(path="bad.rego", text="package a\n\nx {\n"), Module(path="good.rego", text="package a\n")]
    )
    assert [file.path for file in files] == ["good.rego"]
    [problem] = problems
    assert (problem.file, problem.line, problem.column, problem.form) == ("bad.rego", 3, 3, "compile")


def test_a_test_file_may_use_with_and_print() -> None:
    text = 'package a\n\ntest_x if { print("x"); y with input as {} }\n\ny := 1\n'
    assert problems_of(text, "a_test.rego") == []
    assert {problem.form for problem in problems_of(text, "a.rego")} == {"builtin", "with"}


def test_a_problem_says_where_and_what() -> None:
    [problem] = problems_of("package a\n\nx if {\n\tnot data.agents[input.y]\n}\n")
    assert problem == Problem(
        file="policy.rego",
        line=4,
        column=18,
        form="negation",
        text="under `not` this may be undefined: name it first (x := ...), then use x",
    )
    assert str(problem).startswith("policy.rego:4:18: under `not`")


def test_header_and_numbers() -> None:
    assert [p.form for p in problems_of("package system.authz\n\nallow := true\n")] == ["package"]
    assert [p.form for p in problems_of("package a\n\nimport data\n")] == ["import"]
    assert problems_of("package a\n\nimport rego.v1\n") == []
    assert problems_of("package a\n\nimport future.keywords.if\nimport future.keywords.in\n") == []
    assert [p.form for p in problems_of("package a\n\nimport future.keywords.not\n")] == ["import"]
