"""The demonstration asserts itself: on both engines, and it fails where a scene surprises."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.opa import require_opa
from support.workload_api import short_folder

from sealbus.agents.cli.run.demo import command
from sealbus.agents.dev.demo import play
from sealbus.agents.dev.demo.scene import Outcome

TAMPERING = Path(__file__).parents[2] / "scripts" / "show_tampering.py"

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]


def demo(*arguments: str) -> tuple[int, dict[str, object]]:
    """Play it as README's command does: its folder is where one stands."""
    with short_folder() as folder, contextlib.chdir(folder):
        result = CliRunner().invoke(command, ["--json", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    document = json.loads(result.stdout)
    assert isinstance(document, dict)
    return result.exit_code, document


def failed(document: dict[str, object]) -> str:
    """Return what the demonstration says of scenes that are not as expected; the whole document is cut in a report."""
    scenes = document["scenes"]
    assert isinstance(scenes, list)
    return json.dumps([scene for scene in scenes if not scene["ok"]])


def test_every_scene_is_as_it_must_be_and_its_log_is_left_verified_and_tampered_with(tmp_path: Path) -> None:
    """As `make demo` does: both verifiers say yes to the export as it is, and find what was done to copies of it."""
    evidence = tmp_path / "left" / "evidence"
    code, document = demo("--export", str(evidence))
    assert code == 0, failed(document)
    assert document["ok"] is True
    assert isinstance(document["records"], int)
    assert document["records"] > 40
    found = document["scenes"]
    assert isinstance(found, list)
    assert {type(one["got"]) for one in found} == {str, int}
    assert all(set(one) == {"name", "expected", "got", "code", "ok"} for one in found)
    [fork] = [one for one in found if one["name"] == "two histories of one log"]
    assert (fork["got"], fork["code"]) == (422, "no_quorum")
    shown = subprocess.run(
        [sys.executable, str(TAMPERING), str(evidence), str(evidence.parent / "root.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("ok   ") == 8
    assert shown.stdout.count(": verifies; ") == 2
    # Its own words are no proof: with an export that does not verify, showing it fails.
    (evidence / "checkpoint").write_bytes(b"no note")
    broken = subprocess.run(
        [sys.executable, str(TAMPERING), str(evidence), str(evidence.parent / "root.json")], check=False
    )
    assert broken.returncode == 1


@pytest.mark.opa
def test_opa_decides_every_scene_alike() -> None:
    code, document = demo("--engine", "sidecar", "--opa", str(require_opa()))
    assert code == 0, failed(document)


def test_an_inverted_expectation_fails_the_demonstration(monkeypatch: pytest.MonkeyPatch) -> None:
    first = play.SCENES[0]
    monkeypatch.setattr(play, "SCENES", (replace(first, expected=Outcome(got="deny", code="denied")),))
    code, document = demo()
    assert code == 1
    assert document["ok"] is False


def test_with_a_policy_that_denies_everything_no_scene_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sealbus.agents.dev.demo import stage

    made = stage._fresh_policy

    def denying(folder: Path) -> Path:
        policy = made(folder)
        for path in policy.rglob("*.rego"):
            path.unlink()
        (policy / "deny.rego").write_text(
            "package sealbus.authz\n\n"
            "decision := decide(input)\n\n"
            "batch := [decide(one) | some one in input.batch]\n\n"
            'decide(one) := {"allow": false, "reasons": [one.action.name], "obligations": [], "policy": "none"}\n',
            encoding="utf-8",
        )
        return policy

    monkeypatch.setattr(stage, "_fresh_policy", denying)
    monkeypatch.setattr(stage, "WITHIN", 4.0)  # what is denied at the first hop never comes to the third
    code, document = demo()
    assert code == 1
    found = document["scenes"]
    assert isinstance(found, list)
    allowed = [one["name"] for one in found if one["got"] == "allow"]
    assert allowed == []
