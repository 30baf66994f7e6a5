"""What `sealbus init` makes, and the examples, pass their own tests, each in a process of its own, as its owner runs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.run.init import TEMPLATES, command
from sealbus.policies.rego_tests import run_tests

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/sealbus.toml"))

pytestmark = [pytest.mark.nats, pytest.mark.slow]


def run_own_tests(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:schemathesis"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_passes_its_own_tests(template: str, tmp_path: Path) -> None:
    made = CliRunner().invoke(command, ["billing", "--template", template, "--folder", str(tmp_path / "project")])
    assert made.exit_code == 0, made.output
    run_own_tests(tmp_path / "project")
    results = run_tests(tmp_path / "project" / "policy", opa=None)
    assert len(results) == 3
    assert all(one.passed for one in results)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_new_project_is_typed_and_linted(template: str, tmp_path: Path) -> None:
    CliRunner().invoke(command, ["billing", "--template", template, "--folder", str(tmp_path)])
    for tool in (["mypy", "--strict"], ["ruff", "format", "--check"]):
        checked = [path.name for path in tmp_path.iterdir() if (path / "agent.py").exists()]
        done = subprocess.run(
            [sys.executable, "-m", *tool, *checked, "tests"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / name, tmp_path / name)
    run_own_tests(tmp_path / name)


def test_there_are_examples() -> None:
    assert EXAMPLES == ["llm_team", "migration"]
