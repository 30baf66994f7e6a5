"""`sealbus refused`: what it prints; tests/docs/test_runbooks.py runs it beside a deployment."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.bus import refused
from sealbus.bus.inspection.refused import RefusedMessages
from sealbus.envelopes.limits import SECOND

FOUND = [
    RefusedMessages(
        by="inventory", code="bad_signature", subject="task.inventory.update", minute=1_795_538_520 * SECOND, count=7, step=8,
        detail="[red]\u202edetail", claimed="spiffe://example.org/agent/shop-web",
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(*_: object) -> list[RefusedMessages]:
        return FOUND

    monkeypatch.setattr(refused, "read_counts", found)


def test_a_row_each() -> None:
    done = CliRunner().invoke(refused.command)
    assert done.exit_code == 0, done.output
    row = next(line for line in done.stdout.splitlines() if "bad_signature" in line)
    assert row.replace("│", "").split()[:6] == [
        "7", "bad_signature", "task.inventory.update", "inventory", "spiffe://example.org/agent/shop-web",
        "2026-11-24T16:42:00.000Z",
    ]  # fmt: skip
    assert "[red]" in row
    assert "\u202e" not in row


def test_an_object_each() -> None:
    done = CliRunner().invoke(refused.command, ["--json", "--newer", "10m"])
    [line] = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["count"], told["step"], told["minute"]) == (7, 8, "2026-11-24T16:42:00.000Z")
