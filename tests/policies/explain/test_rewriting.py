"""Prints in a policy change none of its answers, whatever the policy that the form checks admit."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_grammar import documents, policy, world
from support.policy_inputs import approval_questions, mutated, mutated_questions, starter_with_revocations, well_formed
from support.rego_forms import DATA, FORMS, INPUT, Form

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.check import check_bundle
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.format import Bundle, Manifest, pack_bundle, read_bundle
from sealbus.policies.decision.documents import canonical
from sealbus.policies.explain.rewriting import Rewritten, rewrite
from sealbus.policies.explain.trace import read_prints
from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import MODULE_BYTES, TEST_SUFFIX, Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.rego_tests import run_tests

DECISION = "data.sealbus.authz.decision"
ACCEPTED = [one for one in FORMS if not one.refused and one.group != "with"]


def said(interpreter: Interpreter, rule: str, document: bytes) -> object:
    try:
        return interpreter.evaluate(rule, document)
    except PolicyFailed:
        return "an error"


class Both:
    """A policy as it is and with prints in it."""

    def __init__(self, modules: tuple[Module, ...], data: bytes, names: list[str]) -> None:
        self.written = rewrite(modules, names)
        self._plain = Interpreter(modules, data)
        self._printing = Interpreter(self.written.modules, data, gather=True)

    def ask(self, rule: str, document: bytes) -> tuple[object, object]:
        """Return both answers; what was printed must be readable."""
        answers = said(self._plain, rule, document), said(self._printing, rule, document)
        read_prints(self._printing.prints(), self.written)
        return answers


def both(bundle: Bundle) -> Both:
    return Both(bundle.modules, canonical(bundle.data), list(bundle.data))


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return both(build_bundle(starter_with_revocations(tmp_path_factory.mktemp("starter") / "policy")))


def test_every_rego_test_of_the_starter_passes_with_prints_in_the_policy() -> None:
    bundle = build_bundle(STARTER)
    written = rewrite(bundle.modules, bundle.data)
    assert written.untraced == ()
    tests = [
        Module(path=path.relative_to(STARTER).as_posix(), text=path.read_text())
        for path in STARTER.rglob(f"*{TEST_SUFFIX}")
    ]
    interpreter = Interpreter([*written.modules, *tests], canonical(bundle.data), gather=True)
    results = run_tests(STARTER)
    failed = [one.name for one in results if interpreter.evaluate(f"data.{one.package}.{one.name}", b"{}") is not True]
    assert failed == []
    assert len(results) > 90


@pytest.mark.parametrize("make", [well_formed, mutated])
def test_the_starter_decides_alike(starter: Both, make: type) -> None:
    for document in make(200):
        plain, printing = starter.ask(DECISION, document)
        assert printing == plain


@pytest.mark.parametrize("make", [approval_questions, mutated_questions])
def test_the_starter_decides_alike_who_may_approve(starter: Both, make: type) -> None:
    for document in make(100):
        plain, printing = starter.ask("data.sealbus.approval.decision", document)
        assert printing == plain


@pytest.mark.parametrize("form", ACCEPTED, ids=[f"{one.group}-{one.name}" for one in ACCEPTED])
def test_every_admitted_form_gives_the_same(form: Form) -> None:
    one = Both((Module(path="policy.rego", text=form.module),), json.dumps(DATA).encode(), list(DATA))
    plain, printing = one.ask(f"data.{form.rule}", json.dumps(INPUT).encode())
    assert printing == plain


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1_000_000))
def test_every_admitted_policy_decides_alike(seed: int) -> None:
    packed = pack_bundle(
        {"authz.rego": policy(seed).encode()},
        {"world": world(seed)},
        Manifest(revision="generated", roots=("sealbus", "world")),
    )
    try:
        bundle = read_bundle(packed)
        check_bundle(bundle)
    except PolicyRefused:
        return
    asked = both(bundle)
    for document in documents(seed, 5):
        plain, printing = asked.ask(DECISION, document)
        assert printing == plain


def rewritten(text: str, *names: str) -> Rewritten:
    return rewrite([Module(path="p/a.rego", text=text)], names)


def test_a_rewritten_policy_does_not_pass_the_form_checks() -> None:
    files, problems = parse_all(rewritten("package p\n\na if input.x == 1\n").modules)
    assert {problem.form for problem in [*problems, *refused_forms(files)]} >= {"builtin"}


def test_lines_and_texts_are_those_of_the_policy() -> None:
    written = rewritten('package p\n\na if {\n\t"ü" in input.x; "b" == input.y\n\tnot input.z\n}\n')
    assert [(one.line, one.written) for one in written.sites] == [
        (4, '"ü" in input.x'),
        (4, '"b" == input.y'),
        (5, "not input.z"),
    ]
    assert [one.shown for one in written.sites] == [("input.x",), ("input.y",), ("input.z",)]
    assert [(one.rule, one.file, one.line) for one in written.bodies] == [(("p", "a"), "p/a.rego", 4)]


def test_names_that_the_policy_uses_are_left_to_it() -> None:
    text = """package shown

value := 7

first := 3

r := [value, first, data.shown_.x] if {
	value == 7
	value_ := input.u
	value_ == 2
}
"""
    written = rewritten(text, "shown_")
    assert written.modules[-1].path == "shown__.rego"
    one = Both((Module(path="p/a.rego", text=text),), b'{"shown_":{"x":1}}', ["shown_"])
    assert one.ask("data.shown.r", b'{"u":2}') == ([7, 3, 1], [7, 3, 1])


@pytest.mark.parametrize(
    "text",
    ["package p\n\nprint := 1\n\na if print == 1\n", "package p\n\n" + "a if input.x == 1\n" * (MODULE_BYTES // 50)],
    ids=["a rule named print", "too large with prints"],
)
def test_a_file_that_cannot_be_rewritten_stays_as_it_is(text: str) -> None:
    written = rewritten(text)
    assert written.untraced == ("p/a.rego",)
    assert written.modules[0].text == text


def test_what_is_no_rego_is_refused() -> None:
    with pytest.raises(PolicyRefused):
        rewritten("package p\n\na if")


def test_more_than_a_few_references_are_not_shown() -> None:
    written = rewritten("package p\n\na if [input.a, input.b, input.c, input.d, input.e, input.f, input.g] != []\n")
    assert written.sites[0].shown == ("input.a", "input.b", "input.c", "input.d", "input.e", "input.f")


def test_what_cannot_be_told_before_is_not_shown() -> None:
    text = """package p

import data.q as other

a if {
	some x
	input.list[x] == f(input.y).z
	[y | y := input.w] == []
	other.r[
		"s"
	] == other.t
}

f(v) := v
"""
    assert [one.shown for one in rewritten(text, "q").sites] == [(), ("input.list", "input.y"), (), ("other.t",)]


def test_a_literal_knows_the_rules_that_it_may_run() -> None:
    text = """package p

import data.q as other

a if f(input.x)

b if other.r.s

c if data.p.i.k == 1

f(v) if g(v)

g(v) if v == 1

h["x"] := 1 if input.x

i.k := 1 if input.x

i[v] := 2 if some v in ["m"]

j if [1, 2][g(1)]
"""
    modules = [Module(path="a.rego", text=text), Module(path="q.rego", text="package q\n\ndefault r := 1\n\ns := 2\n")]
    uses = {(one.file, one.line): one.uses for one in rewrite(modules, []).sites}
    assert uses["a.rego", 5] == {("p", "f"), ("p", "g")}
    assert uses["a.rego", 7] == {("q", "r")}
    assert uses["a.rego", 9] == {("p", "i"), ("p", "i", "k")}
    assert uses["a.rego", 13] == frozenset()
    assert uses["a.rego", 21] == {("p", "g")}
