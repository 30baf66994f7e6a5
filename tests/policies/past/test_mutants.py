"""Tests written from a log kill the mutants of the starter policy that decide something in the log otherwise."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from support.opa import require_opa
from support.past_policies import decided_log, evaluator
from support.policy_inputs import approval_questions, starter_with_revocations, well_formed

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.backtest.recorded import RecordedDecision
from sealbus.policies.bundle.check import DECISION
from sealbus.policies.bundle.files import build_bundle
from sealbus.policies.bundle.format import Bundle
from sealbus.policies.decision.approval import APPROVAL
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.module import Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.past.rego_text import PastTest, rego_files
from sealbus.policies.past.ways import Evaluate, Ways
from sealbus.policies.past.writing import is_writable, past_tests

MUTATED = ("sealbus/authz/decision.rego", "sealbus/lib/rules.rego", "sealbus/lib/approvals.rego")
KILLED = 0.9
SWAPS = (
    *((" == ", " != "), (" != ", " == "), (" <= ", " < "), (" < ", " <= "), (" >= ", " > "), (" <= ", " > ")),
    *(("true", "false"), ("false", "true"), ("not ", ""), ("every ", "some "), ('"allow": true', '"allow": false')),
)

Question = tuple[str, bytes]


def mutants(text: str) -> Iterator[str]:
    """Yield `text` with a condition removed, a comparison or a truth turned, a number or a text changed; one at a time."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        before, after = "".join(lines[:number]), "".join(lines[number + 1 :])
        if not line.startswith("\t") or line.strip().startswith("#"):
            continue
        if not line.strip().endswith(("{", "}", "[", "]")):
            yield before + after
        for old, new in SWAPS:
            for found in re.finditer(
                rf"(?<![\w\"]){re.escape(old)}(?![\w\"])" if old.isalpha() else re.escape(old), line
            ):
                yield before + line[: found.start()] + new + line[found.end() :] + after
        for found in re.finditer(r"(?<![\w\"])\d+(?!\w)", line):
            yield before + line[: found.start()] + str(int(found[0]) + 1) + line[found.end() :] + after
        for found in re.finditer(r'"[a-z_]+"', line):
            yield before + line[: found.start()] + '"mutant"' + line[found.end() :] + after


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(starter_with_revocations(tmp_path_factory.mktemp("past") / "starter"))


@pytest.fixture(scope="module")
def evaluate(policy: Bundle) -> Evaluate:
    return evaluator(policy)


def questions(count: int) -> list[Question]:
    asked = [(DECISION, document) for document in well_formed(count)]
    return [*asked, *((APPROVAL, document) for document in approval_questions(count // 4))]


def written(log: list[RecordedDecision], evaluate: Evaluate) -> list[PastTest]:
    ways = Ways(evaluate)
    for one in log:
        ways.add(one)
    assert ways.left_out.total() == 0
    return list(past_tests(ways, evaluate))


def answer(interpreter: Interpreter, question: Question) -> object:
    try:
        return interpreter.evaluate(*question)
    except PolicyFailed:
        return PolicyFailed


@pytest.mark.slow
@pytest.mark.parametrize("count", [60, 400])
def test_they_kill_the_mutants_that_change_a_recorded_decision(policy: Bundle, evaluate: Evaluate, count: int) -> None:
    asked = questions(count)
    tests = written(decided_log(evaluate, asked), evaluate)
    data = canonical(policy.data)
    original = Interpreter(policy.modules, data)
    told = [answer(original, question) for question in asked]
    changing = killed = 0
    for module in (module for module in policy.modules if module.path in MUTATED):
        for text in mutants(module.text):
            modules = [replace(other, text=text) if other is module else other for other in policy.modules]
            try:
                mutant = Interpreter(modules, data)
            except PolicyRefused:
                continue
            if any(answer(mutant, (test.rule, canonical(test.document))) != test.answer for test in tests):
                changing += 1
                killed += 1
            elif any(answer(mutant, question) != before for question, before in zip(asked, told, strict=True)):
                changing += 1
    assert changing > 150
    assert killed / changing >= KILLED, f"{killed} of {changing} killed by {len(tests)} tests"


def test_the_log_in_any_order_gives_the_same_files(evaluate: Evaluate) -> None:
    log = decided_log(evaluate, questions(60))
    files = list(rego_files(written(log, evaluate)))
    Random(5).shuffle(log)  # noqa: S311  the same order each time
    assert list(rego_files(written(log, evaluate))) == files


def test_a_document_is_reduced_to_what_decides(evaluate: Evaluate) -> None:
    log = decided_log(evaluate, questions(30))
    for test in written(log, evaluate):
        assert "message_id" not in str(test.document)
        assert is_writable(test)


@pytest.mark.opa
def test_they_pass_under_opa_beside_the_bundle(policy: Bundle, evaluate: Evaluate, tmp_path: Path) -> None:
    opa = require_opa()
    bundle, folder = tmp_path / "bundle.tar.gz", tmp_path / "tests"
    bundle.write_bytes(policy.raw)
    folder.mkdir()
    tests = written(decided_log(evaluate, questions(100)), evaluate)
    for file in rego_files(tests):
        (folder / file.path).write_text(file.text, "utf-8")

    def run(*arguments: str | Path) -> tuple[int, str]:
        done = subprocess.run([opa, *arguments], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert run("test", bundle, folder) == (0, f"PASS: {len(tests)}/{len(tests)}\n")
    assert run("fmt", "--list", "--fail", folder) == (0, "")
    assert run("check", "--strict", folder) == (0, "")
    # Beside a policy that decides otherwise they fail.
    other = {module.path: module for module in policy.modules}
    rules = other["sealbus/lib/rules.rego"]
    broken = Module(path=rules.path, text=rules.text.replace('"over_limit":', '"over":'))
    assert broken != rules
    (tmp_path / "policy").mkdir()
    for module in (*policy.modules, broken):
        place = tmp_path / "policy" / module.path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(module.text, "utf-8")
    (tmp_path / "policy" / "data.json").write_bytes(canonical(policy.data))
    assert run("test", tmp_path / "policy", folder)[0] == 2
