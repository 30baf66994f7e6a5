"""Gather: what is done, failed and late at the deadline, on a bus in memory; nothing is cancelled and nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.lab import until
from support.results import TASK

from sealbus import Agent, CallExpired, Client, Context, Reject, RemoteError, TaskHandle, gather
from sealbus.agents.sdk.gather import MOST
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.sending.status import State, Status
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.testing import TestBus

LONG = 60.0


class Number(BaseModel):
    number: int


@dataclass
class Sums:
    """An agent that doubles numbers: it refuses odd ones, and those over 100 wait until they are let go."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    agent: Agent = field(default_factory=lambda: Agent("sums"))

    def __post_init__(self) -> None:
        @self.agent.task("double", retry=0)
        async def double(body: Number, ctx: Context) -> int:
            if body.number > 100:
                await self.go.wait()
            if body.number % 2:
                raise Reject("odd")
            return body.number * 2

        self.double = double


@asynccontextmanager
async def asked(*numbers: int) -> AsyncIterator[tuple[Sums, Client, list[TaskHandle[int]]]]:
    sums = Sums()
    async with TestBus(sums.agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        yield sums, client, [await client.submit(sums.double, Number(number=number)) for number in numbers]
        sums.go.set()


@pytest.mark.slow
async def test_each_task_is_in_one_group_in_the_order_given() -> None:
    async with asked(2, 101, 3, 102, 4) as (_, client, handles):
        # These have ended before, so that the deadline measures no handler.
        ended = [handles[0], handles[2], handles[4]]
        assert (await gather(ended, deadline=LONG)).late == ()
        found = await gather(handles, deadline=5.0)
        assert found.done == ((handles[0], 4), (handles[4], 8))
        assert found.results == (4, 8)
        [(handle, error)] = found.failed
        assert handle is handles[2]
        assert isinstance(error, RemoteError)
        assert error.code == "odd"
        assert found.late == (handles[1], handles[3])
        assert client.node.status_reader.reading == 0


async def test_a_late_one_goes_on_and_is_done_later() -> None:
    async with asked(102) as (sums, _, handles):
        assert (await gather(handles, deadline=0.05)).late == tuple(handles)
        sums.go.set()
        assert (await gather(handles, deadline=LONG)).results == (204,)


async def test_it_returns_once_enough_are_done() -> None:
    """A failure is not one of them."""
    async with asked(3, 102, 2, 104, 4) as (_, client, handles), asyncio.timeout(LONG / 2):
        found = await gather(handles, deadline=LONG, least=2)
        assert found.results == (4, 8)
        assert set(found.late) >= {handles[1], handles[3]}
        assert client.node.status_reader.reading == 0


async def test_it_returns_once_all_have_ended_though_fewer_are_done() -> None:
    async with asked(3, 2) as (_, _, handles), asyncio.timeout(LONG / 2):
        found = await gather(handles, deadline=LONG, least=2)
        assert (len(found.done), len(found.failed), found.late) == (1, 1, ())


async def test_of_nothing_there_is_nothing() -> None:
    handles: list[TaskHandle] = []
    found = await gather(handles)
    assert (found.done, found.failed, found.late) == ((), (), ())


async def test_who_is_cancelled_leaves_no_reading_open() -> None:
    async with asked(102, 104) as (_, client, handles):
        running = asyncio.ensure_future(gather(handles, deadline=LONG))
        await until(lambda: client.node.status_reader.reading == 2)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()
        assert client.node.status_reader.reading == 0


class Read:
    """Stands for the reader of statuses: gives the expiry of a task, or fails."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        del task, after, follow
        if self.error is not None:
            raise self.error
        yield Status(state=State.EXPIRED, code=Code.EXPIRED)


def handle(error: Exception | None = None) -> TaskHandle:
    task = AskedTask(pending=PendingRequest.of(TASK), action="pricing.update")
    return TaskHandle(task=task, reader=cast("StatusReader", Read(error)))


async def test_an_expired_task_has_failed() -> None:
    [(_, error)] = (await gather([handle()])).failed
    assert isinstance(error, CallExpired)


async def test_a_bus_that_is_away_is_no_task_that_failed() -> None:
    with pytest.raises(BusUnavailable):
        await gather([handle(), handle(BusUnavailable("closed"))], deadline=LONG)


@pytest.mark.parametrize(
    ("gathering", "says"),
    [
        (lambda: gather([handle()], deadline=0), "over 0 seconds"),
        (lambda: gather([handle()], deadline=float("nan")), "over 0 seconds"),
        (lambda: gather([handle()], least=0), "from 1 to the 1 handles"),
        (lambda: gather([handle()], least=2), "from 1 to the 1 handles"),
        (lambda: gather([handle()] * (MOST + 1)), "at most 512"),
    ],
)
async def test_what_makes_no_sense_is_refused(gathering: Callable[[], Awaitable[object]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        await gathering()


async def test_late_ones_are_canceled_where_that_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    async with asked(2, 102) as (_, client, handles):
        gone = client.handle((await client.submit("gone.away", Number(number=1))).text)
        unknown: TaskHandle[int] = TaskHandle(task=gone.task, reader=gone.reader)
        found = await gather([*handles, unknown], deadline=5.0, late="cancel")
        assert (found.results, found.late) == ((4,), (handles[1], unknown))
        with pytest.raises(RemoteError) as caught:
            await handles[1].result()
        assert (caught.value.code, caught.value.note) == (Code.CANCELED, "late")
    # A handle that only reads cannot cancel.
    assert "a late task of gone.away is not known to be canceled: SealError" in caplog.text
