"""Rows from several cells as one list, for commands that take `--as` several times."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import TypeVar

Row = TypeVar("Row")


async def merged(
    sources: Mapping[str, AsyncIterator[Row]], time: Callable[[Row], int], *, newest: bool = False
) -> AsyncGenerator[tuple[str, Row], None]:
    """Yield the rows of all `sources`, each in the order of its `time`, the oldest or the `newest` first, with their names.

    The rows of one source stay in its order: only the heads are compared.
    """
    heads: dict[str, Row] = {}
    waiting = set(sources)
    while True:
        for name in sorted(waiting):
            try:
                heads[name] = await anext(sources[name])
            except StopAsyncIteration:
                continue
        if not heads:
            return
        choose = max if newest else min
        # Sorted, so that of two equal times the same comes first in each run.
        name = choose(sorted(heads), key=lambda name: time(heads[name]))
        yield name, heads.pop(name)
        waiting = {name}
