"""How agents are printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.bus.agent import as_document, as_lines, command
from sealbus.agents.examples import inventory
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.bus.inspection.agents import AgentSeen, Queue
from sealbus.envelopes.errors import ConfigurationError

SHOP = AgentSeen(
    token="shop",
    processes=2,
    tasks=Queue(waiting=7, in_hand=2, redelivered=1, active=1_795_538_577_975_307),
    listens=("event.mill.ready",),
    actions=("shop.ask", "shop.buy"),
)


def test_lines() -> None:
    assert as_lines(SHOP) == [
        (
            "shop                 ready    2 processes   "
            "tasks 7 waiting, 2 in hand, 1 of these again, last delivered 2026-11-24T16:42:57.975Z"
        ),
        "  actions shop.ask, shop.buy",
        "  listens event.mill.ready",
    ]
    assert as_lines(AgentSeen(token="mill", processes=1, events=Queue())) == [
        "mill                 ready    1 process     events 0 waiting, 0 in hand"
    ]
    assert as_lines(AgentSeen(token="none", processes=0)) == ["none                 unknown  0 processes"]


def test_an_object() -> None:
    assert json.loads(json.dumps(as_document(SHOP))) == {
        "agent": "shop",
        "state": "ready",
        "processes": 2,
        "tasks": {
            "waiting": 7,
            "in_hand": 2,
            "redelivered": 1,
            "last_delivered": "2026-11-24T16:42:57.975Z",
            "full": False,
        },
        "events": None,
        "listens": ["event.mill.ready"],
        "actions": ["shop.ask", "shop.buy"],
    }


def test_the_schemas_of_an_agent_are_printed_or_written(tmp_path: Path) -> None:
    target, file = "sealbus.agents.examples.inventory:agent", tmp_path / "inventory.json"
    printed = CliRunner().invoke(command, ["schema", target], catch_exceptions=False)
    assert printed.exit_code == 0
    assert AgentSchema.parse(printed.output.encode()) == AgentSchema.of(inventory.agent)
    written = CliRunner().invoke(command, ["schema", target, "-o", str(file)], catch_exceptions=False)
    assert (written.exit_code, written.output, file.read_text()) == (0, "", printed.output)
    with pytest.raises(ConfigurationError, match=r"No such file or directory"):
        CliRunner().invoke(command, ["schema", target, "-o", str(tmp_path / "none" / "x")], catch_exceptions=False)
    with pytest.raises(ConfigurationError, match="give MODULE:AGENT"):
        CliRunner().invoke(command, ["schema", "inventory"], catch_exceptions=False)


def test_help_says_what_is_not_known() -> None:
    assert "Not known here: which verbs" in " ".join(CliRunner().invoke(command, ["ls", "--help"]).output.split())
