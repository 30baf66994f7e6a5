"""Ids and hashes on the command line."""

from __future__ import annotations

import click
import pytest

from sealbus.agents.cli.options import HexDigits


@pytest.mark.parametrize(("text", "found"), [("0f" * 16, b"\x0f" * 16), ("AB" * 32, b"\xab" * 32)])
def test_hex_digits_of_a_length_that_is_asked_for(text: str, found: bytes) -> None:
    assert HexDigits(32, 64).convert(text, None, None) == found


def test_bytes_stay() -> None:
    assert HexDigits(32).convert(b"as it is", None, None) == b"as it is"


@pytest.mark.parametrize("text", ["", "0f" * 15, "0f" * 17, "0g" * 16, "\x1b[2J", "0f" * 15 + " f", "\u0661" * 32])
def test_anything_else_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not 32 or 64 hex digits") as error:
        HexDigits(32, 64).convert(text, None, None)
    assert "\x1b" not in error.value.message
