"""What a body raises comes out as itself; what only its tasks raise is a group as ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from sealbus.bus.background import Background, BoundedTasks, batch_from
from sealbus.envelopes.errors import Denied


async def fail(error: Exception) -> None:
    raise error


async def fail_when_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ValueError("a text that is nobody's affair")


async def run(error: Exception, beside: Coroutine[Any, Any, Any]) -> None:
    """Raise `error` in a body that `background` runs along with."""
    async with Background() as group:
        group.create_task(beside)
        await asyncio.sleep(0)
        raise error


async def wait(ended: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        ended.append("ended")


async def test_the_error_of_a_body_is_not_wrapped_and_its_tasks_are_ended() -> None:
    mine, ended = Denied("no"), list[str]()
    with pytest.raises(Denied) as raised:
        await run(mine, wait(ended))
    assert raised.value is mine
    assert ended == ["ended"]
    assert not hasattr(mine, "__notes__")


async def test_what_failed_beside_it_is_noted_by_its_type() -> None:
    with pytest.raises(Denied) as raised:
        await run(Denied("no"), fail_when_cancelled())
    assert raised.value.__notes__ == ["a background task failed too: ValueError"]


async def test_a_task_that_fails_ends_the_body_and_is_raised_in_a_group() -> None:
    async def body() -> None:
        async with Background() as group:
            group.create_task(fail(Denied("no")))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await body()
    assert [type(error) for error in raised.value.exceptions] == [Denied]


async def test_a_cancellation_passes() -> None:
    async def body() -> None:
        async with Background() as group:
            group.create_task(asyncio.Event().wait())
            await asyncio.Event().wait()

    task = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_raised_where_nothing_failed() -> None:
    async with Background() as group:
        done = group.create_task(asyncio.sleep(0))
    assert done.done()


async def test_no_more_run_beside_than_there_is_room_for() -> None:
    leave = asyncio.Event()
    running: list[int] = []

    async def wait(number: int) -> None:
        running.append(number)
        await leave.wait()

    async with Background() as group:
        background = BoundedTasks(group, 2)
        await background.start(wait, 1)
        await background.start(wait, 2)
        third = group.create_task(background.start(wait, 3))
        for _ in range(10):
            await asyncio.sleep(0)
        assert (running, third.done()) == ([1, 2], False)
        leave.set()
        await third
        await background.idle()
        assert running == [1, 2, 3]


async def test_idle_waits_for_what_was_started_at_once_as_well() -> None:
    leave = asyncio.Event()

    async def wait() -> None:
        await leave.wait()

    async with Background() as group:
        background = BoundedTasks(group, 1)
        background.start_at_once(wait())
        idle = group.create_task(background.idle())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not idle.done()
        leave.set()
        await idle


async def test_nothing_is_run_once_the_group_was_left() -> None:
    """As where records are stored after a worker was left, and its deliveries would be settled then."""
    running: list[int] = []

    async def note() -> None:
        running.append(1)

    async with Background() as group:
        background = BoundedTasks(group, 1)
        background.start_at_once(note())
        await background.idle()
    background.start_at_once(note())
    await background.idle()
    assert running == [1]


async def test_a_batch_is_what_waits_up_to_its_bound_and_the_end() -> None:
    queue: asyncio.Queue[int | None] = asyncio.Queue()
    for entry in (1, 2, 3, None, 4):
        queue.put_nowait(entry)
    assert batch_from(await queue.get(), queue, 2) == ([1, 2], False)
    assert batch_from(await queue.get(), queue, 2) == ([3], True)
    assert batch_from(await queue.get(), queue, 2) == ([4], False)
    queue.put_nowait(None)
    assert batch_from(await queue.get(), queue, 2) == ([], True)
