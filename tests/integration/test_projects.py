"""What `sealbus init` makes, and the examples, pass their own tests, each in a process of its own, as its owner runs them."""

from __future__ import annotations

import json
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

PLUGINS = ("-p", "no:schemathesis", "-p", "no:langsmith_plugin")
"""Those that our environment has beside a project's: each takes most of a second to load."""

pytestmark = [pytest.mark.nats, pytest.mark.slow]


def run_own_tests(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *PLUGINS],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=300,
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


APPROVED = """
from sealbus.testing import TestBus
from orders.agent import QUANTITIES

WHAT = {"two": ("billing.double", {"order_id": "1"}), "llm": ("billing.ask", "set order 1 to 20")}


async def test_what_waits_is_told_and_asked_for_once(bus: TestBus) -> None:
    QUANTITIES["1"] = 10
    action, body = WHAT["TEMPLATE"]
    handle = await (await bus.client("web")).submit(action, body, user=bus.user("alice", "web"))
    assert "waits for an approval" in str(await handle.result(object, timeout=60))
    [waiting] = await bus.waiting()
    assert QUANTITIES["1"] == 10
    await bus.approve(waiting, "bob")
    await bus.idle()
    assert QUANTITIES["1"] == 20
    assert await bus.waiting() == []
"""


@pytest.mark.parametrize("template", ["two", "llm"])
def test_an_agent_that_asks_another_does_not_wait_for_an_approval(template: str, tmp_path: Path) -> None:
    """Once the policy lets the second agent's action wait for a person, the first one's handler ends at once."""
    CliRunner().invoke(command, ["billing", "--template", template, "--folder", str(tmp_path)])
    registry = tmp_path / "policy" / "sealbus" / "registry"
    actions = json.loads((registry / "actions" / "data.json").read_text())
    actions["orders.change"] |= {
        "limits": {"quantity": 15},
        "approval": {"over": {"quantity": 100}, "queue": "managers", "until": 604_800},
    }
    (registry / "actions" / "data.json").write_text(json.dumps(actions))
    (registry / "users" / "data.json").write_text('{"alice": {}, "bob": {"customers": {"acme": true}}}')
    orders = tmp_path / "orders" / "agent.py"
    owned = "owner=OWNERS[body.order_id]"
    orders.write_text(orders.read_text().replace(owned, f'{owned}, customer="acme"'))
    (tmp_path / "tests" / "test_agent.py").write_text(APPROVED.replace("TEMPLATE", template))
    run_own_tests(tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_passes_its_own_tests(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / name, tmp_path / name)
    run_own_tests(tmp_path / name)


def test_there_are_examples() -> None:
    assert EXAMPLES == ["llm_team", "migration"]
