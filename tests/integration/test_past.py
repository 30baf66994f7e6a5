"""The log asked again, on a real NATS: another policy, each decision's own policy, and a handler under a debugger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dev_process import DevFolder, running_dev
from support.opa import require_opa
from support.policy_inputs import closed_policy

from sealbus.policies.bundle.files import STARTER, build_bundle

pytestmark = [pytest.mark.nats]

APP = Path(__file__).parent.parent.parent / "docs" / "tour" / "app.py"
DEBUGGED = """
import sys
from pydantic import BaseModel
from sealbus import Agent, Context

agent = Agent("inventory")


class Update(BaseModel):
    item_id: str
    quantity: int


@agent.task("update")
async def update(body: Update, ctx: Context) -> int:
    print(f"replay {ctx.replay}, {ctx.user.sub} wants {body.quantity}", file=sys.stderr)
    await ctx.emit("updated", body)
    return body.quantity * 2
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevFolder]:
    """Return a folder in which alice was allowed an update, and carol was not."""
    path = tmp_path_factory.mktemp("past")
    (path / "app.py").write_bytes(APP.read_bytes())
    with running_dev(path, "app.py") as folder:
        for user, code in (("alice", 0), ("carol", 3)):
            body = json.dumps({"item_id": "42", "quantity": 3})
            done = folder.run("pub", "task.inventory.update", body, "--user", user, "--wait", "30")
            assert done.returncode == code, done.stderr
        yield folder


def test_the_policy_in_force_changes_nothing(dev: DevFolder) -> None:
    (found,) = dev.json("policy", "backtest", "--policy", STARTER, "--fail-on", "changed=0")
    assert found["findings"] == 0
    assert found["read"] == found["compared"] == found["same"] >= 2
    assert found["revision"] == build_bundle(STARTER).revision


@pytest.mark.parametrize("opa", [False, pytest.param(True, marks=pytest.mark.opa)])
def test_a_candidate_shows_what_it_would_change(dev: DevFolder, tmp_path: Path, opa: bool) -> None:
    candidate = closed_policy(tmp_path / "closed")
    engine: list[str | Path] = ["--engine", "sidecar", "--opa", require_opa()] if opa else []
    limits = ("--fail-on", "deny-to-allow=0", "--fail-on", "allow-to-deny=0")
    (found,) = dev.json("policy", "backtest", "--policy", candidate, *engine, *limits, code=1)
    assert found["engine"] == ("sidecar" if opa else "embedded")
    assert (found["changes"]["deny-to-allow"], found["unanswered"], found["findings"]) == (0, 0, 0)
    groups = found["groups"]["allow-to-deny"]
    # The task, and its result, which its requester's own policy was asked about.
    assert groups["user"] == [{"value": "alice", "count": 2}]
    assert {one["value"]: one["count"] for one in groups["resource type"]} == {"item": 1, "none": 1}
    assert [line.split(":")[0] for line in found["failed"]] == ["allow-to-deny"]
    shown = dev.run("policy", "backtest", "--policy", candidate, *engine)
    assert shown.returncode == 0
    assert shown.stdout.index("deny-to-allow") < shown.stdout.index("allow-to-deny")


def test_every_decision_follows_from_its_own_policy(dev: DevFolder, tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "in-force.tar.gz").write_bytes(build_bundle(STARTER).raw)
    (found,) = dev.json("policy", "backtest", "--bundles", bundles, "--fail-on", "not-replayable=0")
    assert found["same"] == found["read"] >= 2
    other = tmp_path / "other"
    shutil.copytree(closed_policy(tmp_path / "closed"), other)
    revision = build_bundle(STARTER).revision
    (bundles / "in-force.tar.gz").write_bytes(build_bundle(other, revision=revision).raw)
    (found,) = dev.json("policy", "backtest", "--bundles", bundles, code=4)
    assert found["changes"]["allow-to-deny"] >= 1


def test_a_recorded_message_goes_into_a_handler_and_nothing_comes_out(dev: DevFolder, tmp_path: Path) -> None:
    before = dev.json("audit", "replay")
    (tmp_path / "debugged.py").write_text(DEBUGGED)
    target = f"{tmp_path / 'debugged.py'}:agent"
    alice, carol = dev.json("audit", "replay", "--into", target)
    assert (alice["result"], alice["outcome"], alice["answer"]) == ("done", "done", "6")
    assert [one["subject"] for one in alice["would_send"]] == ["event.inventory.updated"]
    assert (carol["result"], carol["recorded"]["reasons"]) == ("denied", ["not_owner"])
    shown = dev.run("audit", "replay", "--into", target, "--user", "alice")
    assert shown.returncode == 0
    assert "replay True, alice wants 3" in shown.stderr
    assert "would send event event.inventory.updated" in shown.stdout
    assert dev.json("audit", "replay") == before
