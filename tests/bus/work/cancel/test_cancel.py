"""Cancelling: one message stops a task, wherever it is, and everything that follows from it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, allow, deny
from support.lab import until

from sealbus import Agent, Context, TaskHandle
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.gate.status_reader import AskedTask, StatusLimits
from sealbus.bus.ports import Delivery, Overloaded, StreamRefused
from sealbus.bus.routing.retry import Reject, Retry, RetryPolicy
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.status import State
from sealbus.bus.work.cancel import in_force, room
from sealbus.bus.work.executor import settlement
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import Denied, HandlingError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


class Job(BaseModel):
    name: str = ""


@dataclass
class Works:
    """Three agents: a task of `plans` waits for a task of `works`, which waits for a call of `ends`."""

    entered: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
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
        self.works.left.append(self.name)
        if kind is asyncio.CancelledError:
            self.works.stopped.append(self.name)


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(works: Works, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(*works.agents(), engine=engine) as running:
        yield running
        works.leave.set()


async def ended(handle: TaskHandle) -> tuple[State, str, str]:
    """Return the state, code and note that a task ends with."""
    async with aclosing(handle.statuses()) as statuses:
        found = [status async for status in statuses]
    assert [status.final for status in found].count(True) == 1
    return found[-1].state, found[-1].code, found[-1].note


async def outcomes(bus: TestBus, action: str) -> list[str | None]:
    """Return the codes of the outcomes of an action's decisions, in order."""
    entries = await bus.audit()
    leaves = {
        entry.leaf for entry in entries if isinstance(entry.record, DecisionRecord) and entry.record.action == action
    }
    return [
        entry.record.code
        for entry in entries
        if isinstance(entry.record, OutcomeRecord) and entry.record.decision in leaves
    ]


CANCELED = (State.CANCELED, "canceled", "enough")


async def test_it_reaches_all_that_follows(bus: TestBus, works: Works) -> None:
    client = await bus.client("shop")
    handle = await client.submit("plans.plan", Job())
    await works.deepest.wait()
    await handle.cancel("enough")
    with pytest.raises(RemoteError) as caught:
        await handle.result()
    assert (caught.value.code, caught.value.note) == ("canceled", "enough")
    status = await handle.status()
    assert status is not None
    assert status.by == bus.names.id_of("shop")
    await bus.idle()
    assert sorted(works.stopped) == ["end", "plan", "work"]
    for action in ("plans.plan", "works.work", "ends.end"):
        assert await outcomes(bus, action) == ["canceled"]
    [decision] = await bus.decisions("plans._cancel")
    said = json.loads(decision.input or b"")
    assert said["resource"] == {"type": "task", "id": handle.digest.hex(), "properties": {}}
    assert said["action"]["properties"] == {"action": "plans.plan", "role": "requester", "reason": "enough"}
    assert not bus.stored("DEAD")


async def test_one_that_waits_is_never_handled(engine: ScriptedEngine) -> None:
    handled: list[str] = []
    entered, leave = asyncio.Event(), asyncio.Event()
    agent = Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> None:
        handled.append(job.name)
        entered.set()
        await leave.wait()

    async with TestBus(agent, engine=engine, limits=WorkerLimits(concurrency=1)) as bus:
        client = await bus.client("shop")
        first = await client.submit(work, Job(name="first"))
        await entered.wait()
        second = await client.submit(work, Job(name="second"))
        await second.cancel("enough")
        leave.set()
        assert await ended(second) == CANCELED
        assert await ended(first) == (State.COMPLETED, "", "")
    assert handled == ["first"]


async def test_one_that_is_put_off_ends_at_once(engine: ScriptedEngine) -> None:
    tried = asyncio.Event()
    agent = Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> None:
        tried.set()
        raise Retry(after=3_000.0, note="later")

    async with TestBus(agent, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(work, Job())
        async with aclosing(handle.statuses()) as statuses:
            assert (await anext(statuses)).note == "later"
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await bus.idle()


async def test_one_that_comes_after_its_cancel_is_not_handled(engine: ScriptedEngine, works: Works) -> None:
    """The agent is down when its work is canceled: the cancel is taken in first, when it is back."""
    async with TestBus(engine=engine) as bus:
        client = await bus.client("shop")
        handle = await client.submit("ends.end", Job())
        with pytest.raises(TimeoutError):
            await handle.cancel("enough", timeout=0.05)
        ends = Agent("ends")

        @ends.task("end")
        async def end(job: Job, ctx: Context) -> None:
            works.entered.append("end")

        stop = asyncio.Event()
        async with Worker(ends, (await bus.client("ends")).node) as worker, asyncio.TaskGroup() as group:
            group.create_task(worker.run(stop))
            found = await ended(handle)
            stop.set()
    # Both wait in the stream: if the task is taken first, it is done.
    assert found in {CANCELED, (State.COMPLETED, "", "")}
    assert (found == CANCELED) == (works.entered == [])


async def test_the_news_of_an_end_may_come_before_the_stop(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that reads slowly learns that the sub-task was canceled before it learns of the cancel itself."""
    client = await bus.client("shop")
    handle = await client.submit("plans.plan", Job())
    await works.deepest.wait()
    slow, held = bus.workers["plans"].parts.stops, list[Sequence[Delivery]]()
    take = slow._take
    monkeypatch.setattr(slow, "_take", lambda batch, **_: held.append(batch))
    # It is confirmed once its own process has read it.
    canceling = asyncio.create_task(handle.cancel("enough"))
    await until(lambda: len(works.left) == 3 and len(held) > 0)
    assert sorted(works.stopped) == ["end", "work"]
    monkeypatch.setattr(slow, "_take", take)
    for batch in held:
        take(batch, is_own=True)
    await canceling
    assert await ended(handle) == CANCELED
    await bus.idle()
    assert await outcomes(bus, "plans.plan") == ["canceled"]
    assert not bus.stored("DEAD")


async def test_what_another_canceled_of_it_ends_a_task_that_does_not_catch_it(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_force, "CURRENT_WITHIN", 0.01)
    client, operator = await bus.client("shop"), await bus.client("operator")
    handle = await client.submit("plans.plan", Job())
    await works.deepest.wait()
    [sub_task] = [one for one in bus.stored("TASKS") if one.subject == "task.works.work"]
    header = parse_header(parse_envelope(sub_task.payload).header)
    asked = AskedTask(pending=PendingRequest.of(header), action="works.work")
    await operator.node.sending.cancel(asked, operator=True)
    assert (await ended(handle))[:2] == (State.FAILED, "canceled")


async def test_more_cancels_than_a_process_can_wait_for_are_refused_before_they_are_sent(
    bus: TestBus, works: Works
) -> None:
    client = await bus.client("shop")
    handles = [await client.submit("plans.plan", Job()) for _ in range(2)]
    await works.deepest.wait()
    reader = client.node.status_reader
    reader.limits = StatusLimits(readers=1)  # type: ignore[misc]  # final for everybody but this test
    found = await asyncio.gather(*[handle.cancel("enough") for handle in handles], return_exceptions=True)
    assert [type(one) for one in found] == [type(None), Overloaded]
    assert len([one for one in bus.stored("TASKS") if one.subject == "control.plans.cancel"]) == 1
    await handles[1].cancel("enough")


async def test_a_requester_without_room_is_told_so_and_its_task_goes_on(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "OF_REQUESTER", 1)
    leave, agent = asyncio.Event(), Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> None:
        await leave.wait()

    async with TestBus(agent, engine=engine) as bus:
        client = await bus.client("shop")
        first, second = [await client.submit(work, Job()) for _ in range(2)]
        await first.cancel("enough")
        with pytest.raises(RemoteError) as refused:
            await second.cancel("enough")
        assert refused.value.code == "overloaded"
        leave.set()
        assert await ended(second) == (State.COMPLETED, "", "")
        await bus.idle()
        # It is neither tried again nor a dead letter.
        assert not bus.stored("DEAD")
        assert await outcomes(bus, "works._cancel") == [None, "overloaded"]


async def test_what_is_done_stays_done(bus: TestBus, works: Works) -> None:
    client = await bus.client("shop")
    works.leave.set()
    handle = await client.submit("plans.plan", Job())
    assert await ended(handle) == (State.COMPLETED, "", "")
    await handle.cancel("too late")
    assert await ended(handle) == (State.COMPLETED, "", "")
    assert works.stopped == []


async def test_a_handler_that_returns_all_the_same_is_done(engine: ScriptedEngine) -> None:
    entered = asyncio.Event()
    seen: list[bool] = []
    agent = Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> str:
        entered.set()
        seen.append(ctx.cancelled)
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        seen.append(ctx.cancelled)
        with pytest.raises(HandlingError) as caught:
            await ctx.submit("works.work", Job())
        assert caught.value.code == "canceled"
        return "done"

    async with TestBus(agent, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(work, Job())
        await entered.wait()
        await handle.cancel()
        assert await handle.result(str) == "done"
        await bus.idle()
        assert await outcomes(bus, "works.work") == [None]
    assert seen == [False, True]


@pytest.mark.parametrize(
    "raised", [ValueError("x"), Reject("no"), Retry(after=1.0), TimeoutError(), asyncio.CancelledError()]
)
async def test_what_a_handler_raises_after_it_counts_as_canceled(engine: ScriptedEngine, raised: BaseException) -> None:
    entered = asyncio.Event()
    agent = Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> None:
        entered.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        raise raised

    async with TestBus(agent, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(work, Job())
        await entered.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await bus.idle()
        assert await outcomes(bus, "works.work") == ["canceled"]
        assert not bus.stored("DEAD")


async def test_a_shield_holds_it_back_until_it_is_left(engine: ScriptedEngine) -> None:
    """What is sent in the shield is detached, and so is not canceled with the work that it follows from."""
    in_shield, leave = asyncio.Event(), asyncio.Event()
    done: list[str] = []
    plans, ends = Agent("plans"), Agent("ends")

    @plans.task("plan")
    async def plan(job: Job, ctx: Context) -> None:
        async with ctx.shield("booking"):
            done.append(await ctx.call("ends.end", job, returns=str))
        await asyncio.sleep(0)
        done.append("after")

    @ends.call("end")
    async def end(job: Job, ctx: Context) -> str:
        in_shield.set()
        await leave.wait()
        return "booked"

    async with TestBus(plans, ends, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(plan, Job())
        await in_shield.wait()
        await handle.cancel("enough")
        status = await handle.status()
        assert status is not None
        assert (status.state, status.note) == (State.WORKING, "booking")
        leave.set()
        assert await ended(handle) == CANCELED
        assert await outcomes(bus, "ends.end") == [None]
    assert done == ["booked"]


async def test_it_can_be_undone_in_a_shield(engine: ScriptedEngine) -> None:
    entered = asyncio.Event()
    undone: list[str] = []
    plans, ends = Agent("plans"), Agent("ends")

    @plans.task("plan")
    async def plan(job: Job, ctx: Context) -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            async with ctx.shield():
                await ctx.submit(undo, Job(name="undo"))
            raise

    @ends.task("undo")
    async def undo(job: Job, ctx: Context) -> None:
        undone.append(job.name)

    async with TestBus(plans, ends, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(plan, Job())
        await entered.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await bus.idle()
    assert undone == ["undo"]


async def test_what_was_submitted_as_detached_goes_on_with_all_below_it(engine: ScriptedEngine) -> None:
    entered, leave, submitted = asyncio.Event(), asyncio.Event(), asyncio.Event()
    results: list[str] = []
    plans, works, ends = Agent("plans"), Agent("works"), Agent("ends")

    @plans.task("plan")
    async def plan(job: Job, ctx: Context) -> None:
        await ctx.submit(work, job, detached=True)
        submitted.set()
        await asyncio.Event().wait()

    @works.task("work")
    async def work(job: Job, ctx: Context) -> None:
        results.append(await ctx.call(end, job))

    @ends.call("end")
    async def end(job: Job, ctx: Context) -> str:
        entered.set()
        await leave.wait()
        return "done"

    async with TestBus(plans, works, ends, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(plan, Job())
        await submitted.wait()
        await entered.wait()
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        leave.set()
        await bus.idle()
    assert results == ["done"]


async def test_a_stranger_cancels_nothing_and_an_operator_what_the_policy_allows(
    bus: TestBus, works: Works, engine: ScriptedEngine
) -> None:
    client = await bus.client("shop")
    task = await client.submit("plans.plan", Job())
    await works.deepest.wait()
    other = (await bus.client("stranger")).handle(task.text)
    await other.cancel("mine")
    for _ in range(100):
        await asyncio.sleep(0)
    assert works.stopped == []
    engine.verdict = lambda asked: deny("not_now") if asked["action"]["name"] == "plans._cancel" else allow()
    with pytest.raises(Denied):
        await other.cancel("mine", operator=True)
    engine.verdict = lambda _: allow()
    await other.cancel("maintenance", operator=True)
    assert await ended(task) == (State.CANCELED, "canceled", "maintenance")
    await bus.idle()
    assert sorted(works.stopped) == ["end", "plan", "work"]


@pytest.mark.slow
async def test_completion_and_cancel_at_once_have_one_winner_for_every_reader(engine: ScriptedEngine) -> None:
    agent = Agent("works")
    leaves: dict[str, asyncio.Event] = {}
    entered: dict[str, asyncio.Event] = {}

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> str:
        entered[job.name].set()
        await leaves[job.name].wait()
        return "done"

    async with TestBus(agent, engine=engine) as bus:
        client = await bus.client("shop")
        found: Counter[State] = Counter()
        for number in range(200):
            name = str(number)
            leaves[name], entered[name] = asyncio.Event(), asyncio.Event()
            handle = await client.submit(work, Job(name=name))
            await entered[name].wait()
            canceling = asyncio.create_task(handle.cancel())
            for _ in range(number % 50):
                await asyncio.sleep(0)
            leaves[name].set()
            first, second = await asyncio.gather(ended(handle), ended(client.handle(handle.text)))
            await canceling
            assert first == second
            found[first[0]] += 1
        await bus.idle()
        codes = Counter(await outcomes(bus, "works.work"))
    assert codes == {None: found[State.COMPLETED], "canceled": found[State.CANCELED]}
    assert min(codes.values()) > 10


@pytest.mark.parametrize("put_off", [False, True])
async def test_its_end_is_told_again_where_it_could_not_be_stored(
    engine: ScriptedEngine, put_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not leave a requester without the end of what it canceled."""
    monkeypatch.setattr(settlement, "END_AGAIN", (0.01, 0.01, 0.0))
    monkeypatch.setattr(settlement, "TELL_AGAIN", RetryPolicy(initial_interval=0.01, maximum_attempts=9))
    entered = asyncio.Event()
    agent = Agent("works")

    @agent.task("work")
    async def work(job: Job, ctx: Context) -> None:
        entered.set()
        if put_off:
            raise Retry(after=3_000.0)
        await asyncio.Event().wait()

    async with TestBus(agent, engine=engine) as bus:
        handle = await (await bus.client("shop")).submit(work, Job())
        await entered.wait()
        counters = bus.workers["works"].node.counters
        if put_off:
            await until(lambda: counters.value("sealbus_put_off_total", cause="passing") == 1)
        refused = StreamRefused("full", 10_077)
        publish = bus.workers["works"].node.outbox.publish

        async def failing(message: OutgoingMessage, **named: object) -> object:
            if message.draft.kind is Kind.STATUS and message.draft.to.startswith(f"status.shop.{handle.message_id}"):
                failures.append(1)
                if len(failures) == 1:
                    raise refused
            return await publish(message, **named)  # type: ignore[arg-type]

        failures: list[int] = []
        monkeypatch.setattr(bus.workers["works"].node.outbox, "publish", failing)
        await handle.cancel("enough")
        assert await ended(handle) == CANCELED
        await bus.idle()
    assert len(failures) == 2
