"""Regular expressions and globs that Go and Rust read alike."""

from __future__ import annotations

import pytest

from sealbus.policies.form_patterns import glob_problem, regex_problem


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
        ("a{2,1}", "not falling"),
        ("a{,2}", "character 2"),
        ("]", "character 1"),
    ],
)
def test_refused_regular_expressions(pattern: str, why: str) -> None:
    problem = regex_problem(pattern)
    assert problem is not None
    assert why in problem


@pytest.mark.parametrize(
    ("pattern", "delimiter"), [("a.*", "."), ("**.b", "."), ("spiffe://a/**", "/"), ("", "."), ("*b*", ".")]
)
def test_accepted_globs(pattern: str, delimiter: str) -> None:
    assert glob_problem(pattern, delimiter) is None


@pytest.mark.parametrize(
    ("pattern", "delimiter", "why"),
    [("a?", ".", "write ASCII"), ("[a]", ".", "write ASCII"), ("a**", ".", "whole part"), ("***", ".", "whole part"),
     ("a", "", "delimiters"), ("a", "./", "delimiters"), ("a", ":", "delimiters"), ("ü", ".", "write ASCII")],
)  # fmt: skip
def test_refused_globs(pattern: str, delimiter: str, why: str) -> None:
    problem = glob_problem(pattern, delimiter)
    assert problem is not None
    assert why in problem
