"""Calls of builtins."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.calls import call_problem
from sealbus.policies.lint.module import Module
from sealbus.policies.lint.parse import parse
from sealbus.policies.lint.syntax import Call
from sealbus.policies.types.builtins import BUILTINS


def refused(text: str, *, relaxed: bool = False) -> str:
    [rule] = parse(Module(path="a.rego", text=f"package p\n\nr := {text}\n")).rules
    assert isinstance(rule.value, Call)
    problem = call_problem(rule.value, relaxed=relaxed)
    return "" if problem is None else f"{problem[1]}: {problem[2]}"


@pytest.mark.parametrize(
    "name",
    ["http.send", "time.now_ns", "rand.intn", "opa.runtime", "io.jwt.decode", "crypto.sha256", "net.lookup_ip_addr", "lower",
     "to_number", "json.marshal", "uuid.rfc4122", "trace", "print", "round", "unheard.of"],
)  # fmt: skip
def test_builtins_that_are_absent_impure_or_different(name: str) -> None:
    said = refused(f'{name}("x")')
    assert said.startswith(
        f"builtin: {name} is not a builtin for which every engine gives the same value. The page policy"
    )
    assert "sidecar" in said


def test_tests_may_print() -> None:
    assert refused('print("x")', relaxed=True) == ""
    assert refused("trace(1)", relaxed=True) != ""


def test_arity() -> None:
    assert refused("count(x)") == ""
    assert refused("count(x, y)") == "arity: count takes 1 arguments"
    assert all(builtin.arguments for builtin in BUILTINS.values())


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('sprintf("%v is %v%%", [x, 1])', ""),
        ('sprintf("%v %v %v %v", ["t", x.y, count(x), true])', ""),
        ("sprintf(x, [])", "sprintf"),
        ('sprintf("a", x)', "sprintf"),
        ('sprintf("%s", [x])', "sprintf"),
        ('sprintf("%", [])', "sprintf"),
        ('sprintf("%5v", [x])', "sprintf"),
        ('sprintf("%v", [])', "sprintf"),
        ('regex.match("^a$", x)', ""),
        ("regex.match(x, y)", "regex"),
        (r'regex.match("\\d", x)', "regex"),
        ('time.parse_rfc3339_ns("2026-11-24T14:00:00Z")', ""),
        ('time.parse_rfc3339_ns("2026-11-24")', "time"),
        ('time.parse_rfc3339_ns("2026-02-30T14:00:00Z")', "time"),
        ('time.parse_rfc3339_ns("2026-11-24T4:00:00Z")', "time"),
        ('time.parse_rfc3339_ns("2256-11-24T14:00:00Z")', "time"),
        ("time.parse_rfc3339_ns(x)", ""),
    ],
)  # fmt: skip
def test_builtins_that_need_care(text: str, form: str) -> None:
    assert refused(text).split(":")[0] == form
