"""Deadlines on one timer: what runs over ends, what does not leaves no trace, and others may still cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sealbus.bus.deadline import Deadline

LONG = 3_600.0


def counting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when timers are set from now on."""
    loop, times = asyncio.get_running_loop(), []
    set_at = loop.call_at

    def call_at(when: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
        times.append(when)
        return set_at(when, callback, *args, **options)

    monkeypatch.setattr(loop, "call_at", call_at)
    return times


async def over(deadline: Deadline, seconds: float = 0.001) -> None:
    with pytest.raises(TimeoutError), deadline.within(seconds):
        await asyncio.Event().wait()
    assert deadline.expired


async def test_what_runs_over_ends_and_the_task_goes_on() -> None:
    deadline = Deadline()
    await over(deadline)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with deadline.within(LONG):
        await asyncio.sleep(0)
    assert not deadline.expired
    deadline.close()


async def test_many_blocks_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    times, deadline = counting(monkeypatch), Deadline()
    for _ in range(100):
        with deadline.within(LONG):
            pass
    assert len(times) == 1
    deadline.close()


async def test_a_timer_that_rings_too_soon_is_set_anew() -> None:
    deadline = Deadline()
    with deadline.within(0.001):
        pass
    # The timer of the block before rings in the middle of this one, which has its own time all the same.
    await over(deadline, 0.02)


async def test_a_timer_that_rings_between_blocks_ends_nothing() -> None:
    deadline = Deadline()
    with deadline.within(0.0):
        pass
    ringing = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.001, ringing.set_result, None)
    await ringing
    await over(deadline)


async def test_a_sooner_deadline_is_not_held_up_by_a_later_timer() -> None:
    deadline = Deadline()
    with deadline.within(LONG):
        pass
    await over(deadline)


async def test_who_else_cancels_is_not_taken_for_the_deadline() -> None:
    async def run() -> None:
        deadline = Deadline()
        try:
            with deadline.within(LONG):
                await asyncio.Event().wait()
        finally:
            assert not deadline.expired
            deadline.close()

    running = asyncio.create_task(run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancellation_that_comes_with_the_deadline_is_not_lost() -> None:
    async def run() -> None:
        task, deadline = asyncio.current_task(), Deadline()
        assert task is not None
        with deadline.within(0.0):
            # Both before the task has its next turn.
            deadline._ring()
            task.cancel()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await running
    assert running.cancelled()


async def test_an_error_of_the_block_stays_one() -> None:
    deadline = Deadline()
    with pytest.raises(ValueError, match="wrong"), deadline.within(LONG):
        raise ValueError("wrong")
    deadline.close()


async def test_closed_it_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = Deadline()
    with deadline.within(LONG):
        pass
    timer = deadline._timer
    assert timer is not None
    deadline.close()
    assert timer.cancelled()
    deadline.close()


async def test_it_is_made_in_its_task() -> None:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Deadline] = loop.create_future()

    def make() -> None:
        try:
            made.set_result(Deadline())
        except RuntimeError as error:
            made.set_exception(error)

    loop.call_soon(make)
    with pytest.raises(RuntimeError):
        await made
