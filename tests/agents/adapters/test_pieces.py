"""Words become pieces: nothing is lost, and no piece but the last is small."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import cast

import pytest

from sealbus import Context
from sealbus.agents.adapters.pieces import PIECE, in_pieces


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
async def test_nothing_is_lost_and_only_the_last_is_small(count: int) -> None:
    closed = False

    async def words(text: str, ctx: Context) -> AsyncGenerator[str, None]:
        nonlocal closed
        try:
            for _ in range(count):
                yield text
        finally:
            closed = True

    pieces = [one async for one in in_pieces(words)("x", cast("Context", None))]
    assert "".join(pieces) == "x" * count
    assert all(len(one) == PIECE for one in pieces[:-1])
    assert all(pieces)
    assert closed
