"""A failed test of a policy says which of its literals did not hold."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest

from sealbus.policies.bundle.files import EXAMPLE
from sealbus.policies.lint.module import Module
from sealbus.policies.rego_tests import CHARACTERS, FailedTests, run_tests

TESTS = """package sealbus.authz_test

amount := 5

test_all_is_well if {
	amount == 5
}

test_too_small if {
	amount > 1
	amount > 7
	amount > 9
}

test_at_once if amount > 8

test_has_no_value := data.sealbus.nothing.at_all
"""


def told(folder: Path, text: str) -> dict[str, str]:
    copytree(EXAMPLE, folder / "policy")
    (folder / "policy" / "sealbus" / "authz" / "decision_test.rego").write_text(text)
    return {one.name: one.error for one in run_tests(folder / "policy") if not one.passed}


def test_the_literal_at_which_a_test_ended_is_told(tmp_path: Path) -> None:
    assert told(tmp_path, TESTS) == {
        "test_too_small": "line 11 does not hold: amount > 7",
        "test_at_once": "line 15 does not hold: amount > 8",
        "test_has_no_value": "",
    }


def test_a_long_literal_is_cut_and_obeys_nothing(tmp_path: Path) -> None:
    text = f'package sealbus.authz_test\n\nname := "a"\n\ntest_long if {{\n\tname == "\u202e{"b" * 300}"\n}}\n'
    [error] = told(tmp_path, text).values()
    assert error.startswith("line 6 does not hold: name == ")
    assert "\u202e" not in error
    assert len(error) < CHARACTERS + 60


@pytest.mark.parametrize("text", ["package sealbus.authz_test\n\ntest_x if print(1)\n", "package a\n\nx := \n"])
def test_what_cannot_be_traced_is_not_told(text: str) -> None:
    assert (
        FailedTests([Module(path="a_test.rego", text=text)], {}).describe_failure("sealbus.authz_test", "test_x") == ""
    )


@pytest.mark.parametrize(
    "rule",
    [
        "test_x if {\n\tcount(input) == 3 with input as true\n}",
        "helper if {\n\t1 == 2\n}\n\ntest_x := helper",
        "test_x := 1 if {\n\t1 == 1\n}",
    ],
)
def test_what_did_not_end_at_a_literal_of_its_own_is_not_told(rule: str) -> None:
    tests = FailedTests([Module(path="a_test.rego", text=f"package a\n\n{rule}\n")], {})
    assert tests.describe_failure("a", "test_x") == ""
