"""A newcomer's path: from the built wheel to an agent of one's own that runs, a call allowed, and one denied.

What pip would fetch is taken from the environment of the tests, because tests have no network: everything but sealbus itself.
"""

from __future__ import annotations

import json
import os
import re
import signal
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.howto import commands_of

ROOT = Path(__file__).parent.parent.parent
WITHIN = 300

pytestmark = [pytest.mark.nats, pytest.mark.slow]


def run(*command: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SEALBUS_", "PYTEST_"))}
    done = subprocess.run(
        [str(one) for one in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def environment(folder: Path, wheel: Path) -> Path:
    """Make an environment in `folder` with the wheel, and beside it what the tests have; return its `bin`."""
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "of-the-tests.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    (folder / "bin" / "nats-server").symlink_to(Path(sys.executable).parent / "nats-server")
    return folder / "bin"


@dataclass(frozen=True, slots=True)
class Running:
    """A process, and the lines that it has said."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def until(self, words: str, times: int) -> None:
        """Read on until so many lines hold `words`; the test's own timeout ends a wait for ever."""
        assert self.process.stdout is not None
        while sum(words in line for line in self.said) < times:
            line = self.process.stdout.readline()
            assert line, "".join(self.said)
            self.said.append(line)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Where somebody has installed sealbus, and their project."""

    tool: Path
    project: Path

    def sealbus(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder."""
        return run(self.tool / "sealbus", *arguments, cwd=self.project, code=code)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the tutorial there."""
        path = f"{self.tool}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-c", command],
            cwd=self.project,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )

    @contextmanager
    def dev(self) -> Iterator[Running]:
        """Run `sealbus dev` in the project, from when its agent is there."""
        process = subprocess.Popen(
            [
                str(self.tool / "sealbus"),
                "dev",
                "--port",
                "0",
                "--edge-port",
                "0",
                "--console-port",
                "0",
            ],
            cwd=self.project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = Running(process)
        try:
            running.until(f"{self.project.name} runs as", 1)
            yield running
        finally:
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=WITHIN)
        assert process.returncode == 0, "".join([*running.said, rest])


@dataclass(frozen=True, slots=True)
class Installed:
    """The wheel, and an environment that has it."""

    wheel: Path
    tool: Path

    def project(self, place: Path, name: str) -> Newcomer:
        """Make a project in `place`, whose own environment has the wheel and pytest."""
        run(self.tool / "sealbus", "init", name, cwd=place)
        project = place / name
        assert (project / "requirements.txt").read_text().splitlines()[0] == f"sealbus @ {self.wheel.as_uri()}"
        own = environment(project / ".venv", self.wheel)
        script = f"#!{own / 'python'}\nimport pytest\nraise SystemExit(pytest.main())\n"
        (own / "pytest").write_text(script, encoding="utf-8")
        (own / "pytest").chmod(0o755)
        (project / ".venv" / ".ready").touch()
        return Newcomer(self.tool, project)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel, and install it."""
    place = tmp_path_factory.mktemp("newcomer")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", place, ROOT, cwd=place)
    (wheel,) = place.glob("*.whl")
    return Installed(wheel, environment(place / "tool", wheel))


@pytest.fixture(scope="module")
def newcomer(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    """Make a project."""
    return installed.project(tmp_path_factory.mktemp("projects"), "billing")


def test_the_policy_and_the_agent_of_a_new_project_are_tested(newcomer: Newcomer) -> None:
    done = run("make", "test", cwd=newcomer.project)
    assert "3 passed, 0 failed, on embedded" in done.stderr
    assert "3 passed" in done.stdout
    assert "warning" not in (done.stdout + done.stderr).lower()


@pytest.fixture(scope="module")
def running(newcomer: Newcomer) -> Iterator[Running]:
    with newcomer.dev() as said:
        yield said


def test_a_call_is_allowed_one_denied_and_what_is_changed_runs(newcomer: Newcomer, running: Running) -> None:
    body = '{"order_id": "1"}'
    allowed = newcomer.sealbus("call", "billing.read", body, "--user", "alice")
    assert json.loads(allowed.stdout) == {"order_id": "1", "quantity": 10}
    assert "not_owner" in newcomer.sealbus("call", "billing.read", body, "--user", "bob", code=3).stderr
    too_much = '{"order_id": "1", "quantity": 101}'
    denied = newcomer.sealbus("pub", "task.billing.change", too_much, "--user", "alice", "--wait", code=3)
    assert "too_much_at_once" in denied.stderr
    # Why: the newest denial, with its rule, line and values.
    why = json.loads(newcomer.sealbus("policy", "explain", "--json").stdout)
    assert (why["action"], why["verdict"]) == ("billing.change", "deny")
    [reason] = why["reasons"]
    assert (reason["reason"], reason["title"]) == ("too_much_at_once", "this is too much for one order")
    rule = (newcomer.project / "policy" / "sealbus" / "authz" / "decision.rego").read_text().splitlines()
    [limit] = [one for one in reason["failed"] if "quantity <=" in one["written"]]
    assert limit["file"] == "sealbus/authz/decision.rego"
    assert limit["written"] in rule[limit["line"] - 1]
    assert [one["value"] for one in limit["looked"]] == ["101", "100"]
    # Development says which field it was.
    wrong = newcomer.sealbus("call", "billing.read", '{"order": "1"}', "--user", "alice", code=1)
    assert "order_id" in wrong.stderr

    # And what there is instead of a name that is wrong.
    wrong = newcomer.sealbus("call", "billing.raed", body, "--user", "alice", code=1)
    assert "[no_listener]" in wrong.stderr
    assert "billing runs now; the policy declares for it billing.change, billing.read" in wrong.stderr
    wrong = newcomer.sealbus("call", "biling.read", body, "--user", "alice", code=1)
    assert "no agent biling is known; there is billing" in wrong.stderr
    wrong = newcomer.sealbus("pub", "task.billing.chnage", body, "--user", "alice", "--wait", "1", code=1)
    assert "there is billing.read (a call), billing.change (a task)" in wrong.stderr

    # What happens now, while it happens.
    with subprocess.Popen(
        [str(newcomer.tool / "sealbus"), "top", "--times", "40", "--every", "0.5", "--json"],
        cwd=newcomer.project,
        stdout=subprocess.PIPE,
        text=True,
    ) as top:
        assert top.stdout is not None
        top.stdout.readline()
        newcomer.sealbus("call", "billing.read", body, "--user", "alice")
        looks = ([one for one in json.loads(line) if one["action"] == "billing.read"] for line in top.stdout)
        seen = next(filter(None, looks))
        top.send_signal(signal.SIGINT)
        top.stdout.read()
    assert top.returncode == 0
    assert [(one["agent"], one["denied"]) for one in seen] == [("/agent/billing", 0.0)]

    # The typed client, by the project's own interpreter.
    token = newcomer.sealbus("token", "--user", "alice").stdout.strip()
    python = newcomer.project / ".venv" / "bin" / "python"
    done = run("env", f"TOKEN={token}", python, "-m", "billing.client", "1", "4", cwd=newcomer.project)
    assert "now: order_id='1' quantity=4" in done.stdout

    # A changed agent and a changed policy are in force while everything runs.
    agent = newcomer.project / "billing" / "agent.py"
    agent.write_text(agent.read_text().replace('{"1": 10,', '{"1": 77,'))
    running.until("billing runs as", 2)
    assert json.loads(newcomer.sealbus("call", "billing.read", body, "--user", "alice").stdout)["quantity"] == 77
    limits = newcomer.project / "policy" / "billing" / "limits" / "data.json"
    limits.write_text('{"quantity": 1000}')
    running.until("policy published", 1)
    running.until("is in force", 3)
    newcomer.sealbus("pub", "task.billing.change", too_much, "--user", "alice", "--wait")

    # What was decided, from the evidence.
    replayed = [
        json.loads(line) for line in newcomer.sealbus("audit", "replay", "--user", "bob", "--json").stdout.splitlines()
    ]
    assert [(one["allow"], one["reasons"]) for one in replayed if one.get("action") == "billing.read"] == [
        (False, ["not_owner"])
    ]
    assert "checkpoint" in newcomer.sealbus("audit", "replay").stdout


def tutorial(mark: str) -> list[str]:
    return commands_of((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), mark)


def test_the_tutorial_is_what_it_says(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> None:
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert tutorial("init") == ["sealbus init shop\n", "cd shop\n"]
    reader = installed.project(tmp_path_factory.mktemp("t"), "shop")
    [test] = tutorial("test")
    assert reader.shell(test).returncode == 0
    with reader.dev() as said:
        sealbus = iter(tutorial("run"))

        def next_of(number: int) -> list[subprocess.CompletedProcess[str]]:
            return [reader.shell(next(sealbus)) for _ in range(number)]

        read, other, changed, too_much, why = next_of(5)
        assert [one.returncode for one in (read, other, changed, too_much, why)] == [0, 3, 0, 3, 0], (
            read,
            changed,
            why,
        )
        assert ("not_owner" in other.stderr, "too_much_at_once" in too_much.stderr) == (True, True)
        [shown] = re.findall(r"^<!-- shown -->\n```\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for line in shown.splitlines():
            assert line in why.stdout.splitlines(), why.stdout

        limits = reader.project / "policy" / "shop" / "limits" / "data.json"
        limits.write_text('{"quantity": 10000}')
        said.until("is in force", 2)
        [limit] = tutorial("limit")
        assert reader.shell(limit).returncode == 0
        assert "test_nobody_may_too_much" in reader.shell(test).stdout
        limits.write_text('{"quantity": 100}')
        said.until("is in force", 3)

        added = re.findall(r"^<!-- add: (\S+) -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for name, text in added:
            file = reader.project / name
            file.write_text(f"{file.read_text()}\n\n{text}")
        declare, again = tutorial("declare")
        assert reader.shell(again).returncode == 2
        assert reader.shell(declare).returncode == 0
        tested = reader.shell(again)
        assert tested.returncode == 0, tested.stdout + tested.stderr
        said.until("task.shop.remove", 1)
        said.until("is in force", 5)
        denied, removed, gone, replay, stats, verified = next_of(6)
        assert [one.returncode for one in (denied, removed, gone, replay, stats, verified)] == [3, 0, 1, 0, 0, 0]
        assert "resource_not_found" in gone.stderr
        assert "verified" in verified.stdout
        assert next(sealbus, None) is None
