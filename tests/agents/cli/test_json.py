"""`--json` is there wherever something is reported; a command without it prints a document, which is JSON by itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from sealbus.agents.cli.main import root

DOCUMENTS = {"agent schema", "audit root", "edge openapi", "mcp", "policy opa-config"}


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


@pytest.mark.parametrize(("name", "command"), [pytest.param(*one, id=one[0]) for one in commands(root)])
def test_what_is_reported_can_be_read_by_a_program(name: str, command: click.Command) -> None:
    says = any("--json" in one.opts for one in command.params)
    assert says is (name not in DOCUMENTS)
