"""What docs/policy.md says about the forms of a policy is what the check does."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from sealbus.policies.bundle.files import EXAMPLE
from sealbus.policies.bundle.library import library_modules
from sealbus.policies.lint.lint import parse_all, refused_forms
from sealbus.policies.lint.module import Module
from sealbus.policies.types.builtins import BUILTINS
from sealbus.policies.types.inference import type_problems

TEXT = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()


def admitted(body: str) -> list[str]:
    files, problems = parse_all(
        [Module(path="a.rego", text=f"package p\n\nr(request) if {{\n{body}\n}}\n\ns if r(input)\n")]
    )
    problems = problems or refused_forms(files) or type_problems(files, {})
    return [str(problem) for problem in problems]


def test_every_builtin_stands_there_with_its_arguments() -> None:
    rows: dict[str, list[str]] = defaultdict(list)
    for name, builtin in BUILTINS.items():
        rows["; ".join(argument.text for argument in builtin.arguments)].append(name)
    expected = {f"| {' '.join(f'`{name}`' for name in sorted(names))} | {said} |" for said, names in rows.items()}
    table = TEXT.partition("<!-- builtins -->")[2].partition("\n\n")[0].strip().splitlines()
    assert set(table[2:]) == expected


def test_what_is_shown_is_admitted() -> None:
    block = TEXT.partition("what the policy asks before")[2].partition("```rego\n")[2].partition("```")[0]
    assert "is_string(owner)" in block
    assert admitted(block) == []


def test_what_is_to_be_written_instead_is_admitted() -> None:
    instead = TEXT.partition("| instead of | write |")[2].partition("\n\n")[0]
    [pattern] = re.findall(r"`(regex\.match\([^`]*)`", instead)
    assert admitted(f"name := request.action.name\n{pattern}") == []
    [every] = re.findall(r"`(every key[^`]*)`", instead)
    assert admitted(f'a := {{"x": 1}}\nb := request.resource.properties\n{every}') == []
    assert admitted("a := request.context.delivery\na < 2 * 3") == []


def test_the_policy_of_ones_own_is_the_example_which_every_build_tests() -> None:
    chapter = TEXT.partition("## A policy of your own")[2].partition("\n## ")[0]
    assert f"```rego\n{(EXAMPLE / 'sealbus' / 'authz' / 'decision.rego').read_text()}```" in chapter
    shown = json.loads(chapter.partition("```json\n")[2].partition("```")[0])
    assert shown == json.loads((EXAMPLE / "sealbus" / "reasons" / "data.json").read_text())
    modules = {module.path.rpartition("/")[2]: module.text for module in library_modules()}
    functions = re.findall(r"^\| (?:`data\.sealbus\.lib\.(\w+)`)? ?\| `(\w+\([a-z, ]*\))` \|", chapter, re.MULTILINE)
    assert len(functions) == 6
    file = ""
    for name, function in functions:
        file = f"{name}.rego" if name else file
        assert re.search(rf"^{re.escape(function)} ", modules[file], re.MULTILINE), function
