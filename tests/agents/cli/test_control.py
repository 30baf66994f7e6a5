"""`sealbus control run`: which roles there are, and what is said about those that there are not."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from sealbus.agents.cli.control import ROLES, command


def test_an_unknown_role_is_a_mistake_of_usage() -> None:
    result = CliRunner().invoke(command, ["run", "--roles", "callout,conjurer"])
    assert result.exit_code == 2
    assert "'conjurer' is not one of callout, policy, notary" in result.output


@pytest.mark.parametrize("role", ROLES)
def test_each_role_is_named_by_what_opens_it(role: str) -> None:
    module, _, name = ROLES[role].partition(":")
    assert module.startswith("sealbus.agents.control.")
    assert name.startswith("open_")


def test_help_names_the_roles() -> None:
    run = command.get_command(click.Context(command), "run")
    assert run is not None
    assert "callout,policy,notary" in CliRunner().invoke(command, ["run", "--help"]).output
