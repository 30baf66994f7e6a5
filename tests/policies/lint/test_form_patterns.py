"""Regular expressions that Go and Rust read alike."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.calls import regex_problem


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "^abc$",
        "^[A-Za-z0-9_-]{1,63}$",
        "a|b",
        "(?:a|b)+",
        "(a)(b)?",
        "a*?b+?c??",
        r"\.\-\/",
        "[^/]*",
        "a{2}",
        "a{2,}",
        "[.$^]",
        "((a{10}){10}){10}",
        "(a{500}b{500}){2}",
        "(a{0}){1000}",
    ],
)
def test_accepted_regular_expressions(pattern: str) -> None:
    assert regex_problem(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\d+", "character 1"),
        (r"a\w", "character 2"),
        ("ü", "character 1"),
        ("(?i)a", "character 2 of the pattern repeats"),
        ("[a&&b]", "character 1"),
        ("[a", "character 1"),
        ("a**", "character 3"),
        ("a)", "a ) without"),
        ("(a", "a ( without"),
        ("^*", "repeats nothing"),
        ("(+a)", "repeats nothing"),
        ("|*", "repeats nothing"),
        ("a{1001}", "at most 1000"),
        ("a{2,1}", "not be falling"),
        ("a{,2}", "character 2"),
        ("]", "character 1"),
        ("(a{50}){30}", "at most 1000"),
        ("((a{2}|b){100}){10}", "at most 1000"),
        ("^([a-z]{1,100}){1,10}$", "too large for regorus"),
        ("[^a]{1000}", "too large for regorus"),
    ],
)
def test_refused_regular_expressions(pattern: str, why: str) -> None:
    problem = regex_problem(pattern)
    assert problem is not None
    assert why in problem
