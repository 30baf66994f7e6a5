"""Problems and the error that carries them."""

from __future__ import annotations

from sealbus.envelopes.errors import Code, ConfigurationError
from sealbus.policies.lint.module import PolicyRefused, Problem


def problem(line: int, text: str = "wrong") -> Problem:
    return Problem(file="a.rego", line=line, column=2, form="builtin", text=text)


def test_a_problem_is_written_with_its_place() -> None:
    assert str(problem(3)) == "a.rego:3:2: wrong [builtin]"
    assert str(problem(0)) == "a.rego: wrong [builtin]"


def test_the_error_is_an_operators_and_lists_problems_in_order() -> None:
    refused = PolicyRefused([problem(2), problem(1)])
    assert isinstance(refused, ConfigurationError)
    assert refused.code is Code.CONFIGURATION
    assert refused.detail == "a.rego:1:2: wrong [builtin]\na.rego:2:2: wrong [builtin]"


def test_a_long_list_is_cut_in_the_text_alone() -> None:
    refused = PolicyRefused([problem(line) for line in range(1, 12)])
    assert len(refused.problems) == 11
    assert refused.detail.splitlines()[-1] == "and 3 more"
