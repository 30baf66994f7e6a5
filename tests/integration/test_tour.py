"""README's quick tour, executed: its commands in the order in which they stand there, from a folder with the app alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SEALBUS = str(Path(sys.executable).parent / "sealbus")
WITHIN = 60

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]


def tour() -> list[list[str]]:
    """Return the commands of the block after the mark."""
    block = re.search(r"<!-- tour -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return [shlex.split(line) for line in block[1].splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [SEALBUS, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    """Read the process's output until a line holds `text`; the test's own timeout ends a wait for ever."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if text in line:
            return
    raise AssertionError("".join(said))


def stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    process.communicate(timeout=WITHIN)
    return process.returncode


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SEALBUS, *arguments[1:]], cwd=folder, capture_output=True, text=True, timeout=WITHIN, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with the app and a running `sealbus dev` and worker; both must stop cleanly."""
    tmp_path = tmp_path_factory.mktemp("tour")
    (tmp_path / "docs" / "tour").mkdir(parents=True)
    (tmp_path / "docs" / "tour" / "app.py").write_bytes((ROOT / "docs" / "tour" / "app.py").read_bytes())
    dev = start("dev", "--port", str(free_port()), "--edge-port", "0", folder=tmp_path)
    try:
        wait_for(dev, "ready:")
        worker = start("worker", "run", "docs/tour/app.py:agent", folder=tmp_path)
        try:
            wait_for(worker, "inventory runs as")
            yield tmp_path
        finally:
            worker_code = stop(worker)
    finally:
        dev_code = stop(dev)
    assert (worker_code, dev_code) == (0, 0)
    assert not (tmp_path / ".sealbus" / "dev.toml").exists()


def test_the_tour_is_what_it_says(folder: Path) -> None:
    alice, carol, much, read, replay, replay_json = tour()
    for command in (alice, carol, much):
        assert command[:2] == ["sealbus", "pub"]
        published = run(command, folder)
        assert published.returncode == 0, published.stderr
        assert "stored as TASKS" in published.stderr
    answer = run(read, folder)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"item_id": "42", "quantity": 3}
    everything = run(replay, folder)
    assert everything.returncode == 0, everything.stderr
    verdicts = [line.split()[2] for line in everything.stdout.splitlines() if "inventory.update" in line]
    assert verdicts.count("ALLOW") == 1
    assert verdicts.count("DENY") == 2
    assert "not_owner" in everything.stdout
    assert "over_limit" in everything.stdout
    replayed = run(replay_json, folder)
    assert replayed.returncode == 0, replayed.stderr
    found = [json.loads(line) for line in replayed.stdout.splitlines()]
    assert [(one["allow"], one["reasons"]) for one in found] == [(False, ["not_owner"])]


def test_a_denied_call_has_its_exit_code_and_its_reason(folder: Path) -> None:
    denied = run(["sealbus", "call", "inventory.read", '{"item_id": "42", "quantity": 0}', "--user", "carol"], folder)
    assert denied.returncode == 3, denied.stderr
    assert denied.stdout == ""
    assert "not_owner" in denied.stderr


def test_what_became_of_a_task_is_told_by_another_command(folder: Path) -> None:
    body = '{"item_id": "42", "quantity": 3}'
    done = run(["sealbus", "pub", "task.inventory.update", body, "--user", "alice", "--wait", "30"], folder)
    assert (done.returncode, done.stdout) == (0, "null\n"), done.stderr
    denied = run(["sealbus", "pub", "task.inventory.update", body, "--user", "carol", "--wait", "30", "--json"], folder)
    assert denied.returncode == 3, denied.stderr
    stored, status = [json.loads(line) for line in denied.stdout.splitlines()]
    assert (status["state"], status["code"], status["reasons"]) == ("rejected", "denied", ["not_owner"])
    asked = run(["sealbus", "task", "status", stored["handle"]], folder)
    assert (asked.returncode, asked.stdout) == (0, "rejected  denied  not_owner\n"), asked.stderr
    again = run(["sealbus", "task", "result", stored["handle"], "--json"], folder)
    assert (again.returncode, json.loads(again.stdout)) == (3, status), again.stderr
    assert "not_owner" in again.stderr
    followed = run(["sealbus", "task", "status", stored["handle"], "--follow", "--json"], folder)
    assert [json.loads(line) for line in followed.stdout.splitlines()] == [status]
    anothers = run(["sealbus", "task", "status", stored["handle"], "--as", "planner"], folder)
    assert (anothers.returncode, anothers.stdout) == (0, "submitted\n"), anothers.stderr
    late = run(["sealbus", "pub", "task.pricing.nothing", "{}", "--wait", "0.2"], folder)
    assert late.returncode == 1
    assert "not done within 0.2 s" in late.stderr
    assert "Traceback" not in late.stderr


def test_the_other_commands_answer(folder: Path) -> None:
    shown = run(["sealbus", "identity", "show", "--json"], folder)
    assert json.loads(shown.stdout)["spiffe_id"] == "spiffe://example.org/agent/shop-web"
    planned = run(["sealbus", "streams", "plan", "--json"], folder)
    assert (planned.returncode, planned.stdout) == (0, ""), planned.stderr
    examined = run(["sealbus", "doctor", "--json"], folder)
    assert examined.returncode == 0, examined.stderr
    assert [one["ok"] for one in json.loads(examined.stdout)["checks"]] == [True, True, True]
    tail = run(["sealbus", "audit", "tail", "--last", "1", "--json"], folder)
    assert tail.returncode == 0, tail.stderr
    assert len(tail.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pub", "nonsense", "{}"], 2, "SUBJECT is"),
        (["pub", "event.shop-web.opened", "{}", "--wait"], 2, "--wait is for tasks"),
        (["task", "result", "nonsense"], 2, "HANDLE"),
        (["worker", "run", "nothing.py:agent"], 1, "no such file"),
        (["identity", "show", "--as", "nobody"], 1, "nobody.sock"),
        (["doctor", "--config", "missing.toml"], 1, "missing.toml"),
    ],
)
def test_what_is_wrong_is_one_line(folder: Path, arguments: list[str], code: int, said: str) -> None:
    finished = run(["sealbus", *arguments], folder)
    assert finished.returncode == code
    assert said in finished.stderr
    assert "Traceback" not in finished.stderr


def test_without_any_settings_the_line_says_what_to_do(tmp_path: Path) -> None:
    finished = run(["sealbus", "pub", "task.inventory.update", "{}"], tmp_path)
    assert finished.returncode == 1
    assert len(finished.stderr.splitlines()) == 1
    assert "sealbus dev" in finished.stderr
