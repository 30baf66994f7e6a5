"""Tasks at their handler, in memory: what their requester is told, once, and what is not handled twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, deny
from support.lab import until

from sealbus import Agent, Context, Denied
from sealbus.agents.dev.memory.broker import MemoryPull
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.gate import gate
from sealbus.bus.ports import Delivery, StreamRefused
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.sending.status import State, Status
from sealbus.bus.work.executor import durable, ending, settlement
from sealbus.bus.work.idempotency import effects
from sealbus.envelopes.errors import BusUnavailable, Code, HandlingError, SealbusError, SealError
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


def pausing(first: float, most: float, attempts: int | None) -> RetryPolicy:
    return RetryPolicy(initial_interval=first, maximum_interval=most, jitter=0.0, maximum_attempts=attempts)


class Job(BaseModel):
    name: str = "one"
    size: int = 0


class Report(BaseModel):
    text: str


@dataclass
class Works:
    """An agent and what it did. `fail` makes it raise so many times."""

    done: list[str] = field(default_factory=list)
    fail: int = 0
    agent: Agent = field(init=False)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    handled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.agent = Agent("works")

        def report(job: Job) -> Report:
            if self.fail:
                self.fail -= 1
                raise ValueError("a secret that no status may hold")
            self.done.append(job.name)
            return Report(text=job.name + "x" * job.size)

        @self.agent.task("plain", retry=1)
        async def plain(job: Job, ctx: Context) -> Report:
            return report(job)

        @self.agent.task("quiet", retry=1, status=False)
        async def quiet(job: Job, ctx: Context) -> Report:
            return report(job)

        @self.agent.task("once", retry=1, once=True)
        async def once(job: Job, ctx: Context) -> Report:
            return report(job)

        @self.agent.task("nothing")
        async def nothing(job: Job, ctx: Context) -> None:
            self.done.append(job.name)

        @self.agent.task("talk")
        async def talk(job: Job, ctx: Context) -> None:
            await ctx.progress("half")
            await ctx.input_required("which one?")
            with pytest.raises(ValueError, match="note"):
                await ctx.progress("n" * 257)

        @self.agent.task("question")
        async def question(job: Job, ctx: Context) -> None:
            await (ctx.progress if job.size else ctx.input_required)("which one?")
            await self.leave.wait()

        @self.agent.task("wait")
        async def wait(job: Job, ctx: Context) -> None:
            self.entered.set()
            await self.leave.wait()
            self.done.append(job.name)
            self.handled.set()

        @self.agent.call("ask")
        async def ask(job: Job, ctx: Context) -> None:
            with pytest.raises(SealError):
                await ctx.progress("nobody is told")

        @self.agent.on("event.works.happened", once=True)
        async def happened(job: Job, ctx: Context) -> None:
            report(job)


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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "BURY_AGAIN", 0.02)


async def submit(bus: TestBus, action: str, **fields: Any) -> TaskHandle:
    client = await bus.client("shop")
    key = fields.pop("idempotency_key", None)
    return await client.submit(action, Job(**fields), idempotency_key=key)


async def told(handle: TaskHandle) -> list[Status]:
    async with asyncio.timeout(60), aclosing(handle.statuses()) as statuses:
        return [one async for one in statuses]


def states(statuses: list[Status]) -> list[tuple[State, str]]:
    return [(one.state, one.code) for one in statuses]


async def outcomes(bus: TestBus) -> list[str | None]:
    return [entry.record.code for entry in await bus.audit() if isinstance(entry.record, OutcomeRecord)]


def consumer(bus: TestBus, stream: str) -> MemoryPull:
    (pull,) = [one for key, one in bus.broker.consumers.items() if key == (stream, "works")]
    return pull


def send_again(bus: TestBus, subject: str) -> None:
    """Deliver the first stored message of `subject` again, as a server would that lost its consumers' state."""
    assert any(one.subject == subject for one in bus.stored("TASKS"))
    consumer(bus, "TASKS").rewind()


async def test_a_handler_that_runs_on_is_told_to_be_working(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "WORKING_AFTER", 0.0)
    handle = await submit(bus, "works.wait", name="a")
    async with asyncio.timeout(60), aclosing(handle.statuses()) as statuses:
        working = await anext(statuses)
        works.leave.set()
        completed = await anext(statuses)
    assert (working.state, completed.state) == (State.WORKING, State.COMPLETED)
    assert completed.sequence > working.sequence


@pytest.mark.parametrize(("size", "state"), [(0, State.INPUT_REQUIRED), (1, State.WORKING)])
async def test_what_a_handler_has_said_by_then_stays_its_newest_word(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch, size: int, state: State
) -> None:
    monkeypatch.setattr(durable, "WORKING_AFTER", 0.0)
    handle = await submit(bus, "works.question", size=size)
    async with asyncio.timeout(60), aclosing(handle.statuses()) as statuses:
        first = await anext(statuses)
        newest = await handle.status()
        works.leave.set()
        rest = [one.state async for one in statuses]
    assert newest is not None
    assert (first.state, newest.state, newest.note) == (state, state, "which one?")
    assert rest == [State.COMPLETED]


async def test_a_task_that_is_done_at_once_has_its_result_and_no_other_status(bus: TestBus) -> None:
    handle = await submit(bus, "works.plain", name="a")
    assert states(await told(handle)) == [(State.COMPLETED, "")]
    assert await handle.result(Report) == Report(text="a")
    await bus.idle()
    assert await outcomes(bus) == [None]


async def test_a_handler_that_returns_nothing_completes_with_null(bus: TestBus) -> None:
    handle = await submit(bus, "works.nothing")
    assert states(await told(handle))[-1] == (State.COMPLETED, "")
    await handle.result(type(None))


async def test_what_a_handler_says_of_its_progress_is_told_in_order(bus: TestBus) -> None:
    statuses = await told(await submit(bus, "works.talk"))
    assert [(one.state, one.note) for one in statuses] == [
        (State.WORKING, "half"),
        (State.INPUT_REQUIRED, "which one?"),
        (State.COMPLETED, ""),
    ]


async def test_a_call_has_no_statuses(bus: TestBus) -> None:
    client = await bus.client("shop")
    await client.call("works.ask", Job(), returns=type(None))
    assert bus.stored("RESULTS") == []


async def test_a_quiet_task_tells_nothing_of_success(bus: TestBus, works: Works) -> None:
    await submit(bus, "works.quiet")
    await bus.idle()
    assert works.done == ["one"]
    assert bus.stored("RESULTS") == []


async def test_a_quiet_task_still_tells_that_it_failed(bus: TestBus, works: Works) -> None:
    works.fail = 2
    assert states(await told(await submit(bus, "works.quiet"))) == [(State.FAILED, "handler_failed")]


async def test_a_retry_is_visible_and_counts_up(bus: TestBus, works: Works) -> None:
    works.fail = 1
    statuses = await told(await submit(bus, "works.plain"))
    assert states(statuses) == [(State.WORKING, "handler_failed"), (State.COMPLETED, "")]
    numbers = [one.sequence for one in statuses]
    assert numbers == sorted(set(numbers))


async def test_a_failure_for_good_is_told_after_its_dead_letter(bus: TestBus, works: Works) -> None:
    works.fail = 2
    handle = await submit(bus, "works.plain")
    with pytest.raises(RemoteError) as failed:
        await handle.result(Report)
    assert failed.value.code is Code.HANDLER_FAILED
    await bus.idle()
    assert len(bus.stored("DEAD")) == 1
    assert all(b"secret" not in one.payload for one in bus.stored("RESULTS"))


async def test_a_dead_letter_that_is_not_stored_is_not_told_as_failed(bus: TestBus, works: Works) -> None:
    works.fail = 2
    bus.broker.fail("DEAD", BusUnavailable("away"))
    handle = await submit(bus, "works.plain", name="late")
    assert (await handle.result(Report)).text == "late"
    assert works.done == ["late"]


@pytest.mark.parametrize("shown", [False, True])
async def test_a_denial_is_final_and_visible(bus: TestBus, works: Works, engine: ScriptedEngine, shown: bool) -> None:
    obligations: tuple[dict[str, object], ...] = ({"type": "show_reasons"},) if shown else ()
    engine.verdict = lambda _: deny("not_owner", obligations=obligations)
    handle = await submit(bus, "works.plain")
    (rejected,) = await told(handle)
    assert (rejected.state, rejected.code, rejected.final) == (State.REJECTED, "denied", True)
    assert rejected.reasons == (("not_owner",) if shown else ())
    with pytest.raises(Denied):
        await handle.result(Report)
    await bus.idle()
    assert works.done == []


async def test_a_body_that_does_not_fit_is_rejected_with_its_code(bus: TestBus) -> None:
    client = await bus.client("shop")
    handle = await client.submit("works.plain", {"size": "many"})
    assert states(await told(handle)) == [(State.REJECTED, "bad_body")]


async def test_a_status_that_cannot_be_stored_holds_nothing_up(
    bus: TestBus, works: Works, caplog: pytest.LogCaptureFixture
) -> None:
    bus.broker.fail("RESULTS", StreamRefused("RESULTS: maximum bytes exceeded", 10_077))
    with caplog.at_level(logging.WARNING):
        await submit(bus, "works.plain")
        await bus.idle()
    assert works.done == ["one"]
    assert await outcomes(bus) == [None]
    counters = bus.workers["works"].node.counters
    assert counters.value("sealbus_statuses_total", state="completed", outcome="overloaded") == 1
    assert "status completed" in caplog.text


async def test_a_status_is_stored_before_its_delivery_is_acknowledged(bus: TestBus, works: Works) -> None:
    """A crash between the two says the same again; the other order would lose it."""
    away = BusUnavailable("away")
    handle = await submit(bus, "works.wait")
    await works.entered.wait()
    bus.broker.fail("RESULTS", away)
    works.leave.set()
    pull = consumer(bus, "TASKS")
    await works.handled.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not pull.idle
    bus.broker.fail("RESULTS", None)
    assert states(await told(handle))[-1] == (State.COMPLETED, "")
    await bus.idle()
    assert pull.idle


@pytest.mark.parametrize("action", ["works.plain", "works.once"])
async def test_a_redelivery_of_what_is_done_is_not_handled_again(bus: TestBus, works: Works, action: str) -> None:
    handle = await submit(bus, action)
    await bus.idle()
    before = len(bus.stored("RESULTS"))
    send_again(bus, "task." + action)
    await bus.idle()
    assert works.done == ["one"]
    assert len(bus.stored("RESULTS")) == before
    assert await outcomes(bus) == [None, Code.REPLAYED]
    assert (await handle.result(Report)).text == "one"


@pytest.mark.parametrize("action", ["works.plain", "works.once"])
async def test_a_copy_under_the_same_key_gets_the_same_result(bus: TestBus, works: Works, action: str) -> None:
    first = await submit(bus, action, idempotency_key="k")
    assert (await first.result(Report)).text == "one"
    second = await submit(bus, action, idempotency_key="k")
    assert (await second.result(Report)).text == "one"
    assert first.message_id != second.message_id
    assert works.done == ["one"]


@pytest.mark.parametrize("action", ["works.plain", "works.once"])
async def test_another_body_under_the_same_key_is_a_conflict(bus: TestBus, works: Works, action: str) -> None:
    await (await submit(bus, action, idempotency_key="k")).result(Report)
    second = await submit(bus, action, idempotency_key="k", name="two")
    assert states(await told(second)) == [(State.FAILED, "idempotency_conflict")]
    await bus.idle()
    assert works.done == ["one"]
    assert len(bus.stored("DEAD")) == 1


async def test_once_outlives_the_memory_of_the_process(
    works: Works, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "REMEMBERED", 1)
    monkeypatch.setattr(effects, "RESULTS", 1)
    async with TestBus(works.agent, engine=engine, development=False) as bus:
        first = await submit(bus, "works.once", idempotency_key="k")
        await first.result(Report)
        await (await submit(bus, "works.once", name="two")).result(Report)
        copy = await submit(bus, "works.once", idempotency_key="k")
        assert (await copy.result(Report)).text == "one"
        await (await submit(bus, "works.plain", idempotency_key="k")).result(Report)
        await (await submit(bus, "works.plain", name="two")).result(Report)
        await (await submit(bus, "works.plain", idempotency_key="k")).result(Report)
    assert works.done == ["one", "two", "one", "two", "one"]


async def test_a_failed_attempt_of_once_is_tried_again(bus: TestBus, works: Works) -> None:
    works.fail = 1
    handle = await submit(bus, "works.once")
    assert (await handle.result(Report)).text == "one"


async def test_a_result_too_large_to_keep_is_told_first(bus: TestBus, works: Works) -> None:
    handle = await submit(bus, "works.once", size=70_000, idempotency_key="k")
    assert len((await handle.result(Report)).text) > 70_000
    copy = await submit(bus, "works.once", size=70_000, idempotency_key="k")
    assert states(await told(copy)) == [(State.FAILED, "replayed")]
    assert works.done == ["one"]


async def test_a_result_too_large_to_send_is_a_failure_that_is_not_repeated(bus: TestBus, works: Works) -> None:
    handle = await submit(bus, "works.plain", size=1_000_000)
    assert states(await told(handle))[-1] == (State.FAILED, "bad_result")
    await bus.idle()
    assert works.done == ["one"]
    assert await outcomes(bus) == [Code.BAD_RESULT]


async def test_what_cannot_be_claimed_is_tried_again_and_not_handled(bus: TestBus, works: Works) -> None:
    bus.broker.fail("STATE", BusUnavailable("away"))
    handle = await submit(bus, "works.once")
    async with aclosing(handle.statuses()) as statuses:
        waiting = await anext(statuses)
    assert (waiting.state, waiting.code) == (State.WORKING, "state_unavailable")
    assert Code.STATE_UNAVAILABLE in await outcomes(bus)
    assert works.done == []
    bus.broker.fail("STATE", None)
    assert (await handle.result(Report)).text == "one"


async def test_an_event_is_handled_once_and_tells_nobody(bus: TestBus, works: Works) -> None:
    client = await bus.client("works")
    await client.emit("happened", Job())
    await bus.idle()
    consumer(bus, "EVENTS").rewind()
    await bus.idle()
    assert works.done == ["one"]
    assert bus.stored("RESULTS") == []


@pytest.fixture
def tell_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "UNTIL_EXPIRY", pausing(0.02, 0.02, 21))
    monkeypatch.setattr(settlement, "TELL_AGAIN", pausing(0.02, 0.02, 21))


async def unstored(bus: TestBus, outcome: str = "bus_unavailable") -> None:
    """Wait until a result could not be stored for its requester."""
    counters = bus.workers["works"].node.counters
    await until(lambda: counters.value("sealbus_statuses_total", state="completed", outcome=outcome) > 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have statuses tried for a moment only: an outage, as far as they know."""
    store = Outbox.publish

    async def soon(self: Outbox, message: OutgoingMessage, *, within: float = 30.0, **options: bool) -> Posted:
        if message.draft.kind is Kind.STATUS:
            return await store(self, message, within=0.0, **options)
        return await store(self, message, within=within, **options)

    store_each = Outbox.publish_each

    async def each_soon(
        self: Outbox, messages: Sequence[OutgoingMessage], *, within: float = 30.0, **options: bool
    ) -> Sequence[Posted | SealbusError]:
        statuses = any(message.draft.kind is Kind.STATUS for message in messages)
        return await store_each(self, messages, within=0.0 if statuses else within, **options)

    monkeypatch.setattr(Outbox, "publish", soon)
    monkeypatch.setattr(Outbox, "publish_each", each_soon)


@pytest.mark.usefixtures("tell_soon", "impatient")
@pytest.mark.parametrize("size", [0, 10_000])
async def test_a_result_that_could_not_be_told_in_an_outage_is_told_after_it(
    bus: TestBus, works: Works, size: int
) -> None:
    """Also one that the process does not keep itself: STATE does."""
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    handle = await submit(bus, "works.once", size=size)
    await unstored(bus)
    bus.broker.fail("RESULTS", None)
    assert len((await handle.result(Report, timeout=60)).text) == 3 + size
    await bus.idle()
    assert works.done == ["one"]
    assert (await outcomes(bus))[0] is None


@pytest.mark.usefixtures("tell_soon", "impatient")
@pytest.mark.parametrize("again", [False, True])
async def test_what_was_done_is_not_told_as_rejected_by_a_later_denial(
    bus: TestBus, works: Works, engine: ScriptedEngine, again: bool
) -> None:
    """Its result could not be told, and the policy has changed before it could, as when the user is revoked."""
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    handle = await submit(bus, "works.once")
    await unstored(bus)
    engine.verdict = lambda _: deny("revoked")
    if again:
        # The end that the denial leads to cannot be told at first, either.
        counters = bus.workers["works"].node.counters
        untold = {"state": "failed", "outcome": "bus_unavailable"}
        await until(lambda: counters.value("sealbus_statuses_total", **untold) > 0)
    bus.broker.fail("RESULTS", None)
    assert states(await told(handle))[-1] == (State.FAILED, "outcome_unknown")
    await bus.idle()
    assert works.done == ["one"]


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_the_denial_of_a_first_delivery_waits_for_nothing(
    bus: TestBus, works: Works, engine: ScriptedEngine
) -> None:
    """A sender whose messages are all denied could otherwise fill the places while STATE is away."""
    engine.verdict = lambda _: deny("not_owner")
    bus.broker.fail("STATE", BusUnavailable("away"))
    handle = await submit(bus, "works.once")
    assert states(await told(handle)) == [(State.REJECTED, "denied")]
    assert bus.workers["works"].node.counters.value("sealbus_put_off_total", cause="passing") == 0
    assert works.done == []


@pytest.fixture
async def denied_again(bus: TestBus, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> TaskHandle[object]:
    """The handle of a task that is denied at a later delivery, while STATE is away."""
    monkeypatch.setattr(gate, "UNTIL_EXPIRY", pausing(0.02, 0.02, 21))
    counters = bus.workers["works"].node.counters
    bus.broker.fail("AUDIT", StreamRefused("full", 10_077))
    handle = await submit(bus, "works.once")
    await until(lambda: counters.value("sealbus_put_off_total", cause="passing") > 0)
    engine.verdict = lambda _: deny("revoked")
    bus.broker.fail("STATE", BusUnavailable("away"))
    bus.broker.fail("AUDIT", None)
    return handle


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_the_denial_of_a_later_delivery_waits_until_the_claim_can_be_read(
    bus: TestBus, works: Works, denied_again: TaskHandle[object]
) -> None:
    decided = len(bus.stored("AUDIT"))
    await until(lambda: len(bus.stored("AUDIT")) > decided + 2)
    assert bus.stored("RESULTS") == []
    bus.broker.fail("STATE", None)
    assert states(await told(denied_again)) == [(State.REJECTED, "denied")]
    assert works.done == []


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_a_denied_task_ends_as_unknown_if_its_claim_cannot_be_read_in_time(
    denied_again: TaskHandle[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "UNTIL_EXPIRY", pausing(0.001, 0.001, 1))
    assert states(await told(denied_again)) == [(State.FAILED, "outcome_unknown")]


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_a_denial_of_what_was_not_done_is_not_told_by_a_redelivery(bus: TestBus, engine: ScriptedEngine) -> None:
    """A sender could otherwise have each of its denied messages decided many times."""
    engine.verdict = lambda _: deny("not_owner")
    counters = bus.workers["works"].node.counters
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    await submit(bus, "works.once")
    await until(lambda: counters.value("sealbus_statuses_total", state="rejected", outcome="bus_unavailable") > 0)
    await bus.idle()
    assert counters.value("sealbus_put_off_total", cause="passing") == 0


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_a_result_is_told_later_however_often_its_message_was_delivered_before(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with one that replicas without the verb have put off, or that waited for its record."""
    monkeypatch.setattr(gate, "UNTIL_EXPIRY", pausing(0.001, 0.001, None))
    counters = bus.workers["works"].node.counters
    bus.broker.fail("AUDIT", StreamRefused("full", 10_077))
    handle = await submit(bus, "works.once")
    await until(lambda: counters.value("sealbus_put_off_total", cause="passing") > 21)
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    bus.broker.fail("AUDIT", None)
    await unstored(bus)
    bus.broker.fail("RESULTS", None)
    assert (await handle.result(Report, timeout=60)).text == "one"
    await bus.idle()
    assert works.done == ["one"]


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_a_result_that_can_never_be_told_does_not_come_again_for_ever(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "TELL_AGAIN", pausing(0.01, 0.01, 3))
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    await submit(bus, "works.once")
    await bus.idle()
    assert works.done == ["one"]
    assert await outcomes(bus) == [None, Code.REPLAYED, Code.REPLAYED]


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_what_is_not_claimed_is_not_delivered_again_to_tell_its_result(bus: TestBus, works: Works) -> None:
    """Another process might get it, and would handle it again."""
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    await submit(bus, "works.plain")
    await bus.idle()
    assert await outcomes(bus) == [None]
    bus.broker.fail("RESULTS", None)
    send_again(bus, "task.works.plain")
    await bus.idle()
    assert works.done == ["one"]
    assert len(bus.stored("RESULTS")) == 1


async def test_a_copy_gets_a_result_that_only_the_claim_keeps(bus: TestBus, works: Works) -> None:
    first = await submit(bus, "works.once", size=10_000, idempotency_key="k")
    await first.result(Report)
    copy = await submit(bus, "works.once", size=10_000, idempotency_key="k")
    assert len((await copy.result(Report)).text) == 10_003
    assert works.done == ["one"]


async def test_nothing_final_is_said_of_a_task_whose_other_copy_is_being_handled(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be wrong, and the first terminal status wins."""
    monkeypatch.setattr(effects, "BUSY_AGAIN", 3_600.0)
    first = await submit(bus, "works.wait", idempotency_key="k")
    await works.entered.wait()
    monkeypatch.setattr(ending, "UNTIL_EXPIRY", RetryPolicy(maximum_attempts=1))
    copy = await submit(bus, "works.wait", idempotency_key="k")
    await until(lambda: len(bus.stored("AUDIT")) == 3)  # two decisions, and what came of the copy
    assert await outcomes(bus) == [Code.REPLAYED]
    works.leave.set()
    await first.result(type(None), timeout=60)
    assert await bus.statuses(copy) == []


async def test_copies_of_what_is_being_handled_are_looked_at_ever_less_often(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is a decision and its record: a few hundred copies of one long task would fill the audit stream."""
    monkeypatch.setattr(effects, "BUSY_AGAIN", 0.015)
    monkeypatch.setattr(ending, "UNTIL_EXPIRY", pausing(0.01, 0.08, None))
    delays: list[float] = []
    retry = MemoryPull.retry

    def noted(self: MemoryPull, delivery: Delivery, delay: float) -> None:
        delays.append(delay)
        retry(self, delivery, delay)

    monkeypatch.setattr(MemoryPull, "retry", noted)
    await submit(bus, "works.wait", idempotency_key="k")
    await works.entered.wait()
    copy = await submit(bus, "works.wait", idempotency_key="k")
    await until(lambda: len(delays) >= 5)
    works.leave.set()
    await copy.result(type(None), timeout=60)
    assert delays[:5] == [0.015, 0.02, 0.04, 0.08, 0.08]


@pytest.mark.usefixtures("tell_soon", "impatient")
async def test_an_unknown_outcome_that_could_not_be_told_in_an_outage_is_told_after_it(
    bus: TestBus, works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_knows(self: effects.Effects, permitted: object) -> object:
        raise HandlingError(Code.OUTCOME_UNKNOWN, "its process died")

    monkeypatch.setattr(effects.Effects, "begin", nobody_knows)
    bus.broker.fail("RESULTS", BusUnavailable("away"))
    handle = await submit(bus, "works.once")
    counters = bus.workers["works"].node.counters
    await until(lambda: counters.value("sealbus_statuses_total", state="failed", outcome="bus_unavailable") > 0)
    bus.broker.fail("RESULTS", None)
    assert states(await told(handle))[-1] == (State.FAILED, "outcome_unknown")
    await bus.idle()
    assert works.done == []
    assert len(bus.stored("DEAD")) == 1
