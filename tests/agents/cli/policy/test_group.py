"""`sealbus policy test|status|query`: results on stdout, the rest on stderr, and exit codes that say how it went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sealbus.agents.cli.policy.group import command
from sealbus.policies.bundle.files import STARTER, build_bundle, write_bundle
from sealbus.policies.opa import admin as opa_admin

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(r) | some r in input.batch]

decide(request) := {"allow": request.action.name == "a.b", "reasons": [], "obligations": [], "policy": "test"}
"""
TESTS = """package sealbus.authz_test

import data.sealbus.authz

test_allows if authz.decision.allow with input as {{"action": {{"name": "{name}"}}}}
"""


SETTINGS = """trust_domain = "example.org"
nats = ["tls://nats:4222"]
[policy]
engine = "embedded"
bundle = "bundle.tar.gz"
"""


@pytest.fixture(autouse=True)
def without_opa(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded engine alone: that both agree is tested where policies are."""
    monkeypatch.setattr("shutil.which", lambda _: None)


def policy(folder: Path, name: str) -> Path:
    (folder / "authz.rego").write_text(POLICY)
    (folder / "authz_test.rego").write_text(TESTS.format(name=name))
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_passing_tests_are_counted_and_exit_with_0(tmp_path: Path) -> None:
    result = run("test", policy(tmp_path, "a.b"))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert "1 passed, 0 failed, on embedded" in result.stderr
    assert "opa was not found" in result.stderr


def test_a_failing_test_is_named_and_exits_with_1(tmp_path: Path) -> None:
    result = run("test", policy(tmp_path, "c.d"))
    assert result.exit_code == 1
    assert "test_allows" in result.stdout
    assert "0 passed, 1 failed" in result.stderr


def test_json_is_one_object_a_test_on_stdout(tmp_path: Path) -> None:
    result = run("test", policy(tmp_path, "a.b"), "--json")
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert (found["engine"], found["name"], found["passed"]) == ("embedded", "test_allows", True)


def test_a_folder_without_tests_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "authz.rego").write_text(POLICY)
    assert run("test", tmp_path).exit_code == 1


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert run("test", tmp_path / "missing").exit_code == 2


# The engine of the settings


def test_status_of_the_engine_of_the_settings(tmp_path: Path) -> None:
    write_bundle(build_bundle(STARTER), tmp_path / "bundle.tar.gz")
    (tmp_path / "sealbus.toml").write_text(SETTINGS)
    result = run("status", "--engine", "--config", tmp_path / "sealbus.toml", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.pop("revision")
    assert found == {"engine": "embedded", "problem": "", "missed": []}


def test_an_engine_that_decides_nothing_exits_with_1_and_says_why(tmp_path: Path) -> None:
    sidecar = SETTINGS.replace("embedded", "sidecar").replace("bundle = ", "opa = ")
    (tmp_path / "sealbus.toml").write_text(sidecar)
    result = run("status", "--engine", "--config", tmp_path / "sealbus.toml")
    assert result.exit_code == 1
    assert "does not answer" in " ".join(result.stdout.split())


# A running OPA


class Admin:
    """Stands in for the client of a running OPA."""

    healthy = True
    asked: list[tuple[str, object]]

    def __init__(self, url: str) -> None:
        self.url = url

    async def status(self) -> opa_admin.OpaStatus:
        files = ("sealbus/a.rego",)
        return opa_admin.OpaStatus(healthy=self.healthy, version="1.22.2", revisions={"sealbus": "r1"}, policies=files)

    async def query(self, query: str, document: object) -> object:
        self.asked.append((query, document))
        return {"allow": True}


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> type[Admin]:
    monkeypatch.setattr(opa_admin, "OpaAdmin", Admin)
    Admin.healthy, Admin.asked = True, []
    return Admin


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1)])
def test_status_exits_by_health(admin: type[Admin], healthy: bool, code: int) -> None:
    admin.healthy = healthy
    result = run("status", "--opa", "http://127.0.0.1:8181", "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == {
        "healthy": healthy,
        "version": "1.22.2",
        "revisions": {"sealbus": "r1"},
        "policies": ["sealbus/a.rego"],
    }


def test_a_query_is_asked_with_its_input(admin: type[Admin], tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text('{"a": 1}')
    result = run("query", "data.x", "--opa", "http://127.0.0.1:8181", "--input", tmp_path / "input.json")
    assert json.loads(result.stdout) == {"allow": True}
    assert admin.asked == [("data.x", {"a": 1})]


def test_which_opa_must_be_said() -> None:
    assert run("query", "data.x").exit_code == 2


def test_its_parts_stand_in_files_of_their_own() -> None:
    assert sorted(command.commands) == [
        "backtest",
        "build",
        "explain",
        "fetch",
        "new-action",
        "opa-config",
        "push",
        "query",
        "rollback",
        "sign",
        "status",
        "test",
    ]
