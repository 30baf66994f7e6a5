"""Tasks answered in parts: each is stored before the next is made; attempts begin again; all are the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, allow, deny

from sealbus import Agent, Context
from sealbus.agents.sdk.task_handle import Part
from sealbus.bus.sending import parts as module
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import State
from sealbus.envelopes.errors import BusUnavailable, Denied, HandlingError
from sealbus.testing import TestBus


class Job(BaseModel):
    parts: int = 3
    fails: int = 0
    size: int = 1


class Line(BaseModel):
    text: str


@dataclass
class Works:
    """An agent that writes lines; the attempts before the last one end after their second line."""

    made: list[int] = field(default_factory=list)
    attempts: int = 0
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    cleaned: list[bool] = field(default_factory=list)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        @self.agent.task("write", retry=1)
        async def write(job: Job, ctx: Context) -> AsyncIterator[Line]:
            self.attempts += 1
            for number in range(job.parts):
                self.made.append(number)
                if number == 1:
                    await ctx.progress("halfway")
                yield Line(text=str(number) * job.size)
                if number == 1 and self.attempts <= job.fails:
                    raise ValueError("a secret")

        @self.agent.task("wait")
        async def wait(job: Job, ctx: Context) -> AsyncIterator[bytes]:
            yield b"\x00first"
            await self.leave.wait()
            yield b"\xffsecond"

        @self.agent.task("count", retry=0)
        async def count(job: Job, ctx: Context) -> AsyncIterator[int]:
            mine = asyncio.current_task()
            try:
                for number in range(job.parts):
                    yield number
            finally:
                await asyncio.sleep(0)
                self.cleaned.append(asyncio.current_task() is mine)

        self.write, self.wait, self.count = write, wait, count


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(works: Works, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(works.agent, engine=engine) as running:
        yield running
        works.leave.set()


LINES = [Line(text=str(number)) for number in range(3)]


async def test_they_are_given_in_order_and_all_of_them_are_the_result(bus: TestBus, works: Works) -> None:
    client = await bus.client("shop")
    handle = await client.submit(works.write, Job())
    assert [part async for part in handle.parts(Line)] == [Part(number, line) for number, line in enumerate(LINES)]
    assert await handle.result() == LINES
    assert await handle.result(tuple[Line, ...]) == tuple(LINES)
    # Whoever reads later, and knows the handle alone, gets the same.
    later = client.handle(handle.text)
    assert [part.value for part in [part async for part in later.parts(Line)]] == LINES
    assert await later.result(list[Line]) == LINES
    assert await later.result() == [{"text": "0"}, {"text": "1"}, {"text": "2"}]


async def test_another_task_under_its_key_is_told_that_they_are_not_its_own(bus: TestBus, works: Works) -> None:
    client = await bus.client("shop")
    handle = await client.submit(works.write, Job(), idempotency_key="k-1")
    assert await handle.result() == LINES
    again = await client.submit(works.write, Job(), idempotency_key="k-1")
    with pytest.raises(RemoteError) as caught:
        await again.result()
    assert caught.value.code == "replayed"
    assert works.attempts == 1
    newest = await again.status()
    assert newest is not None
    assert newest.note == "done for an earlier copy; its result is in parts, which are that copy's"
    assert await handle.result() == LINES


async def test_none_at_all_is_an_empty_list(bus: TestBus, works: Works) -> None:
    handle = await (await bus.client("shop")).submit(works.write, Job(parts=0))
    assert await handle.result() == []
    assert [part async for part in handle.parts(Line)] == []


async def test_a_part_comes_while_the_next_is_not_made_yet(bus: TestBus, works: Works) -> None:
    handle = await (await bus.client("shop")).submit(works.wait, Job())
    async with aclosing(handle.parts(bytes)) as parts:
        assert await anext(parts) == Part(0, b"\x00first")
        works.leave.set()
        assert await anext(parts) == Part(1, b"\xffsecond")
    assert await handle.result() == [b"\x00first", b"\xffsecond"]


async def test_an_attempt_begins_again(bus: TestBus, works: Works) -> None:
    handle = await (await bus.client("shop")).submit(works.write, Job(fails=1))
    found = [part.number async for part in handle.parts(Line)]
    assert found == [0, 1, 0, 1, 2]
    assert await handle.result() == LINES


async def test_a_part_that_is_not_stored_ends_the_attempt(bus: TestBus, works: Works) -> None:
    """The handler goes no faster than its parts are stored, and none is left out."""
    handle = await (await bus.client("shop")).submit(works.wait, Job())
    async with aclosing(handle.parts(bytes)) as parts:
        await anext(parts)
        bus.broker.fail("RESULTS", BusUnavailable("away"))
        works.leave.set()
        await asyncio.sleep(0)
        bus.broker.fail("RESULTS", None)
    assert await handle.result() == [b"\x00first", b"\xffsecond"]


async def test_what_is_too_much_is_a_bad_result(bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 2)
    handle = await (await bus.client("shop")).submit(works.write, Job(fails=0))
    with pytest.raises(RemoteError) as caught:
        await handle.result(timeout=60)
    assert caught.value.code == "bad_result"


async def test_our_own_policy_is_asked_once_and_before_the_first(
    bus: TestBus, works: Works, engine: ScriptedEngine
) -> None:
    handle = await (await bus.client("shop")).submit(works.write, Job())
    await handle.result()
    await bus.idle()
    engine.asked.clear()
    assert len([part async for part in handle.parts(Line)]) == 3
    assert [one["action"]["name"] for one in engine.asked] == ["works.write.reply"]
    engine.verdict = lambda asked: deny("no") if asked["action"]["name"].endswith(".reply") else allow()
    with pytest.raises(Denied):
        await anext(handle.parts(Line))


@pytest.mark.parametrize("text", [b'"text":"1"', b'"text":"2"'])
async def test_a_missing_part_is_found(bus: TestBus, works: Works, text: bytes) -> None:
    handle = await (await bus.client("shop")).submit(works.write, Job())
    await handle.result()
    results = bus.broker.streams["RESULTS"]
    # The broker leaves one out: the status "halfway" is no part.
    [missing] = [one for one in results.stored if b"\x01" not in one.subject.encode() and text in one.payload]
    results.remove(missing.sequence)
    with pytest.raises(HandlingError) as caught:
        await handle.result()
    assert caught.value.code == "bad_result"
    with pytest.raises(HandlingError):
        [part async for part in handle.parts(Line)]


async def test_a_canceled_one_ends_after_what_was_given(bus: TestBus, works: Works) -> None:
    handle = await (await bus.client("shop")).submit(works.wait, Job())
    async with aclosing(handle.parts(bytes)) as parts:
        await anext(parts)
        await handle.cancel("enough")
        with pytest.raises(RemoteError) as caught:
            await anext(parts)
    assert caught.value.code == "canceled"


async def test_what_a_handler_cleans_up_is_done_before_its_end_is_told(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits at its `yield` while a part is stored, where it cannot be cancelled: it is closed there."""
    client = await bus.client("shop")
    monkeypatch.setattr(module, "MOST_PARTS", 1)
    with pytest.raises(RemoteError):
        await (await client.submit(works.count, Job(parts=2))).result()
    monkeypatch.undo()
    handle = await client.submit(works.count, Job(parts=2_000))
    async with aclosing(handle.parts()) as parts:
        await anext(parts)
        await handle.cancel("enough")
    with pytest.raises(RemoteError) as caught:
        await handle.result()
    assert (caught.value.code, works.cleaned) == ("canceled", [True, True])


async def test_the_newest_status_may_be_a_part(bus: TestBus, works: Works) -> None:
    handle = await (await bus.client("shop")).submit(works.wait, Job())
    async with aclosing(handle.parts(bytes)) as parts:
        await anext(parts)
        status = await handle.status()
    assert status is not None
    assert (status.state, status.number, status.final) == (State.WORKING, 0, False)
    assert replace(status, part=None).state is State.WORKING
