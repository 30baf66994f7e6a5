"""The values at the edges with which the differential calls what is admitted: the tables say what that is."""

from __future__ import annotations

import json
import random

import pytest
from support.edge_policies import edge_documents, edge_policy
from support.edge_values import (
    ASKED_NUMBERS,
    CALLED,
    KINDS,
    NO_NUMBERS,
    NUMBERS,
    TEXTS,
    TYPES,
    call,
    closed_call,
    fitting,
    kinds_of,
    literal,
    pool,
    suspects,
    whole,
)
from support.rego_forms import problems_of

from sealbus.envelopes.errors import PolicyFailed
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.decision.documents import checked_document, parse_data
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.types.builtins import BUILTINS, OPERATORS, Argument, Builtin
from sealbus.policies.types.value import BOOLEAN

WRITTEN_OUT = ("regex.match", "sprintf", "time.parse_rfc3339_ns")
"""Builtins of which an argument has a form of its own, for which the generator has a list."""


def test_the_edges_are_where_they_should_be() -> None:
    for power in (2**53, 2**63, 2**64):
        assert {power - 1, power, power + 1, -power - 1} <= set(NUMBERS)
    assert max(NUMBERS) > 2**255
    assert {"", "😀", "\U0010ffff", "e\u0301", "\u0000"} <= set(TEXTS)
    assert {"-0", "1e308", "(0.1 + 0.2)", "1e2"} <= set(NO_NUMBERS)
    assert all(abs(one) <= DEFAULT_LIMITS.max_integer for one in ASKED_NUMBERS)


@pytest.mark.parametrize("value", NUMBERS)
def test_a_number_of_any_size_is_written_by_admitted_literals(value: int) -> None:
    written = whole(value)
    assert written.of.most >= abs(value)
    rego = f"package p\n\nr := format_int({written.written}, 10)\n"
    assert problems_of(rego) == []
    assert Interpreter([Module(path="p.rego", text=rego)], b"{}").evaluate("data.p.r", b"{}") == str(value)


@pytest.mark.parametrize("name", BUILTINS)
def test_every_argument_of_every_builtin_has_the_edges_that_it_may_be(name: str) -> None:
    """A builtin that is admitted tomorrow fails here, unless the generator has edges for each of its arguments."""
    lacking = lacks(name)
    assert lacking == []


def lacks(name: str) -> list[str]:
    found: list[str] = []
    for place, argument in enumerate(BUILTINS[name].arguments):
        given = {one.written for one in fitting(name, place)}
        if not given:
            found.append(f"{name} is never called: nothing fits argument {place + 1}, {argument.text}")
        elif not literal(argument):
            for kind in kinds_of(argument):
                edges = [one for one in pool(kind) if argument.fits(one.said, one.of, TYPES)]
                if not edges or not given.issuperset(one.written for one in edges):
                    found.append(f"argument {place + 1} of {name} is never a {kind}")
                if kind == "number" and not any(one.of.most >= 2**53 - 1 for one in edges):
                    found.append(f"argument {place + 1} of {name} is never a large number")
    return found


def test_a_builtin_without_edges_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for fits in (lambda *_: False, lambda said, one, _: not one.names & {"number"}):
        argument = Argument(text="a text or a number", names=("text", "number"), fits=fits)
        builtin = Builtin(arguments=(argument,), result=lambda *_: BOOLEAN)
        monkeypatch.setitem(BUILTINS, f"new.{id(fits)}", builtin)
        assert lacks(f"new.{id(fits)}") != []


def test_what_has_to_be_written_out_is_listed() -> None:
    odd = {
        name
        for name, builtin in BUILTINS.items()
        for argument in builtin.arguments
        if literal(argument) and "text" in argument.names
    }
    assert odd - set(WRITTEN_OUT) == {"replace"}  # any text but the empty one


def test_everything_is_called_in_turn() -> None:
    assert set(CALLED) == BUILTINS.keys() | OPERATORS.keys() | {"in"}
    named = [name for seed in range(len(CALLED)) for name, _ in edge_policy(seed).calls.values()]
    assert {named.count(name) for name in CALLED} == {10}


@pytest.mark.parametrize("name", CALLED)
def test_most_calls_are_admitted(name: str) -> None:
    chance = random.Random(name)  # noqa: S311  the same each time
    called = [call(name, chance).written for _ in range(30)]
    admitted = [one for one in called if problems_of(f"package p\n\nr := x if {{\n\tx := {one}\n}}\n") == []]
    assert len(admitted) >= 12
    assert len(set(admitted)) >= 3


@pytest.mark.parametrize("kind", ["text", "number", "boolean"])
def test_a_call_for_another_policy_gives_what_is_asked(kind: str) -> None:
    chance = random.Random(kind)  # noqa: S311  the same each time
    for _ in range(20):
        rego = f"package p\n\nr := type_name(x) if {{\n\tx := {closed_call(kind, chance)}\n}}\n"
        if problems_of(rego) == []:
            found = Interpreter([Module(path="p.rego", text=rego)], b"{}").evaluate("data.p.r", b"{}")
            assert found in (kind.replace("text", "string"), "<undefined>")


@pytest.mark.parametrize("written", NO_NUMBERS)
def test_a_number_that_the_engines_know_otherwise_is_in_no_policy(written: str) -> None:
    forms = {problem.form for problem in problems_of(f"package p\n\nr := [{written}]\n")}
    assert forms & {"number"}


@pytest.mark.parametrize(
    "written", ["0.1", "1.0", "-0", "-0.0", "1e2", "1E2", "1e308", "1e-7", "0e0", "9007199254740992"]
)
def test_nor_in_data_or_a_question(written: str) -> None:
    document = f'{{"n": [{written}]}}'.encode()
    with pytest.raises(ValueError, match=r"minus|fraction|beyond"):
        parse_data(document)
    with pytest.raises(PolicyFailed):
        checked_document(document)


@pytest.mark.parametrize("value", suspects("object"), ids=lambda one: str(one.written))
def test_a_key_that_the_engines_print_otherwise_is_in_no_policy(value: object) -> None:
    written = getattr(value, "written", "")
    forms = {problem.form for problem in problems_of(f"package p\n\nr := {written}\n")}
    assert forms & {"number", "type"}


def test_the_same_seed_makes_the_same_policy_and_questions() -> None:
    assert edge_policy(7).text() == edge_policy(7).text() != edge_policy(8).text()
    assert edge_documents(7, edge_policy(7)) == edge_documents(7, edge_policy(7))
    asked = json.loads(edge_documents(7, edge_policy(7))[0])
    assert set(asked["action"]["properties"]) == {"n0", "n1", "n2", "t0", "t1", "t2"}
    assert set(KINDS) == {"text", "number", "boolean", "null", "array", "set", "object"}
