from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.opa import require_opa
from support.rego_results import disagreements

from sealbus.envelopes.errors import ConfigurationError
from sealbus.policies.bundle.files import STARTER
from sealbus.policies.lint.module import PolicyRefused
from sealbus.policies.rego_tests import RegoTestResult, run_tests

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	data.known[request.who] == true
} else := {"allow": false, "reasons": ["sized"], "obligations": [], "policy": "p"} if {
	sized(request.context.chain)
} else := {"allow": false, "reasons": ["unknown"], "obligations": [], "policy": "p"}

length(value) := count(value)

sized(value) if length(value) == 3
"""

TESTS = """package sealbus.authz_test

test_known if data.sealbus.authz.decide({"who": "mia"}).allow == true

test_unknown if {
	data.sealbus.authz.decide({"who": "eve"}).allow == false
}

test_of_the_input if {
	data.sealbus.authz.decision.allow == true with input as {"who": "mia"}
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a small policy, its data and three tests that pass."""
    policy = tmp_path / "policy"
    (policy / "sealbus" / "authz").mkdir(parents=True)
    (policy / "known").mkdir()
    (policy / "known" / "data.json").write_text('{"mia": true}')
    (policy / "sealbus" / "authz" / "policy.rego").write_text(POLICY)
    (policy / "sealbus" / "authz" / "policy_test.rego").write_text(TESTS)
    return policy


def add_test(folder: Path, text: str, name: str = "more_test.rego") -> None:
    (folder / name).write_text(f"package sealbus.more_test\n\n{text}\n")


def fake_opa(folder: Path, *, answer: str = "", error: str = "", code: int = 0) -> Path:
    """Write an executable that answers as told: for what a real OPA would not do on demand."""
    script = folder.parent / "opa"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\ncat >&2 <<'END'\n{error}\nEND\nexit {code}\n")
    script.chmod(0o755)
    return script


def by_name(results: tuple[RegoTestResult, ...], engine: str = "embedded") -> dict[str, RegoTestResult]:
    return {one.name: one for one in results if one.engine == engine}


def test_runs_every_test_on_the_embedded_engine(folder: Path) -> None:
    results = run_tests(folder)
    assert [(one.name, one.engine, one.passed, one.error) for one in results] == [
        ("test_known", "embedded", True, ""),
        ("test_of_the_input", "embedded", True, ""),
        ("test_unknown", "embedded", True, ""),
    ]


def test_says_where_a_test_stands(folder: Path) -> None:
    found = by_name(run_tests(folder))["test_unknown"]
    assert (found.package, found.file, found.line) == ("sealbus.authz_test", "sealbus/authz/policy_test.rego", 5)


def test_a_test_that_is_false_undefined_or_no_boolean_fails(folder: Path) -> None:
    add_test(folder, "test_false := false\n\ntest_undefined if data.nothing\n\ntest_number := 1\n\ntest_null := null")
    found = by_name(run_tests(folder))
    assert {name: (found[name].passed, found[name].error) for name in found if "more" in found[name].package} == {
        "test_false": (False, ""),
        "test_undefined": (False, "line 5 does not hold: data.nothing"),
        "test_number": (False, ""),
        "test_null": (False, ""),
    }


def test_an_error_fails_the_test_that_meets_it_and_no_other(folder: Path) -> None:
    add_test(
        folder, "test_error if {\n\tdata.sealbus.authz.length(input) == 3 with input as true\n}\n\ntest_good := true"
    )
    found = by_name(run_tests(folder))
    assert not found["test_error"].passed
    assert "policy.rego:13" in found["test_error"].error
    assert found["test_good"].passed
    assert found["test_known"].passed


def test_a_test_beside_the_rules_runs_too(folder: Path) -> None:
    rules = folder / "sealbus" / "authz" / "policy.rego"
    rules.write_text(f"{rules.read_text()}\ntest_inside := true\n")
    assert by_name(run_tests(folder))["test_inside"].passed


@pytest.mark.parametrize(
    "rule",
    ["test_odd(x) if x == 1", "test_odd contains 1 if true", 'test_odd["key"] := true', "test_odd.key := true"],
)
def test_a_test_that_is_no_plain_rule_fails(folder: Path, rule: str) -> None:
    add_test(folder, rule)
    found = by_name(run_tests(folder))["test_odd"]
    assert not found.passed
    assert "without arguments" in found.error


def test_a_test_that_is_defined_twice_fails(folder: Path) -> None:
    add_test(folder, "test_twice := true")
    add_test(folder, "test_twice := true", "other_test.rego")
    found = by_name(run_tests(folder))["test_twice"]
    assert not found.passed
    assert "twice" in found.error
    assert found.file == "other_test.rego"


def test_rules_with_another_name_are_no_tests(folder: Path) -> None:
    add_test(folder, "todo_test_later := false\n\ntesting := false")
    assert len(run_tests(folder)) == 3


def test_a_folder_without_tests_has_no_results(folder: Path) -> None:
    (folder / "sealbus" / "authz" / "policy_test.rego").unlink()
    assert run_tests(folder) == ()


def test_what_is_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        run_tests(tmp_path / "absent")


def test_a_policy_that_does_not_compile_is_named_with_its_line(folder: Path) -> None:
    (folder / "sealbus" / "authz" / "bad.rego").write_text("package sealbus.authz\n\nrule := [\n")
    with pytest.raises(PolicyRefused, match=r"sealbus/authz/bad\.rego:4"):
        run_tests(folder)


def test_a_test_file_that_does_not_compile_is_named_with_its_line(folder: Path) -> None:
    add_test(folder, "test_half if {")
    with pytest.raises(PolicyRefused, match=r"more_test\.rego:4"):
        run_tests(folder)


def test_a_form_in_a_test_that_the_engines_decide_otherwise_is_refused(folder: Path) -> None:
    add_test(folder, "test_clock if time.now_ns() > 0")
    with pytest.raises(PolicyRefused, match=r"more_test\.rego:3.*builtin"):
        run_tests(folder)


def test_a_test_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "binary_test.rego").write_bytes(b"package \xff")
    with pytest.raises(PolicyRefused, match=r"binary_test\.rego"):
        run_tests(folder)


@pytest.mark.opa
def test_real_opa_and_the_embedded_engine_give_every_test_the_same_result(folder: Path) -> None:
    add_test(folder, "test_false := false\n\ntest_number := 1\n\ntodo_test_later := false")
    results = run_tests(folder, opa=require_opa())
    embedded, opa = by_name(results), by_name(results, "opa")
    assert disagreements(results) == ()
    assert {name: one.passed for name, one in opa.items()} == {name: one.passed for name, one in embedded.items()}
    assert {name: (one.file, one.line) for name, one in opa.items()} == {
        name: (one.file, one.line) for name, one in embedded.items()
    }
    assert [name for name, one in opa.items() if not one.passed] == ["test_false", "test_number"]


@pytest.mark.opa
def test_real_opa_takes_an_error_under_not_for_undefined(folder: Path) -> None:
    add_test(folder, "test_error if {\n\tvalue := data.known.mia\n\tnot data.sealbus.authz.sized(value)\n}")
    results = run_tests(folder, opa=require_opa())
    assert by_name(results, "opa")["test_error"].passed
    assert disagreements(results) == ("sealbus.more_test.test_error",)


@pytest.mark.opa
def test_what_real_opa_alone_refuses_is_passed_on(folder: Path) -> None:
    rules = folder / "sealbus" / "authz" / "policy.rego"
    rules.write_text(f"{rules.read_text()}\n# METADATA\n# title: [x\nodd := 1\n")
    with pytest.raises(PolicyRefused, match=r"policy\.rego:\d+: rego_parse_error: yaml"):
        run_tests(folder, opa=require_opa())


def found_by_opa(name: str, **more: object) -> dict[str, object]:
    return {"package": "data.sealbus.authz_test", "name": name, "location": {"file": "f.rego", "row": 7}, **more}


def test_what_opa_says_of_a_test_is_kept(folder: Path) -> None:
    answer = [
        found_by_opa("test_known"),
        found_by_opa("test_unknown", fail=True),
        found_by_opa("test_of_the_input", error=[{"message": "it broke"}]),
        found_by_opa("todo_test_later", skip=True),
    ]
    results = run_tests(folder, opa=fake_opa(folder, answer=json.dumps(answer), code=2))
    assert [(one.name, one.passed, one.error, one.file, one.line) for one in results if one.engine == "opa"] == [
        ("test_known", True, "", "f.rego", 7),
        ("test_of_the_input", False, "it broke", "f.rego", 7),
        ("test_unknown", False, "", "f.rego", 7),
    ]
    assert disagreements(results) == ("sealbus.authz_test.test_of_the_input", "sealbus.authz_test.test_unknown")


def test_a_test_that_one_engine_did_not_run_has_failed_there(folder: Path) -> None:
    answer = [found_by_opa("test_known"), found_by_opa("test_unknown"), found_by_opa("test_more")]
    results = run_tests(folder, opa=fake_opa(folder, answer=json.dumps(answer)))
    assert [(one.name, one.engine, one.error) for one in results if not one.passed] == [
        ("test_more", "embedded", "not run: only opa reads it as a test"),
        ("test_of_the_input", "opa", "not run: only embedded reads it as a test"),
    ]
    assert len(disagreements(results)) == 2


def test_an_opa_that_gives_up_is_quoted(folder: Path) -> None:
    with pytest.raises(PolicyRefused, match="policy: no space left on device"):
        run_tests(folder, opa=fake_opa(folder, error="no space left\non device", code=1))


def test_an_opa_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent/opa cannot be run: No such file"):
        run_tests(folder, opa=folder / "absent" / "opa")


def test_an_opa_that_hangs_is_ended(folder: Path) -> None:
    script = fake_opa(folder)
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(ConfigurationError, match=r"did not end within 0\.1 s"):
        run_tests(folder, opa=script, deadline=0.1)


def test_an_opa_named_from_here_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [found_by_opa(name) for name in ("test_known", "test_unknown", "test_of_the_input")]
    script = fake_opa(folder, answer=json.dumps(answer))
    monkeypatch.chdir(script.parent.parent)
    results = run_tests(folder, opa=Path(script.parent.name) / script.name)
    assert all(one.passed for one in results)
    assert len(results) == 6


@pytest.mark.parametrize("engine", ["embedded", pytest.param("opa", marks=pytest.mark.opa)])
def test_the_platform_above_teams_is_a_part_and_passes_its_own(engine: str) -> None:
    folder = STARTER.parent / "platform"
    with pytest.raises(PolicyRefused, match="has no decide"):
        run_tests(folder)
    results = run_tests(folder, part=True, opa=require_opa() if engine == "opa" else None)
    assert len([one for one in results if one.engine == engine]) == 4
    assert [one for one in results if not one.passed] == []


TEAM = """package sealbus.teams.stock

import data.sealbus.lib.rules

decide(request) := rules.allowed("stock") if {
	rules.in_order(request) == true
} else := rules.denied("stock", request, {})
"""
TEAM_TEST = """package sealbus.teams.stock.own_test

test_it_denies if {
	data.sealbus.teams.stock.decide({}).reasons == ["incomplete"]
}
"""


@pytest.mark.parametrize("engine", ["embedded", pytest.param("opa", marks=pytest.mark.opa)])
def test_a_part_of_a_team_is_tested_with_the_library(tmp_path: Path, engine: str) -> None:
    (tmp_path / ".manifest").write_text('{"roots": ["sealbus/teams/stock"]}')
    (tmp_path / "stock.rego").write_text(TEAM)
    (tmp_path / "stock_test.rego").write_text(TEAM_TEST)
    results = run_tests(tmp_path, part=True, opa=require_opa() if engine == "opa" else None)
    assert [(one.name, one.passed) for one in results if one.engine == engine] == [("test_it_denies", True)]
    assert [one for one in results if not one.passed] == []
