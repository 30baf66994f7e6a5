"""Deadlines on one timer: what runs over ends, what does not leaves no trace, and others may still cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from sealbus.bus.routing.timers import Deadline, Deadlines, take_back_cancellations

LONG = 3_600.0


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """The timers that deadlines set."""
    found: list[asyncio.TimerHandle] = []
    set_at = asyncio.BaseEventLoop.call_at

    def call_at(
        loop: asyncio.BaseEventLoop, when: float, callback: Callable[..., object], *args: Any, **options: Any
    ) -> asyncio.TimerHandle:
        handle = set_at(loop, when, callback, *args, **options)
        if isinstance(getattr(callback, "__self__", None), Deadlines):
            found.append(handle)
        return handle

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_at", call_at)
    return found


async def over(deadlines: Deadlines, seconds: float = 0.001) -> None:
    deadline = deadlines.within(seconds)
    with pytest.raises(TimeoutError), deadline:
        await asyncio.Event().wait()
    assert deadline.expired
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_runs_over_ends_and_the_task_goes_on() -> None:
    deadlines = Deadlines()
    await over(deadlines)
    with deadlines.within(LONG) as deadline:
        await asyncio.sleep(0)
    assert not deadline.expired
    deadlines.close()


async def test_many_blocks_share_a_timer(timers: list[asyncio.TimerHandle]) -> None:
    deadlines = Deadlines()

    async def wait() -> None:
        for _ in range(10):
            with deadlines.within(LONG):
                await asyncio.sleep(0)

    await asyncio.gather(*[wait() for _ in range(10)])
    assert len(timers) == 1
    deadlines.close()


async def test_each_task_has_its_own_time() -> None:
    deadlines = Deadlines()
    ended: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        await over(deadlines, seconds)
        ended.append(number)

    # The later one is there first: its timer must not hold up the sooner one.
    await asyncio.gather(wait(2, 0.05), wait(1, 0.001), wait(1, 0.002))
    assert ended == [1, 1, 2]


async def test_a_timer_that_rings_for_nobody_is_not_set_again(timers: list[asyncio.TimerHandle]) -> None:
    deadlines = Deadlines()
    with deadlines.within(0.0):
        pass
    rung = asyncio.Event()
    asyncio.get_running_loop().call_later(0.001, rung.set)
    await rung.wait()
    assert len(timers) == 1
    await over(deadlines)
    assert len(timers) == 2


async def test_a_timer_that_rings_too_soon_is_set_anew(timers: list[asyncio.TimerHandle]) -> None:
    deadlines = Deadlines()
    with deadlines.within(0.001):
        pass
    # The timer of the block before rings in the middle of this one, which has its own time all the same.
    with deadlines.within(LONG) as deadline:
        while len(timers) < 2:  # noqa: ASYNC110  there is no event for it; the test's own timeout ends a wait for ever
            await asyncio.sleep(0.001)
    assert not deadline.expired
    assert timers[1].when() - timers[0].when() > LONG / 2
    deadlines.close()
    # And at the end of that time it ends.
    again = Deadlines()
    with again.within(0.001):
        pass
    await over(again, 0.02)


async def test_who_else_cancels_is_not_taken_for_the_deadline() -> None:
    deadlines = Deadlines()
    entered: list[Deadline] = []

    async def run() -> None:
        with deadlines.within(LONG) as deadline:
            entered.append(deadline)
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not entered[0].expired
    deadlines.close()


async def test_a_cancellation_that_comes_with_the_deadline_is_not_lost() -> None:
    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        with Deadlines().within(LONG) as deadline:
            # Both before the task has its next turn.
            deadline.ring()
            task.cancel()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_alarm_rings_once_if_it_is_not_left(timers: list[asyncio.TimerHandle]) -> None:
    deadlines, rung = Deadlines(), asyncio.Event()
    with deadlines.after(LONG, lambda: pytest.fail("left in time")), deadlines.after(0.001, rung.set):
        await rung.wait()
        assert [timer.when() for timer in timers[:1]] == [timers[-1].when()]  # back at the later one
    deadlines.close()


async def test_a_callback_that_raises_holds_no_other_up() -> None:
    loop, deadlines, told = asyncio.get_running_loop(), Deadlines(), asyncio.Event()
    loop.set_exception_handler(lambda _, context: told.set())

    def fail() -> None:
        raise ValueError

    try:
        with deadlines.after(0.001, fail), deadlines.after(0.001, fail):
            await over(deadlines, 0.002)
        assert told.is_set()
    finally:
        loop.set_exception_handler(None)


async def test_an_error_of_the_block_stays_one() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="wrong"), deadlines.within(LONG):
        raise ValueError("wrong")
    deadlines.close()


async def test_closed_it_leaves_no_timer(timers: list[asyncio.TimerHandle]) -> None:
    deadlines = Deadlines()
    with deadlines.within(LONG):
        pass
    deadlines.close()
    assert timers[0].cancelled()
    deadlines.close()


async def test_a_deadline_is_for_a_task() -> None:
    loop = asyncio.get_running_loop()
    made: asyncio.Future[Deadline] = loop.create_future()

    def make() -> None:
        try:
            made.set_result(Deadlines().within(LONG))
        except RuntimeError as error:
            made.set_exception(error)

    loop.call_soon(make)
    with pytest.raises(RuntimeError):
        await made


@pytest.mark.parametrize("raised", [True, False])
async def test_a_request_that_was_left_behind_is_taken_back(raised: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    await take_back_cancellations(0)
    for _ in range(2):
        task.cancel()
    if raised:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(0)
    await take_back_cancellations(1)
    assert task.cancelling() == 1
    await take_back_cancellations(0)
    assert task.cancelling() == 0
    await asyncio.sleep(0)
