"""Cancellation of one attempt: at once, when a shield is left, once, and never after the attempt."""

from __future__ import annotations

import asyncio

import pytest

from sealbus.bus.routing.cancellation import Canceled, Cancellation
from sealbus.bus.routing.timers import Deadlines
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.trust.spiffe_id import SpiffeId

BY = Canceled(SpiffeId("spiffe://example.org/agent/shop"), "enough")
LONG = 3_600.0


class Attempt:
    """One attempt whose handler does `within` until it is cancelled; `ended` is what it ended with."""

    def __init__(self) -> None:
        self.cancellation = Cancellation()
        self.deadlines = Deadlines()
        self.steps: list[str] = []

    async def run(self, *, shield: bool = False, seconds: float = LONG) -> str:
        deadline = self.deadlines.within(seconds)
        self.cancellation.begin(deadline)
        try:
            with deadline:
                if shield:
                    await self.shielded()
                else:
                    await self.step("open")
                await self.step("after")
        except TimeoutError:
            return "cancelled"
        finally:
            self.cancellation.end()
        return "done"

    async def shielded(self) -> None:
        entered = self.cancellation.enter_shield()
        try:
            await self.step("shielded")
        finally:
            self.cancellation.leave_shield(entered)

    async def step(self, name: str) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.steps.append(name)


async def stopped(attempt: Attempt, running: asyncio.Task[str]) -> str:
    await asyncio.sleep(0)
    attempt.cancellation.request(BY)
    found = await running
    task = asyncio.current_task()
    assert task is not None
    assert running.cancelling() == 0
    attempt.deadlines.close()
    return found


async def test_a_handler_is_cancelled_at_once() -> None:
    attempt = Attempt()
    assert await stopped(attempt, asyncio.create_task(attempt.run())) == "cancelled"
    assert attempt.steps == []


async def test_a_shield_is_finished_first() -> None:
    attempt = Attempt()
    assert await stopped(attempt, asyncio.create_task(attempt.run(shield=True))) == "cancelled"
    assert attempt.steps == ["shielded"]


async def test_a_shield_within_a_shield_holds_it_back_too() -> None:
    cancellation, deadlines = Cancellation(), Deadlines()
    steps: list[bool] = []

    async def handler() -> None:
        deadline = deadlines.within(LONG)
        cancellation.begin(deadline)
        with deadline:
            outer = cancellation.enter_shield()
            inner = cancellation.enter_shield()
            cancellation.request(BY)
            cancellation.leave_shield(inner)
            await asyncio.sleep(0)
            steps.append(cancellation.shielded)
            cancellation.check()
            cancellation.leave_shield(outer)
            steps.append(cancellation.shielded)
            await asyncio.sleep(0)
            steps.append(True)

    with pytest.raises(TimeoutError):
        await handler()
    assert steps == [True, False]
    deadlines.close()


async def test_what_returns_right_after_a_shield_is_done() -> None:
    cancellation, deadlines = Cancellation(), Deadlines()

    async def handler() -> str:
        deadline = deadlines.within(LONG)
        cancellation.begin(deadline)
        try:
            with deadline:
                entered = cancellation.enter_shield()
                cancellation.request(BY)
                await asyncio.sleep(0)
                cancellation.leave_shield(entered)
                return "done"
        finally:
            cancellation.end()

    running = asyncio.create_task(handler())
    assert await running == "done"
    await asyncio.sleep(0)
    assert running.cancelling() == 0
    deadlines.close()


async def test_a_task_beside_a_shield_is_not_in_it() -> None:
    cancellation = Cancellation()
    inside, leave = asyncio.Event(), asyncio.Event()

    async def shielded() -> None:
        entered = cancellation.enter_shield()
        inside.set()
        await leave.wait()
        cancellation.check()
        assert await asyncio.create_task(begun_in_it())
        cancellation.leave_shield(entered)

    async def begun_in_it() -> bool:
        cancellation.check()
        return cancellation.shielded

    running = asyncio.create_task(shielded())
    await inside.wait()
    cancellation.request(BY)
    assert not cancellation.shielded
    with pytest.raises(HandlingError):
        cancellation.check()
    leave.set()
    await running


@pytest.mark.parametrize("caught", [False, True])
async def test_a_shield_that_failed_says_why(caught: bool) -> None:
    """A handler that goes on after the failure is cancelled at its next wait, and nothing outside of it ever is."""
    cancellation, deadlines = Cancellation(), Deadlines()
    went_on: list[bool] = []

    async def failing() -> None:
        entered = cancellation.enter_shield()
        cancellation.request(BY)
        try:
            raise ZeroDivisionError
        finally:
            cancellation.leave_shield(entered)

    async def handler() -> None:
        deadline = deadlines.within(LONG)
        cancellation.begin(deadline)
        try:
            with deadline:
                try:
                    await failing()
                except ZeroDivisionError:
                    if not caught:
                        raise
                    await asyncio.sleep(0)
                    went_on.append(True)
        finally:
            cancellation.end()

    with pytest.raises(TimeoutError if caught else ZeroDivisionError):
        await handler()
    for _ in range(3):
        await asyncio.sleep(0)
    assert went_on == []
    deadlines.close()


async def test_what_was_stopped_before_does_not_begin() -> None:
    attempt = Attempt()
    attempt.cancellation.request(BY)
    with pytest.raises(HandlingError) as caught:
        await attempt.run()
    assert caught.value.code is Code.CANCELED
    assert attempt.steps == []


async def test_what_comes_after_the_end_is_noted_and_no_more() -> None:
    attempt = Attempt()
    assert await attempt.run() == "done"
    attempt.cancellation.request(BY)
    assert attempt.cancellation.canceled is BY
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_only_the_first_request_counts() -> None:
    attempt = Attempt()
    running = asyncio.create_task(attempt.run())
    await asyncio.sleep(0)
    attempt.cancellation.request(BY)
    attempt.cancellation.request(Canceled(BY.by, "again"))
    assert await running == "cancelled"
    assert attempt.cancellation.canceled is BY


async def test_a_handler_that_swallows_it_is_cancelled_again_when_its_time_is_over() -> None:
    cancellation, deadlines = Cancellation(), Deadlines()
    swallowed = 0
    deadline = deadlines.within(0.01)

    async def handler() -> str:
        nonlocal swallowed
        deadline = deadlines.within(0.01)
        cancellation.begin(deadline)
        try:
            with deadline:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    swallowed += 1
                await asyncio.Event().wait()
        except TimeoutError:
            return "cancelled"
        return "done"

    del deadline
    running = asyncio.create_task(handler())
    await asyncio.sleep(0)
    cancellation.request(BY)
    assert await running == "cancelled"
    assert (swallowed, running.cancelling()) == (1, 0)
    deadlines.close()
