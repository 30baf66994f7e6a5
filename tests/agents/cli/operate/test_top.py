"""`sealbus top`: what one look prints; how it follows a running deployment is in tests/integration/test_newcomer.py."""

from __future__ import annotations

import json

import pytest

from sealbus.agents.cli.operate.top import print_rates
from sealbus.bus.inspection.rates import Rate

ROWS = [
    Rate(agent="/agent/shop", action="shop.read", allowed=1.5, denied=0.25, failed=0.0, p50=2.0, p99=9.5),
    Rate(
        agent="/agent/[red]x\u202e", action="shop.read.reply", allowed=1.0, denied=0.0, failed=0.0, p50=None, p99=None
    ),
]


def test_a_look_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates(ROWS, as_json=False)
    said = capsys.readouterr().out
    assert "2 actions" in said
    line = next(one for one in said.splitlines() if "shop.read " in one)
    assert [cell for cell in line.split() if cell.replace(".", "").isdecimal()] == ["1.5", "0.2", "0.0", "2.0", "9.5"]
    assert "[red]x" in said
    assert "\u202e" not in said


def test_a_look_is_one_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_rates(ROWS, as_json=True)
    [line] = capsys.readouterr().out.splitlines()
    assert [one["p50"] for one in json.loads(line)] == [2.0, None]
