"""`sealbus mcp` started by hand, which is not how it is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sealbus.agents.cli.person.mcp import command
from sealbus.agents.login.kept_login import LoginRequired
from sealbus.envelopes.errors import ConfigurationError


def run(*arguments: str) -> Exception:
    result = CliRunner().invoke(command, arguments, catch_exceptions=True)
    assert isinstance(result.exception, Exception)
    return result.exception


def test_who_names_no_edge_has_to_be_logged_in(tmp_path: Path) -> None:
    file = tmp_path / "sealbus.toml"
    file.write_text(f'[client]\nlogins = "{tmp_path / "logins.json"}"\n')
    error = run("--config", str(file))
    assert isinstance(error, LoginRequired)
    assert "sealbus login" in error.detail


@pytest.mark.parametrize("edge", ["http://edge.example", "edge.example"])
def test_a_token_goes_to_no_place_where_others_read_it(tmp_path: Path, edge: str) -> None:
    file = tmp_path / "sealbus.toml"
    file.write_text("")
    error = run("--config", str(file), "--edge", edge)
    assert isinstance(error, ConfigurationError)
    assert "https" in error.detail


def test_who_starts_it_by_hand_is_told_what_does(tmp_path: Path) -> None:
    file = tmp_path / "sealbus.toml"
    file.write_text("")
    error = run("--config", str(file), "--edge", "https://edge.example")
    assert isinstance(error, ConfigurationError)
    assert "pipe" in error.detail
