"""What is entered with `async with` runs from its start to its end, once, and may be left without a start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from sealbus.policies.entered import Entered


class Recorder(Entered):
    """Records when its context is entered and left."""

    def __init__(self, *, fails: bool = False) -> None:
        self.events: list[str] = []
        self._fails = fails

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None, None]:
        if self._fails:
            raise RuntimeError("cannot start")
        async with asyncio.TaskGroup() as group:
            task = group.create_task(asyncio.Event().wait())
            self.events.append("started")
            try:
                yield
                self.events.append("ended")
            except BaseException as error:
                self.events.append(f"saw {type(error).__name__}")
                raise
            finally:
                task.cancel()


async def test_it_runs_between_start_and_end() -> None:
    recorder = Recorder()
    async with recorder as entered:
        assert entered is recorder
        assert recorder.events == ["started"]
    assert recorder.events == ["started", "ended"]


async def test_an_exception_of_the_block_is_raised_as_it_is_and_does_not_reach_the_context() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="in the block"):
        async with recorder:
            raise ValueError("in the block")
    assert recorder.events == ["started", "ended"]


class Counter(Entered):
    """Counts how often its context is left. The context, unlike a generator, can be left twice."""

    class Context(AbstractAsyncContextManager[None]):
        def __init__(self, counter: Counter) -> None:
            self._counter = counter

        async def __aexit__(self, *_: object) -> None:
            self._counter.left += 1

    def __init__(self) -> None:
        self.left = 0

    def _run(self) -> AbstractAsyncContextManager[None]:
        return self.Context(self)


async def test_leaving_without_a_start_or_twice_changes_nothing() -> None:
    counter = Counter()
    await counter.__aexit__(None, None, None)
    assert counter.left == 0
    async with counter:
        pass
    await counter.__aexit__(None, None, None)
    assert counter.left == 1


async def test_a_start_that_fails_leaves_nothing_to_end() -> None:
    recorder = Recorder(fails=True)
    with pytest.raises(RuntimeError, match="cannot start"):
        async with recorder:
            raise AssertionError("not reached")
    await recorder.__aexit__(None, None, None)
    assert recorder.events == []
