"""Bounds on a Rego file, before any parser sees it."""

from __future__ import annotations

import pytest

from sealbus.policies.lint.module import MODULE_BYTES, NESTING, OPERATORS, Module, PolicyRefused, Problem


def refused(text: str) -> Problem:
    with pytest.raises(PolicyRefused) as caught:
        Module(path="a/b.rego", text=text)
    [problem] = caught.value.problems
    return problem


def test_any_text_within_bounds_is_a_module() -> None:
    assert Module(path="a-1/b_2.rego", text="whatever").text == "whatever"


@pytest.mark.parametrize("path", ["", "/a.rego", "a//b.rego", "a b.rego", "a\\b.rego", "ä.rego"])
def test_a_path_is_inside_a_bundle(path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        Module(path=path, text="")


def test_size() -> None:
    Module(path="a.rego", text="#" * MODULE_BYTES)
    assert refused("#" * (MODULE_BYTES + 1)).form == "size"
    assert refused("# " + "ü" * (MODULE_BYTES // 2)).form == "size"


def test_half_a_character() -> None:
    assert refused("\ud800").form == "encoding"


@pytest.mark.parametrize(("opening", "closing"), ["[]", "{}", "()"])
def test_nesting(opening: str, closing: str) -> None:
    Module(path="a.rego", text=opening * NESTING + closing * NESTING)
    problem = refused("package a\n\nx := " + opening * (NESTING + 1))
    assert (problem.form, problem.line, problem.column) == ("nesting", 3, 6 + NESTING)


def test_brackets_in_texts_and_comments_do_not_count() -> None:
    deep = "[" * 50
    Module(path="a.rego", text=f'x := "{deep}"\ny := `{deep}`\n# {deep}\nz := "a\\"{deep}"\n')


def test_a_text_that_is_not_closed_ends_with_its_line_or_the_file() -> None:
    deep = "[" * 50
    Module(path="a.rego", text=f'x := "{deep}\ny := 1\n')
    Module(path="a.rego", text=f'x := "\\{deep}')
    Module(path="a.rego", text=f"x := `{deep}\n{deep}")
    assert refused(f'x := "\n{deep}').form == "nesting"


def test_quotes_that_are_escaped_are_not_scanned_again_and_again() -> None:
    Module(path="a.rego", text='"\\' * (MODULE_BYTES // 2))


def test_brackets_side_by_side_do_not_count() -> None:
    Module(path="a.rego", text="[]" * 100)


def test_operators() -> None:
    Module(path="a.rego", text="x := 1" + " + 1" * OPERATORS)
    problem = refused("x := 1" + "\n+ 1" * (OPERATORS + 1))
    assert (problem.form, problem.line, problem.column) == ("size", OPERATORS + 2, 1)
