"""Rows of several cells in one list."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from sealbus.agents.cli.merging import merged


async def rows(*times: int) -> AsyncGenerator[int, None]:
    for time in times:
        yield time


@pytest.mark.parametrize(
    ("newest", "expected"),
    [
        (False, [("b", 1), ("a", 2), ("a", 4), ("b", 4), ("b", 6)]),
        (True, [("a", 4), ("a", 2), ("b", 1), ("b", 4), ("b", 6)]),
    ],
)
async def test_rows_are_in_the_order_of_their_times(newest: bool, expected: list[tuple[str, int]]) -> None:
    sources = {"a": rows(4, 2) if newest else rows(2, 4), "b": rows(1, 4, 6), "c": rows()}
    assert [row async for row in merged(sources, lambda time: time, newest=newest)] == expected


async def test_one_source_is_passed_on_as_it_comes() -> None:
    read = list[int]()

    async def source() -> AsyncGenerator[int, None]:
        for time in (3, 1, 2):
            read.append(time)
            yield time

    found = merged({"a": source()}, lambda time: time)
    assert await anext(found) == ("a", 3)
    assert read == [3]
    assert [row async for row in found] == [("a", 1), ("a", 2)]
