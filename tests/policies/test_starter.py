from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.opa import require_opa
from support.policy_inputs import closed_policy, starter_with_revocations, well_formed
from support.rego_results import disagreements

from sealbus.envelopes.errors import PolicyFailed
from sealbus.policies.bundle.files import STARTER, build_bundle
from sealbus.policies.bundle.library import LIBRARY_FOLDER
from sealbus.policies.decision.documents import canonical
from sealbus.policies.lint.module import TEST_SUFFIX, Module, PolicyRefused
from sealbus.policies.lint.regorus import Interpreter
from sealbus.policies.rego_tests import run_tests

LIBRARY = LIBRARY_FOLDER / "sealbus" / "lib"
RULES = LIBRARY / "rules.rego"
CONNECT_RULES = LIBRARY / "connections.rego"
APPROVAL_RULES = LIBRARY / "approvals.rego"


def test_the_folder_is_a_bundle_without_its_tests() -> None:
    bundle = build_bundle(STARTER)
    assert bundle.roots == ("sealbus",)
    assert [module.path for module in bundle.modules] == [
        "sealbus/approval/decision.rego",
        "sealbus/authz/decision.rego",
        "sealbus/connect/decision.rego",
        "sealbus/lib/approvals.rego",
        "sealbus/lib/connections.rego",
        "sealbus/lib/rules.rego",
    ]
    assert bundle.data.keys() == {"sealbus"}


def test_every_rego_test_passes_on_the_embedded_engine() -> None:
    results = run_tests(STARTER)
    assert [one for one in results if not one.passed] == []
    assert len(results) > 90


@pytest.mark.opa
def test_every_rego_test_passes_on_real_opa() -> None:
    results = run_tests(STARTER, opa=require_opa())
    assert [one for one in results if not one.passed] == []
    assert disagreements(results) == ()
    assert {one.engine for one in results} == {"embedded", "opa"}


@pytest.mark.opa
def test_real_opa_finds_nothing_to_mend(tmp_path: Path) -> None:
    folder = tmp_path / "laid-out"
    shutil.copytree(STARTER, folder)
    shutil.copytree(LIBRARY_FOLDER, folder, dirs_exist_ok=True)
    for command in (["check", "--strict", "--bundle"], ["fmt", "--list", "--fail"]):
        done = subprocess.run([require_opa(), *command, "."], cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def removals(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line of each condition of a Rego file, and the file without that condition.

    A condition is a line inside a body, a whole `every`, or an entry of the conditions that have a word. What gives a
    name a value, opens a body or closes one is none.
    """
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        stripped = line.strip()
        if not line.startswith("\t") or stripped.startswith(("#", "}", "]", "some ")) or ":=" in line:
            continue
        end = number + 1
        if stripped.startswith("every "):
            end = next(at for at in range(end, len(lines)) if lines[at].strip() == "}") + 1
        elif stripped.endswith("{"):
            continue
        elif lines[number - 1].strip().startswith("every ") and lines[number + 1].strip() == "}":
            continue  # The only line of an `every`: an empty one is no Rego.
        yield number + 1, "".join((*lines[:number], *lines[end:]))


MUTANTS = {(file, line): text for file in (RULES, APPROVAL_RULES) for line, text in removals(file.read_text())}
"""The policy without one condition, by the line where that stood."""


def test_the_conditions_that_are_removed_are_those_of_the_policy() -> None:
    text = RULES.read_text().splitlines()
    end = text.index("user_known(user, users) if {")
    removed = [text[line - 1].split()[0] for file, line in MUTANTS if file == RULES and line < end]
    assert removed == [
        "count(words)",
        "registry.agents[request.subject.id].actions[request.action.name]",
        "request.subject.id",
        "every",
        "registry.agents[hop]",
        *["object.get(registry.revoked.agents,", "object.get(registry.revoked.users,"],
        *["object.get(registry.revoked.sessions,", "object.get(registry.revoked.clients,"],
        *["user_known(user,", "user_may_reach(action,"],
        "every",
        *["request.action.properties[field]", "request.action.properties[field]"],
        "within_hours(action.hours,",
        *["endswith(request.action.name,", "request.action.properties.role"],
        "registry.agents[request.subject.id].actions[request.action.properties.action]",
        *["chain_known(registry.agents,", "none_revoked(registry.revoked.agents,"],
        *["none_revoked(registry.revoked.users,", "none_revoked(registry.revoked.sessions,"],
        *["none_revoked(registry.revoked.clients,", "user_known(user,"],
        *["approved(request,", "approvable(registry.actions[request.action.name],", "reasons(request)"],
    ]


@pytest.fixture(scope="module")
def suite() -> tuple[list[Module], bytes, list[str]]:
    """Return the test files of the starter policy, its data, and the paths of its tests."""
    files = [
        Module(path=path.relative_to(STARTER).as_posix(), text=path.read_text())
        for path in STARTER.rglob(f"*{TEST_SUFFIX}")
    ]
    tests = [f"data.{one.package}.{one.name}" for one in run_tests(STARTER)]
    return files, canonical(build_bundle(STARTER).data), tests


def mutated(file: Path, text: str, tests: list[Module]) -> list[Module]:
    """Return the modules of the starter policy and its tests, with `text` for the library's `file`."""
    path = file.relative_to(LIBRARY_FOLDER).as_posix()
    rules = [Module(path=path, text=text) if one.path == path else one for one in build_bundle(STARTER).modules]
    return [*rules, *tests]


@pytest.mark.parametrize(("file", "line"), [pytest.param(*one, id=f"{one[0].stem}:{one[1]}") for one in MUTANTS])
def test_without_a_condition_a_rego_test_fails(
    suite: tuple[list[Module], bytes, list[str]], file: Path, line: int
) -> None:
    files, data, tests = suite
    interpreter = Interpreter(mutated(file, MUTANTS[file, line], files), data)
    assert any(not _passes(interpreter, test) for test in tests), f"no test misses the condition in line {line}"


@pytest.mark.slow
def test_without_a_line_of_what_a_connection_is_granted_a_rego_test_fails(
    suite: tuple[list[Module], bytes, list[str]],
) -> None:
    files, data, tests = suite
    tried, missed = 0, []
    for line, text in removals(CONNECT_RULES.read_text()):
        try:
            mutant = Interpreter(mutated(CONNECT_RULES, text, files), data)
        except PolicyRefused:
            continue  # a line that others need
        tried += 1
        if all(_passes(mutant, test) for test in tests):
            missed.append(line)
    assert missed == []
    assert tried > 40


def _passes(interpreter: Interpreter, test: str) -> bool:
    try:
        return interpreter.evaluate(test, b"{}") is True
    except PolicyFailed:
        return False


def decisions(folder: Path) -> list[dict[str, object]]:
    """Return what the policy of `folder` answers to 500 well-formed documents."""
    bundle = build_bundle(folder)
    interpreter = Interpreter(bundle.modules, canonical(bundle.data))
    found = []
    for document in well_formed(500):
        decision = interpreter.evaluate("data.sealbus.authz.decision", document)
        assert isinstance(decision, dict)
        found.append(decision)
    return found


def test_generated_documents_are_decided_both_ways_and_for_every_reason(tmp_path: Path) -> None:
    found = decisions(starter_with_revocations(tmp_path / "policy"))
    allowed = [one for one in found if one["allow"] is True]
    assert len(found) / 4 <= len(allowed) <= len(found) * 3 / 4
    assert all(one["reasons"] == [] for one in allowed)
    reasons = {word for one in found if isinstance(one["reasons"], list) for word in one["reasons"]}
    assert reasons == {
        "action_not_granted",
        "not_approved",
        "not_owner",
        "outside_business_hours",
        "over_limit",
        "revoked_agent",
        "revoked_client",
        "revoked_session",
        "revoked_user",
        "unknown_action",
        "unknown_agent",
        "unknown_chain_agent",
        "unknown_user",
        "user_required",
    }


def test_every_denial_has_a_reason_and_no_allowance_has_one(tmp_path: Path) -> None:
    for one in decisions(starter_with_revocations(tmp_path / "policy")):
        assert one["allow"] is (one["reasons"] == [])


def test_without_its_rules_what_was_allowed_is_denied(tmp_path: Path) -> None:
    before = decisions(starter_with_revocations(tmp_path / "policy"))
    after = decisions(closed_policy(tmp_path / "closed"))
    assert sum(one["allow"] is True for one in before) >= len(before) / 4
    assert all(one["allow"] is False and one["policy"] == "closed" for one in after)
