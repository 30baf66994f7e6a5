"""Times on the command line."""

from __future__ import annotations

import time

import click
import pytest

from sealbus.agents.cli.options import Moment
from sealbus.envelopes.limits import SECOND


@pytest.mark.parametrize(
    "text", ["2026-11-24T14:00:00Z", "2026-11-24T15:00:00+01:00", "2026-11-24T14:00:00", "2026-11-24 14:00"]
)
def test_a_moment(text: str) -> None:
    assert Moment().convert(text, None, None) == 1_795_528_800 * SECOND


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("10m", 600), ("2h", 7_200), ("1d", 86_400)])
def test_how_long_ago(text: str, seconds: int) -> None:
    before = int(time.time())
    found = Moment().convert(text, None, None)
    assert before <= found // SECOND + seconds <= int(time.time())


def test_microseconds_stay() -> None:
    assert Moment().convert(17, None, None) == 17


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10w", "-1m", "2026-13-01T00:00:00Z"])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match="RFC 3339"):
        Moment().convert(text, None, None)
