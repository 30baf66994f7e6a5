"""Cancelling: one message stops a task, wherever it is, and everything that follows from it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine

from sealbus import Agent, Context
from sealbus.bus.sending.answer import RemoteError
from sealbus.testing import TestBus


class Job(BaseModel):
    name: str = ""


@dataclass
class Works:
    """Three agents: a task of `plans` waits for a task of `works`, which waits for a call of `ends`."""

    entered: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    deepest: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    def agents(self) -> tuple[Agent, Agent, Agent]:
        plans, works, ends = Agent("plans"), Agent("works"), Agent("ends")

        @plans.task("plan")
        async def plan(job: Job, ctx: Context) -> None:
            with self.noting("plan"):
                handle = await ctx.submit("works.work", job)
                await handle.result(object)

        @works.task("work")
        async def work(job: Job, ctx: Context) -> None:
            with self.noting("work"):
                await ctx.call("ends.end", job, returns=str)

        @ends.call("end")
        async def end(job: Job, ctx: Context) -> str:
            with self.noting("end"):
                self.deepest.set()
                await self.leave.wait()
                return "done"

        return plans, works, ends

    def noting(self, name: str) -> _Noting:
        return _Noting(self, name)


class _Noting:
    def __init__(self, works: Works, name: str) -> None:
        self.works, self.name = works, name

    def __enter__(self) -> None:
        self.works.entered.append(self.name)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is asyncio.CancelledError:
            self.works.stopped.append(self.name)


async def test_it_reaches_all_that_follows() -> None:
    works = Works()
    async with TestBus(*works.agents(), engine=ScriptedEngine()) as bus:
        client = await bus.client("shop")
        handle = await client.submit("plans.plan", Job())
        await works.deepest.wait()
        await handle.cancel("enough")
        with pytest.raises(RemoteError) as caught:
            await handle.result()
        assert caught.value.code == "canceled"
        assert caught.value.note == "enough"
        await bus.idle()
    assert sorted(works.stopped) == ["end", "plan", "work"]
