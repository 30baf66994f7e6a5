"""What a worker's settings keep out of the log, and what they put in, on a real NATS."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dev_process import DevFolder, running_dev

from sealbus.policies.bundle.files import STARTER

pytestmark = [pytest.mark.nats]

APP = Path(__file__).parent.parent.parent / "docs" / "tour" / "app.py"
BODY = json.dumps({"item_id": "42", "quantity": 3})
SETTINGS = """
[audit]
bodies = ["task.inventory.*"]
[audit.redact]
"task.inventory.>" = ["/action/properties/quantity", "/resource/properties/nothing"]
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevFolder]:
    path = tmp_path_factory.mktemp("privacy")
    (path / "app.py").write_bytes(APP.read_bytes())
    with running_dev(path, "app.py", settings=SETTINGS) as folder:
        done = folder.run("pub", "task.inventory.update", BODY, "--user", "alice", "--wait", "30")
        assert done.returncode == 0, done.stderr
        denied = folder.run("pub", "task.inventory.update", BODY.replace("3", "300"), "--user", "alice", "--wait", "30")
        assert denied.returncode == 3, denied.stderr
        assert "over_limit" in denied.stderr
        yield folder


def test_the_record_says_what_is_left_out_and_holds_the_body_that_was_signed(dev: DevFolder) -> None:
    records = [one for one in dev.json("audit", "replay") if one.get("action") == "inventory.update" and "input" in one]
    assert [(one["allow"], one["redacted"]) for one in records] == [
        (True, ["/action/properties/quantity"]),
        (False, ["/action/properties/quantity"]),
    ]
    assert [one["input"]["action"]["properties"] for one in records] == [{"quantity": None}] * 2
    assert [json.loads(b64decode(one["body"])) for one in records] == [
        {"item_id": "42", "quantity": 3},
        {"item_id": "42", "quantity": 300},
    ]
    others = [one for one in dev.json("audit", "replay") if one.get("action") == "inventory.update.reply"]
    assert [("body" in one, one["redacted"]) for one in others] == [(False, [])]


def test_what_was_redacted_is_not_decided_again(dev: DevFolder) -> None:
    (found,) = dev.json("policy", "backtest", "--policy", STARTER)
    assert found["not_replayable"] == {"redacted": 2}
    assert found["same"] == found["compared"] == found["read"] - 2


def test_a_debugger_has_the_whole_message(dev: DevFolder) -> None:
    allowed, denied = dev.json("audit", "replay", "--into", f"{APP}:agent")
    assert (allowed["result"], allowed["resource"], denied["result"]) == ("done", "item:42", "denied")
