"""What docs/cancel.md shows of a handler is so: before its last step it gives back, after it it is done."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine

from sealbus import Agent, Context
from sealbus.bus.sending.answer import RemoteError
from sealbus.testing import TestBus

TEXT = (Path(__file__).parents[2] / "docs" / "cancel.md").read_text(encoding="utf-8")


class Trip(BaseModel):
    to: str = "Oslo"


class Seat(BaseModel):
    number: int = 7


class Booking(BaseModel):
    seat: int


@dataclass
class Trips:
    """The agent of the page, and another whose calls it makes; one of these waits."""

    bus: TestBus
    steps: list[str] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def trips(request: pytest.FixtureRequest) -> AsyncIterator[Trips]:
    agent, airline = Agent("trips"), Agent("airline")
    steps: list[str] = []
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def step(name: str) -> None:
        if name == request.param:
            waiting.set()
            await go_on.wait()
        steps.append(name)

    @airline.call("reserve")
    async def reserve(body: Trip, ctx: Context) -> Seat:
        await step("reserve")
        return Seat()

    @airline.call("pay")
    async def pay(body: Seat, ctx: Context) -> None:
        await step("pay")

    @airline.call("confirm")
    async def confirm(body: Seat, ctx: Context) -> None:
        await step("confirm")

    @airline.call("give_back")
    async def give_back(body: Seat, ctx: Context) -> None:
        await step("give back")

    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {
        **globals(), "agent": agent, "reserve": reserve, "pay": pay, "confirm": confirm, "give_back": give_back
    }  # fmt: skip
    exec(compile(ast.parse(code), "cancel.md", "exec"), names)  # noqa: S102  a file of ours
    async with TestBus(agent, airline, engine=ScriptedEngine()) as bus:
        yield Trips(bus, steps, waiting, go_on)


@pytest.mark.parametrize("trips", ["pay"], indirect=True)
async def test_before_its_last_step_it_gives_back(trips: Trips) -> None:
    handle = await (await trips.bus.client("shop")).submit("trips.book", Trip())
    await trips.waiting.wait()
    await handle.cancel("not now")
    with pytest.raises(RemoteError) as caught:
        await handle.result()
    assert caught.value.code == "canceled"
    assert trips.steps == ["reserve", "give back"]


@pytest.mark.parametrize("trips", ["confirm"], indirect=True)
async def test_in_its_last_step_it_is_done(trips: Trips) -> None:
    handle = await (await trips.bus.client("shop")).submit("trips.book", Trip())
    await trips.waiting.wait()
    await handle.cancel("too late")
    trips.go_on.set()
    assert await handle.result(Booking) == Booking(seat=7)
    assert trips.steps == ["reserve", "pay", "confirm"]
