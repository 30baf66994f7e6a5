"""The turns of an event loop, noted once for all who watch."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.lab import until

from sealbus.bus import loop_turns
from sealbus.bus.loop_turns import LoopTurns


async def test_the_next_watcher_goes_on_when_one_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_turns, "STILL_WITHIN", 0.2)
    monkeypatch.setattr(loop_turns, "TURN", 0.01)
    turns = LoopTurns()
    first, second = (asyncio.create_task(turns.watch()) for _ in range(2))
    await until(lambda: turns.turned > 0.0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    seen = turns.turned
    await until(lambda: turns.turned > seen)
    time.sleep(0.3)  # noqa: ASYNC251  the loop stands still
    assert turns.stood_still
    await until(lambda: not turns.stood_still)
    # Nobody watches: nothing is known of the loop, and nothing waits for it.
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    time.sleep(0.3)  # noqa: ASYNC251  the loop stands still
    assert not turns.stood_still
