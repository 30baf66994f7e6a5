"""What becomes of an attempt that failed, as its handler and its policy say: another one, or an end that is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow
from support.lab import until

from sealbus import Agent, Context, Reject, RemoteError, Retry, RetryPolicy, TaskHandle
from sealbus.bus.gate import gate
from sealbus.bus.sending.status import State, Status
from sealbus.bus.work.executor import durable
from sealbus.envelopes.errors import Code, PolicyUnavailable
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus

QUICK = RetryPolicy(initial_interval=0.01, maximum_interval=0.01, maximum_attempts=3)
ENDLESS = RetryPolicy(initial_interval=0.02, maximum_interval=0.02, maximum_attempts=None)


class Job(BaseModel):
    name: str = "one"


@dataclass
class Works:
    """An agent whose handlers end each attempt as `ends` says next; without a word, it is done."""

    ends: Iterator[Exception] = field(default_factory=lambda: iter(()))
    deliveries: list[int] = field(default_factory=list)
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        async def attempt(ctx: Context) -> int:
            self.deliveries.append(ctx.delivery)
            for error in self.ends:
                raise error
            return ctx.delivery

        @self.agent.task("run", retry=QUICK)
        async def run(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.task("named", retry=RetryPolicy(initial_interval=0.01, non_retryable=(ValueError, "sold_out")))
        async def named(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.task("asks")
        async def asks(job: Job, ctx: Context) -> int:
            self.deliveries.append(ctx.delivery)
            return await ctx.call(ask, job)

        @self.agent.task("asks_named", retry=RetryPolicy(initial_interval=0.01, non_retryable=("sold_out",)))
        async def asks_named(job: Job, ctx: Context) -> int:
            self.deliveries.append(ctx.delivery)
            return await ctx.call(ask, job)

        @self.agent.task("bounded", retry=ENDLESS, total_timeout=1.0)
        async def bounded(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.task("bounded_twice", retry=QUICK, total_timeout=60.0)
        async def bounded_twice(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.task("hangs_quietly", retry=ENDLESS, total_timeout=1.0, status=False)
        async def hangs_quietly(job: Job, ctx: Context) -> None:
            self.deliveries.append(ctx.delivery)
            await asyncio.Event().wait()

        @self.agent.task("hangs", retry=ENDLESS, total_timeout=1.0)
        async def hangs(job: Job, ctx: Context) -> None:
            self.deliveries.append(ctx.delivery)
            await asyncio.Event().wait()

        @self.agent.task("late", total_timeout=0.1)
        async def late(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.task("once", retry=QUICK, once=True)
        async def once(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.call("ask")
        async def ask(job: Job, ctx: Context) -> int:
            return await attempt(ctx)

        @self.agent.on("event.works.happened", retry=QUICK)
        async def happened(job: Job, ctx: Context) -> None:
            await attempt(ctx)


@pytest.fixture
def works() -> Works:
    return Works()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(works: Works, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(works.agent, engine=engine, development=False) as running:
        yield running


def always(error: Callable[[], Exception]) -> Iterator[Exception]:
    while True:
        yield error()


async def submit(bus: TestBus, action: str, life: float | None = None) -> TaskHandle:
    return await (await bus.client("shop")).submit(action, Job(), life=life)


async def told(handle: TaskHandle) -> list[tuple[State, str, str]]:
    statuses: list[Status] = []
    async with asyncio.timeout(60), aclosing(handle.statuses()) as source:
        statuses += [one async for one in source]
    return [(one.state, one.code, one.note) for one in statuses]


async def outcomes(bus: TestBus) -> list[str | None]:
    return [entry.record.code for entry in await bus.audit() if isinstance(entry.record, OutcomeRecord)]


async def test_so_many_attempts_as_the_policy_says(bus: TestBus, works: Works) -> None:
    works.ends = always(KeyError)
    handle = await submit(bus, "works.run")
    failed = (State.WORKING, "handler_failed", "")
    assert await told(handle) == [failed, failed, (State.FAILED, "handler_failed", "")]
    await bus.idle()
    assert works.deliveries == [1, 2, 3]
    assert len(bus.stored("DEAD")) == 1


async def test_a_type_that_is_named_is_buried_at_once(bus: TestBus, works: Works) -> None:
    works.ends = always(UnicodeError)
    assert await told(await submit(bus, "works.named")) == [(State.FAILED, "handler_failed", "")]
    await bus.idle()
    assert works.deliveries == [1]
    assert len(bus.stored("DEAD")) == 1


@pytest.mark.parametrize("retry", [2, QUICK])
async def test_an_event_is_tried_again_by_its_policy_as_well(
    engine: ScriptedEngine, retry: int | RetryPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, deliveries = Agent("listener"), list[int]()

    @agent.on("event.shop.happened", retry=retry)
    async def happened(job: Job, ctx: Context) -> None:
        deliveries.append(ctx.delivery)
        raise Retry(after=0.01)

    async with TestBus(agent, engine=engine, development=False) as bus:
        await (await bus.client("shop")).emit("happened", Job())
        await bus.idle()
        assert len(bus.stored("DEAD")) == 1
    assert deliveries == [1, 2, 3]


async def test_what_another_agent_rejects_with_a_code_that_is_named_is_buried_at_once(
    bus: TestBus, works: Works
) -> None:
    works.ends = always(lambda: Reject("sold_out"))
    assert await told(await submit(bus, "works.asks_named")) == [(State.FAILED, "handler_failed", "")]
    await bus.idle()
    assert works.deliveries == [1, 1]  # the task, and the call
    assert len(bus.stored("DEAD")) == 1


async def test_a_handler_says_when_it_is_tried_again_and_what_its_requester_is_told(bus: TestBus, works: Works) -> None:
    works.ends = iter([Retry(after=0.05, note="the press is cold"), Retry(after=0.01)])
    begun = asyncio.get_running_loop().time()
    handle = await submit(bus, "works.run")
    assert await told(handle) == [
        (State.WORKING, "", "the press is cold"),
        (State.WORKING, "", ""),
        (State.COMPLETED, "", ""),
    ]
    assert asyncio.get_running_loop().time() - begun >= 0.06
    assert await handle.result(int) == 3
    await bus.idle()
    assert await outcomes(bus) == ["handler_failed", "handler_failed", None]


async def test_a_retry_counts_as_an_attempt(bus: TestBus, works: Works) -> None:
    works.ends = always(lambda: Retry(after=0.01))
    assert (await told(await submit(bus, "works.run")))[-1] == (State.FAILED, "handler_failed", "")
    await bus.idle()
    assert works.deliveries == [1, 2, 3]
    assert len(bus.stored("DEAD")) == 1


async def test_a_retry_that_could_only_begin_after_the_end_fails_now(bus: TestBus, works: Works) -> None:
    works.ends = always(lambda: Retry(after=3_600.0))
    assert await told(await submit(bus, "works.run", life=60.0)) == [(State.FAILED, "handler_failed", "")]
    assert works.deliveries == [1]


@pytest.mark.parametrize("action", ["works.run", "works.once"])
@pytest.mark.parametrize(
    "rejected",
    [
        lambda: Reject("sold_out", note="none left"),
        lambda: ExceptionGroup("", [Reject("sold_out", note="none left"), ExceptionGroup("", [Reject("late")])]),
    ],
)
async def test_what_a_handler_rejects_has_failed_for_good_with_its_code_and_note(
    bus: TestBus, works: Works, rejected: Callable[[], Exception], action: str
) -> None:
    works.ends = always(rejected)
    handle = await submit(bus, action)
    assert await told(handle) == [(State.FAILED, "sold_out", "none left")]
    with pytest.raises(RemoteError) as failed:
        await handle.result(int)
    assert (failed.value.code, failed.value.note) == ("sold_out", "none left")
    await bus.idle()
    assert works.deliveries == [1]
    assert bus.stored("DEAD") == []
    assert await outcomes(bus) == ["sold_out"]
    counters = bus.workers["works"].node.counters
    assert counters.value("sealbus_handled_total", action=action, outcome="rejected") == 1


async def test_a_rejection_among_other_failures_is_a_failure(bus: TestBus, works: Works) -> None:
    works.ends = always(lambda: ExceptionGroup("", [Reject("sold_out"), KeyError()]))
    assert (await told(await submit(bus, "works.run")))[-1] == (State.FAILED, "handler_failed", "")
    assert works.deliveries == [1, 2, 3]


async def test_a_rejected_event_is_over(engine: ScriptedEngine) -> None:
    agent = Agent("listener")

    @agent.on("event.shop.happened")
    async def happened(job: Job, ctx: Context) -> None:
        raise Reject("sold_out")

    async with TestBus(agent, engine=engine, development=False) as bus:
        await (await bus.client("shop")).emit("happened", Job())
        await bus.idle()
        assert await outcomes(bus) == ["sold_out"]
        assert bus.stored("DEAD") == []


async def test_a_rejected_call_is_answered_with_code_and_note(bus: TestBus, works: Works) -> None:
    works.ends = always(lambda: Reject("sold_out", note="none left"))
    with pytest.raises(RemoteError) as failed:
        await (await bus.client("shop")).call("works.ask", Job(), returns=int)
    assert (failed.value.code, failed.value.note) == ("sold_out", "none left")
    await until(lambda: len(bus.stored("AUDIT")) == 3)  # two decisions, and what came of the call
    assert await outcomes(bus) == ["sold_out"]


async def test_a_call_is_not_tried_again_whatever_its_handler_asks_for(bus: TestBus, works: Works) -> None:
    works.ends = always(lambda: Retry(after=0.01))
    with pytest.raises(RemoteError) as failed:
        await (await bus.client("shop")).call("works.ask", Job(), returns=int)
    assert failed.value.code is Code.HANDLER_FAILED
    assert works.deliveries == [1]


@pytest.mark.slow
async def test_all_attempts_together_have_a_time(bus: TestBus, works: Works) -> None:
    works.ends = always(KeyError)
    statuses = await told(await submit(bus, "works.bounded"))
    assert statuses[-1] == (State.FAILED, "handler_timeout", "")
    await bus.idle()
    assert len(works.deliveries) > 1
    assert len(bus.stored("DEAD")) == 1


async def test_attempts_that_are_used_up_in_time_did_not_take_too_long(bus: TestBus, works: Works) -> None:
    works.ends = always(KeyError)
    assert (await told(await submit(bus, "works.bounded_twice")))[-1] == (State.FAILED, "handler_failed", "")
    assert works.deliveries == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("action", ["works.hangs", "works.hangs_quietly"])
async def test_an_attempt_ends_when_the_time_of_all_is_over(bus: TestBus, works: Works, action: str) -> None:
    # It may have been told to be working by then.
    assert (await told(await submit(bus, action)))[-1] == (State.FAILED, "handler_timeout", "")
    assert works.deliveries == [1]


async def test_an_attempt_that_comes_too_late_for_all_is_none(
    works: Works, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine was away until then: nobody handles what nobody waits for any more."""
    stored = asyncio.Event()

    def verdict(_: object) -> Verdict:
        return allow() if stored.is_set() else PolicyUnavailable("away")

    monkeypatch.setattr(gate, "UNTIL_EXPIRY", ENDLESS)
    engine.verdict = verdict
    async with TestBus(works.agent, engine=engine, development=False) as bus:
        handle = await submit(bus, "works.late")
        asyncio.get_running_loop().call_later(0.15, stored.set)
        assert await told(handle) == [(State.FAILED, "handler_timeout", "")]
        await bus.idle()
        assert len(bus.stored("DEAD")) == 1
    assert works.deliveries == []


async def test_deliveries_that_no_handler_saw_are_no_attempts(
    bus: TestBus, works: Works, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "UNTIL_EXPIRY", ENDLESS)
    verdicts: Iterator[Verdict] = iter([PolicyUnavailable("away")] * 5)
    engine.verdict = lambda _: next(verdicts, allow())
    works.ends = always(KeyError)
    assert (await told(await submit(bus, "works.run")))[-1] == (State.FAILED, "handler_failed", "")
    assert works.deliveries == [6, 7, 8]


async def test_a_retry_of_a_quiet_task_is_told_to_nobody(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "WORKING_AFTER", 0.0)
    agent = Agent("quiet")

    @agent.task("run", status=False)
    async def run(job: Job, ctx: Context) -> None:
        raise Reject("sold_out") if ctx.delivery > 1 else Retry(after=0.01, note="again")

    async with TestBus(agent, engine=engine, development=False) as bus:
        assert await told(await submit(bus, "quiet.run")) == [(State.FAILED, "sold_out", "")]
