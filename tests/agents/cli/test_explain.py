"""`sealbus explain CODE`."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from sealbus.agents.cli.explain import command
from sealbus.agents.cli.explanations import CODES, FINDINGS, CodeText

root = importlib.import_module("sealbus.agents.cli.main").root
ROOT = Path(__file__).parents[3]
COMMAND = re.compile(r"sealbus ([a-z]+(?: [a-z-]+)*)")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.mark.parametrize("code", [*CODES, *FINDINGS])
def test_each_code_is_explained(code: str) -> None:
    result = run(code)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith(code)
    assert [line.split()[0] for line in lines[2:5]] == ["fault:", "next:", "more:"]


def test_nothing_is_told_of_files_that_only_the_repository_has() -> None:
    shown = [run().stdout, run("--json").stdout, run("8").stdout, *(run(code).stdout for code in (*CODES, *FINDINGS))]
    assert not [text for text in shown if ".md" in text or "docs/" in text]


@pytest.mark.parametrize("folder", ["agents", "bus", "envelopes", "policies", "src"])
def test_no_text_names_a_file_that_only_the_repository_has(folder: str) -> None:
    """No error, help or note; docstrings of modules and functions are for who has the code, those of commands are help."""
    found = []
    for file in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                "command" in ast.unparse(one) for one in node.decorator_list
            ):
                found += [file.name] * ("docs/" in (ast.get_docstring(node) or ""))
        if file.name != "explanations.py":
            found += [
                f"{file.name}:{one.lineno}: {one.value}"
                for one in ast.walk(tree)
                if isinstance(one, ast.Constant)
                and isinstance(one.value, str)
                and re.search(r"docs/\w+\.md", one.value)
            ]
    assert found == []


def test_a_code_of_both_kinds_is_explained_twice() -> None:
    told = [json.loads(line) for line in run("wrong_audience", "--json").stdout.splitlines()]
    assert [(one["code"], one["kind"]) for one in told] == [("wrong_audience", "code"), ("wrong_audience", "finding")]
    assert told[0].keys() == {"code", "kind", "meaning", "fault", "next", "page"}


def test_a_step_is_explained() -> None:
    assert run("8").stdout.startswith("step 8, Proof: ")
    assert json.loads(run("8", "--json").stdout)["step"] == 8


def test_without_a_code_all_are_listed() -> None:
    assert len(run().stdout.splitlines()) == len(CODES) + len(FINDINGS)
    assert [json.loads(one)["code"] for one in run("--json").stdout.splitlines()] == [*CODES, *FINDINGS]


@pytest.mark.parametrize(
    ("code", "hint"),
    [("denid", "did you mean denied?"), ("19", "lists all"), ("zzzzzz", "lists all"), ("[b]\x1b" * 50, "lists all")],
)
def test_what_is_no_code_is_a_usage_error(code: str, hint: str) -> None:
    result = run(code)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "text", [*CODES.values(), *FINDINGS.values()], ids=[*CODES, *(f"finding-{one}" for one in FINDINGS)]
)
def test_the_commands_that_are_advised_exist(text: CodeText) -> None:
    for words in COMMAND.findall(text.advice):
        group: click.Command | None = root
        for word in words.split():
            if not isinstance(group, click.Group):
                break
            group = group.get_command(click.Context(group), word)
            assert group is not None, words
