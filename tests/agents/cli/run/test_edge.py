"""What `sealbus edge` prints without serving."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.settings import SMALLEST

from sealbus.agents.cli.run.edge import command
from sealbus.agents.examples import inventory
from sealbus.agents.sdk.schema import AgentSchema
from sealbus.envelopes.errors import ConfigurationError

EDGE = """[edge]
resource = "https://api.example.org"
actions = ["inventory.read"]
schemas = ["inventory.json"]
[[edge.issuers]]
issuer = "https://idp.example.org"
"""


def test_the_document_is_printed_without_a_bus(tmp_path: Path) -> None:
    (tmp_path / "inventory.json").write_text(AgentSchema.of(inventory.agent).text(), encoding="utf-8")
    file = tmp_path / "sealbus.toml"
    file.write_text(SMALLEST + EDGE)
    printed = CliRunner().invoke(command, ["openapi", "--config", str(file)], catch_exceptions=False)
    assert printed.exit_code == 0
    found = json.loads(printed.output)
    assert [path for path in found["paths"] if "inventory" in path] == ["/v1/calls/inventory/read"]
    file.write_text(SMALLEST + EDGE.replace('schemas = ["inventory.json"]', ""))
    with pytest.raises(ConfigurationError, match=r"edge\.schemas names no files"):
        CliRunner().invoke(command, ["openapi", "--config", str(file)], catch_exceptions=False)
