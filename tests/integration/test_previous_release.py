"""The release before and this one side by side: one set of NATS permissions and one policy for both, whichever made them.

`support/previous_release.py` builds the release before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.kept_log import written
from support.log_world import make_world
from support.previous_release import build_previous_release
from vectors.issuing import INVENTORY

from sealbus.envelopes.records.operation import ChangeRecord, ConnectionsRecord

WITHIN = 300.0
"""Seconds for a command, on a busy machine."""
TASKS = 8

APP = """
import sealbus
from pathlib import Path
from pydantic import BaseModel
from sealbus import Agent, Context, Resource

VERSION = Path("{place}") in Path(sealbus.__file__).parents
agent = Agent("inventory")

class Update(BaseModel):
    item_id: str
    quantity: int

async def item(body: Update) -> Resource:
    return Resource("item", body.item_id, owner="alice", customer="acme", region="always")

@agent.task("update", resource=item, facts=["quantity"])
async def update(body: Update, ctx: Context) -> str:
    return "former" if VERSION else "present"

@agent.call("read", resource=item)
async def read(body: Update, ctx: Context) -> str:
    return "former" if VERSION else "present"
"""

pytestmark = [pytest.mark.nats, pytest.mark.slow]


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_previous_release(tmp_path_factory.mktemp("former"))


class Side:
    """Runs the commands of one release in `folder`."""

    def __init__(self, folder: Path, path: Path | None) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **({"PYTHONPATH": str(path)} if path is not None else {}),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run one command to its end and return what it printed."""
        return self.told(*arguments, code=code)[0]

    def told(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run one command to its end and return what it printed, and what it told the user beside that."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "sealbus", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout, done.stderr

    @contextmanager
    def running(self, *arguments: str, ready: str) -> Iterator[None]:
        """Run a command from its line that holds `ready`; it must stop cleanly."""
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sealbus", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            lines = []
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if ready in line:
                    break
            else:
                raise AssertionError("".join(lines))
            yield
        finally:
            process.terminate()
            rest, _ = process.communicate(timeout=WITHIN)
        assert process.returncode == 0, "".join(lines) + rest


@pytest.mark.parametrize("ground", ["former", "present"])
def test_both_releases_work_side_by_side_under_the_permissions_of_either(
    former: Path, tmp_path: Path, ground: str
) -> None:
    """Tasks of both are handled by both, and each reads what the other has recorded."""
    (tmp_path / "app.py").write_text(APP.replace("{place}", str(former)))
    sides = {"former": Side(tmp_path, former), "present": Side(tmp_path, None)}
    with ExitStack() as stack:
        dev = ("dev", "--port", "0", "--edge-port", "0", "--console-port", "0")
        stack.enter_context(sides[ground].running(*dev, ready="ready:"))
        for side in sides.values():
            stack.enter_context(side.running("worker", "run", "app.py:agent", ready="runs as"))
        body = json.dumps({"item_id": "42", "quantity": 3})
        handled = {
            (name, json.loads(side.run("pub", "task.inventory.update", body, "--user", "alice", "--wait")))
            for name, side in sides.items()
            for _ in range(TASKS)
        }
        assert {by for _, by in handled} == {"former", "present"}
        for side in sides.values():
            assert json.loads(side.run("call", "inventory.read", body, "--user", "alice")) in ("former", "present")
            side.run("pub", "task.inventory.update", body, "--user", "carol", "--wait", code=3)
            shown = side.run("audit", "replay", "--json")
            allowed = [json.loads(line) for line in shown.splitlines()]
            assert (
                len([one for one in allowed if one.get("action") == "inventory.update" and one.get("allow")])
                == 2 * TASKS
            )
            assert len(side.run("task", "ls", "--json").splitlines()) >= 2 * TASKS


def test_the_release_before_verifies_a_log_with_records_that_it_does_not_know(former: Path, tmp_path: Path) -> None:
    """It proves who sealed them, counts them, and finds what was altered in them."""
    world, digest = make_world(3, 20), bytes(range(32))
    known: list[ChangeRecord | ConnectionsRecord] = [
        ChangeRecord(action="push", part="platform", serial=1, digest=digest, reason="a rule for refunds"),
        ConnectionsRecord(minute=0, instance=bytes(16), counts={"denied": 3}),
    ]
    world.put(world.audit(INVENTORY, [], [record.encode() for record in known]))
    export, root = written(world.files(), tmp_path / "export"), tmp_path / "root.json"
    root.write_text(json.dumps(world.root()))
    side, command = Side(tmp_path, former), ("audit", "verify", str(export), "--root", str(root))
    printed, told = side.told(*command)
    assert printed == "verified\n"
    assert "2 records are of kinds that a later version writes" in told
    [messages] = (export / "messages").iterdir()
    messages.write_bytes(messages.read_bytes().replace(b"refunds", b"refinds"))
    assert "NOT VERIFIED" in side.run(*command, code=4)
