"""The BODY of `sealbus pub` and `sealbus call`."""

from __future__ import annotations

import io
import sys

import click
import pytest
from click.testing import CliRunner

from sealbus.agents.cli.bus.body_argument import json_body
from sealbus.agents.cli.bus.call import command as call
from sealbus.agents.cli.bus.pub import command as pub


@pytest.mark.parametrize("text", ['{"a": [1, "é"]}', "null", "3", '""'])
def test_json_goes_as_it_was_typed(text: str) -> None:
    assert json_body(text) == text.encode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value at line 1, column 1"),
        ("item", "Expecting value"),
        ("{'a': 1}", "property name"),
        ('{"a": 1} x', "Extra data at line 1, column 10"),
        ("NaN", "NaN is not a JSON value"),
        ("[" * 200_000, "too deep"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_what_is_not_json_is_told_before_anything_is_sent(text: str, says: str) -> None:
    with pytest.raises(click.UsageError, match=says) as refused:
        json_body(text)
    assert "item" not in refused.value.message


def test_standard_input_is_read_and_judged_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, good in ((b"[1]", True), (b"\xff", False)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        if good:
            assert json_body("-") == given
        else:
            with pytest.raises(click.UsageError, match="not UTF-8"):
                json_body("-")


@pytest.mark.parametrize(("command", "where"), [(pub, "task.inventory.update"), (call, "inventory.read")])
def test_it_is_a_mistake_of_use(command: click.Command, where: str) -> None:
    result = CliRunner().invoke(command, [where, "item 42"])
    assert result.exit_code == 2
    assert "BODY is not JSON" in result.output
