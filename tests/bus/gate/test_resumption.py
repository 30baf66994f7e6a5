"""How a parked task goes on: by whom and how often it is tried, what its requester is told, and when nothing goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.engines import Verdict, deny
from support.envelopes import NOW, agent
from support.lab import until
from support.parked import parked_task, verdict
from support.payments import ASKED, Pay, Payments
from support.played import QUICK, Played, looked_at, play, submitted
from support.replicas import Fault, FaultyTransport, Replicas, hasten

from sealbus import Context, Retry
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.gate.opener import reopened_message
from sealbus.bus.gate.resumption import verdicts_in_force
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.approval import Verdict as Said
from sealbus.bus.stream_names import HELD, TASKS
from sealbus.bus.streams.declared import approval_durable
from sealbus.bus.streams.held import current_only
from sealbus.bus.work.approvals.marker import MARKER_TYPE
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked, ParkedState
from sealbus.bus.work.approvals.progress import ParkedProgress, ParkedStores
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import Code, EnvelopeError, InfrastructureError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.testing import TestBus


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.mark.parametrize(
    ("people", "each"), [(("boss",), 2), (("boss", "second"), 1), (tuple("abcdef"), 1)], ids=["same", "two", "six"]
)
@pytest.mark.parametrize("once", [True, False], ids=["once", "repeatable"])
async def test_approvals_at_two_replicas_have_it_done_once(people: tuple[str, ...], each: int, once: bool) -> None:
    played = await play({}, once=once, number=2, people=people, each=each)
    played.check(once=once)
    assert len(played.runs) == 1
    assert Counter(one for one, _ in played.payments.paid) == {"42": 1}


async def test_one_approval_delivered_to_two_replicas_is_counted_once() -> None:
    """The server gives the approval to another replica while the first one's handler still runs."""
    payments = Payments(once=True, timeout=5, retry=QUICK)
    payments.hold.clear()
    async with (
        TestBus(engine=payments.engine) as bus,
        Replicas(bus, payments.agent, payments.engine, number=2) as replicas,
    ):
        handle = await submitted(bus)
        await replicas.idle()
        await bus.approve(handle, "boss")
        await payments.begun.wait()
        versions = len(bus.stored(HELD))
        bus.broker.consumers[(TASKS, approval_durable("payments"))].lapse()
        await until(lambda: len(bus.stored(HELD)) > versions)
        payments.hold.set()
        await replicas.idle()
        played = Played(payments, replicas.faults)
        await looked_at(bus, handle, played)
    assert payments.paid == [("42", ("boss",))]
    assert played.final == [("completed", "")]
    assert [len(one.verdicts) for one in played.parked] == [1]
    assert [one.state for one in played.parked] == [ParkedState.ENDED]


@pytest.mark.parametrize("once", [True, False], ids=["once", "repeatable"])
async def test_an_approval_that_comes_again_while_it_is_under_way_here_is_not_counted_again(once: bool) -> None:
    """The server has waited for its acknowledgement long enough, and gives it to the process that works on it."""
    payments = Payments(once=once, retry=QUICK)
    payments.hold.clear()
    async with one_worker(payments) as (bus, replicas):
        first, second = await submitted(bus), await submitted(bus)
        await replicas.idle()
        await bus.approve(first, "boss")
        await payments.begun.wait()
        versions = parked_versions(bus, first)
        approvals = bus.broker.consumers[(TASKS, approval_durable("payments"))]
        approvals.settled.clear()
        approvals.lapse()
        await approvals.settled.wait()
        # What comes after it has gone on when it has.
        payments.begun.clear()
        await bus.approve(second, "boss")
        await payments.begun.wait()
        assert parked_versions(bus, first) == versions
        payments.hold.set()
        await replicas.idle()
        for handle in (first, second):
            await bus.assert_task(handle, "completed")
    assert len(payments.contexts) == 2
    assert payments.paid == [("42", ("boss",))] * 2


def parked_versions(bus: TestBus, handle: TaskHandle) -> int:
    """Return how often the parked task was stored."""
    return sum(one.subject.endswith(f".{handle.digest.hex()}") for one in bus.stored(HELD))


@asynccontextmanager
async def one_worker(payments: Payments) -> AsyncIterator[tuple[TestBus, Replicas]]:
    async with (
        TestBus(engine=payments.engine) as bus,
        Replicas(bus, payments.agent, payments.engine) as replicas,
    ):
        yield bus, replicas


@pytest.mark.parametrize("people", [1, 3])
@pytest.mark.parametrize("once", [True, False], ids=["once", "repeatable"])
async def test_a_handler_has_all_its_tries_after_the_last_approval(people: int, once: bool) -> None:
    payments = Payments(once=once, retry=QUICK, enough=people, fail=2)
    async with one_worker(payments) as (bus, replicas):
        handle = await submitted(bus)
        await replicas.idle()
        for one in range(people):
            await bus.approve(handle, f"boss-{one}")
            await replicas.idle()
        await bus.assert_task(handle, "completed")
    assert len(payments.contexts) == 3
    assert len(payments.paid) == 1


async def test_what_was_delivered_often_is_told_by_the_numbers_of_when_it_was_parked() -> None:
    """A reader takes no number below one that it has read: the result must have the highest."""
    payments = Payments()
    async with TestBus(engine=payments.engine) as bus:
        async with Replicas(bus, payments.agent, payments.engine) as replicas:
            handle = await submitted(bus)
            await replicas.idle()
        task = bus.broker.consumers[(TASKS, "payments")]
        task.rewind()
        async with aclosing(task.batches()) as batches:
            for number in range(1, 5):
                assert [one.number for one in await anext(batches)] == [number]
                task.lapse()
        async with Replicas(bus, payments.agent, payments.engine) as replicas:
            await replicas.idle()
            await bus.approve(handle, "boss")
            await replicas.idle()
        assert await handle.result(str, timeout=60) == "paid"
        assert [one.sequence for one in await bus.statuses(handle)] == [0, 131_071]


async def test_what_was_put_off_before_it_was_parked_is_no_try() -> None:
    payments = Payments(retry=QUICK, fail=9)
    async with one_worker(payments) as (bus, replicas):
        bus.broker.fail(HELD, InfrastructureError())
        handle = await submitted(bus)
        put_off = replicas.workers[0].node.counters
        await until(lambda: put_off.value("sealbus_parked_total", outcome="put_off") > 3)
        bus.broker.fail(HELD, None)
        await replicas.idle()
        await bus.approve(handle, "boss")
        await replicas.idle()
        await bus.assert_task(handle, "failed", "handler_failed")
    assert len(payments.contexts) == 3


async def test_after_the_last_try_the_tasks_own_bytes_are_a_dead_letter() -> None:
    payments = Payments(retry=QUICK, fail=9)
    async with one_worker(payments) as (bus, replicas):
        handle = await submitted(bus)
        await replicas.idle()
        await bus.approve(handle, "boss")
        await replicas.idle()
        played = Played(payments, replicas.faults)
        await looked_at(bus, handle, played)
    assert len(payments.contexts) == 3
    assert played.dead == [played.sent]
    assert played.final == [("failed", "handler_failed")]
    assert [one.state for one in played.parked] == [ParkedState.ENDED]
    assert played.ended == [True]
    assert not payments.paid


async def test_a_handler_may_ask_for_another_try() -> None:
    payments = Payments(retry=QUICK)
    asked: list[int] = []

    def later(ctx: Context) -> None:
        asked.append(len(ctx.approvals))
        if len(asked) < 3:
            raise Retry(after=0.01)

    payments.raises = later
    async with one_worker(payments) as (bus, replicas):
        handle = await submitted(bus)
        await replicas.idle()
        await bus.approve(handle, "boss")
        await replicas.idle()
        await bus.assert_task(handle, "completed")
    assert asked == [1, 1, 1]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


async def test_what_was_approved_in_time_is_tried_again_after_the_wait_has_ended() -> None:
    """And whoever reads later is told the same as who waited for it."""
    clock = Clock()
    payments = Payments(retry=QUICK, asked={**ASKED, "until": 60})

    def slow(ctx: Context) -> None:
        if len(payments.contexts) == 1:
            clock.forward(120)
            raise RuntimeError("down")

    payments.raises = slow
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "boss")
        await bus.idle()
        assert len(payments.paid) == 1
        text = handle.text
        await bus.assert_task(handle, "completed")
        clock.forward(7_200)
        again = (await bus.client("shop")).handle(text)
        assert await again.result(str, timeout=60) == "paid"


async def test_what_comes_back_to_a_queue_waits_there_again() -> None:
    """Managers, then their own manager, then managers: the place of the first wait holds one that has ended."""
    payments = Payments(enough=9)
    queues = ["managers", "manager", "Manager", "managers"]
    left = iter(queues)

    def next_queue(document: dict[str, Any]) -> Verdict | None:
        if "of" in document or document["action"]["name"] != "payments.pay":
            return None
        queue = next(left, None)
        return deny("over_limit", obligations=({**ASKED, "queue": queue},)) if queue is not None else None

    payments.decide = next_queue
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        for number, queue in enumerate(queues, start=1):
            [waiting] = await bus.waiting()
            assert (waiting.obligation.queue, waiting.verdicts) == (queue, ())
            if number == len(queues):
                payments.enough = 1
            await bus.approve(handle, f"of-{queue}")
            await bus.idle()
        await bus.assert_task(handle, "completed")
    assert payments.paid == [("42", ("of-managers",))]


async def test_a_cancel_that_comes_between_two_tries_ends_it_also_for_another_process() -> None:
    payments = Payments(retry=RetryPolicy(initial_interval=0.2, jitter=0.0, maximum_attempts=3), fail=1)
    async with one_worker(payments) as (bus, replicas):
        handle = await submitted(bus)
        await replicas.idle()
        await bus.approve(handle, "boss")
        counters = replicas.workers[0].node.counters
        await until(lambda: counters.value("sealbus_put_off_total", cause="passing") > 0)
        # The process that has put it off is gone when the cancel comes.
        for worker in replicas.workers.values():
            assert isinstance(worker.node.transport, FaultyTransport)
            worker.node.transport.killed.set()
        await until(lambda: replicas.killed > 0)
        await replicas.ready()
        await handle.cancel("a mistake")
        await replicas.idle()
        played = Played(payments, replicas.faults)
        await looked_at(bus, handle, played)
    assert played.final == [("canceled", "canceled")]
    assert not payments.paid
    assert [one.state for one in played.parked] == [ParkedState.ENDED]
    assert played.ended == [True]


async def read(bus: TestBus, text: str) -> list[tuple[str, str]]:
    """Return what a process that has nothing but the handle's text reads, until it knows how the task has ended."""
    handle = (await bus.client("shop")).handle(text)
    async with asyncio.timeout(60), aclosing(handle.statuses()) as statuses:
        return [(one.state.value, one.code) async for one in statuses]


async def test_a_handle_that_is_read_after_the_end_waits_as_long_as_the_task_does() -> None:
    clock = Clock()
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=7 * 86_400)
        assert handle.end < clock() + 2 * 86_400 * SECOND
        clock.forward(2 * 86_400)
        await bus.assert_task((await bus.client("shop")).handle(handle.text), "input-required", "approval_required")
        reading = asyncio.create_task(read(bus, handle.text))
        await asyncio.sleep(0)
        await bus.approve(handle, "boss")
        await bus.idle()
        assert (await reading)[-1] == ("completed", "")
        assert (await read(bus, handle.text))[-1] == ("completed", "")


async def test_a_handle_that_is_read_after_the_wait_has_expired() -> None:
    clock = Clock()
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=7 * 86_400)
        clock.forward(7 * 86_400 + 10)
        assert (await read(bus, handle.text))[-1] == ("expired", "expired")
    assert not payments.paid


@pytest.mark.parametrize("forger", ["pricing", "shop", ""])
async def test_a_marker_of_somebody_else_keeps_nobody_waiting(forger: str) -> None:
    clock = Clock()
    # No agent handles it, so that nothing is told.
    async with TestBus(engine=Payments().engine, clock=clock) as bus:
        client = await bus.client("shop")
        handle = await client.submit("payments.pay", Pay(), user=bus.user("alice", "shop"), wait=7 * 86_400)
        subject = f"held.payments.wait.shop.{handle.message_id}"
        if forger:
            node = (await bus.client(forger)).node
            own = f"held.{forger}.wait.shop.{handle.message_id}"
            keys: dict[str, Value] = {"dig": handle.digest, "unt": clock.now + 7 * 86_400 * SECOND, "end": False}
            assert await node.held.write(own, keys, MARKER_TYPE, node.identity.sealer()) is not None
            [stored] = [one.payload for one in bus.stored(HELD)]
            bus.broker.inject(subject, stored)
        else:
            bus.broker.inject(subject, b"junk")
        clock.forward((handle.end - clock.now) / SECOND + 10)
        assert (await read(bus, handle.text)) == [("expired", "expired")]


async def test_what_does_not_verify_any_more_is_not_handled() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        [parked] = await bus.waiting()
        node = bus.workers["payments"].node
        assert parked.value is not None
        forged = parked.envelope.replace(b"5000", b"5001")
        assert forged != parked.envelope
        stored = await node.held.write(
            parked.value.subject,
            parked.keys(),
            PARKED_TYPE,
            node.identity.sealer(),
            before=parked.value,
            extra=forged,
        )
        assert stored is not None
        await bus.approve(handle, "boss")
        await bus.idle()
        assert not await bus.waiting()
    assert not payments.contexts


async def test_it_is_opened_again_with_the_bundles_of_its_time() -> None:
    payments = Payments()
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        await payments.submitted(bus)
        [parked] = await bus.waiting()
        node = bus.workers["payments"].node
        profile = LiveProfile(
            own=node.own, names=bus.names, kinds=frozenset({Kind.TASK}), minters=bus.deployment.minters
        )
        gone, then = Trust(bundles=TrustBundles([])), node.trust()

        class Past:
            async def at(self, time: int) -> tuple[Trust, ...]:
                assert time == parked.arrival.stored
                return gone, then, gone

        async def opened(trust: Trust, past: Any) -> bytes:
            message = await reopened_message(parked, profile=profile, trust=trust, past=past, caches=Caches())
            return message.header.digest

        assert await opened(then, current_only) == parked.digest
        assert await opened(gone, Past()) == parked.digest
        with pytest.raises(EnvelopeError) as raised:
            await opened(gone, current_only)
        assert raised.value.code is Code.UNKNOWN_TRUST_DOMAIN
        # What the operator has revoked is not looked for in the past.
        revoked = replace(then, revoked_before={parked.header.iss: 1 << 52})
        with pytest.raises(EnvelopeError) as raised:
            await opened(revoked, Past())
        assert raised.value.code is Code.REVOKED
        with pytest.raises(SealError):
            replace(parked, record=b"")


async def test_that_it_has_ended_is_tried_to_be_stored_before_all_is_done_again() -> None:
    whole = await play({}, once=False)
    # The last two are its marker's end and its own.
    held = [place for place, stream in enumerate(whole.faults.stores, start=1) if stream == HELD][-2:]
    for place in held:
        played = await play({place: Fault.REFUSED, place + 1: Fault.REFUSED}, once=False)
        played.check(once=False)
        assert len(played.runs) == 1
        assert len(played.allowed) == 1


@pytest.mark.parametrize(("state", "ended"), [(ParkedState.ENDED, True), (ParkedState.WAITING, False), (None, False)])
async def test_what_somebody_else_has_stored_has_ended_only_if_that_says_so(
    state: ParkedState | None, ended: bool
) -> None:
    parked = parked_task()

    async def change(*_: object) -> None:
        return None

    async def find(_: bytes) -> Parked | None:
        return replace(parked, state=state) if state is not None else None

    async def put(*_: object, **__: object) -> None:
        return None

    fakes: Any = ParkedStores(
        tasks=cast("Any", SimpleNamespace(change=change, find=find)),
        markers=cast("Any", SimpleNamespace(put=put)),
        statuses=cast("Any", None),
    )
    assert await ParkedProgress(cast("Any", None), fakes, cast("Any", None)).end(parked) is ended


async def test_how_long_it_took_is_recorded() -> None:
    payments, now = Payments(), 1_790_000_000 * SECOND

    def clock() -> int:
        nonlocal now
        now += 1
        return now

    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "boss")
        await bus.idle()
        outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert len(outcomes) == 2
    assert all(one.micros > 0 for one in outcomes)


def test_what_the_operator_has_revoked_since_does_not_count() -> None:
    before, at, after = (verdict(user, issued=NOW + number) for number, user in ((-1, "a"), (0, "b"), (1, "c")))
    elsewhere = replace(before, edge=agent("edge-2"))
    taken_back = replace(after, verdict=Said.WITHDRAW)
    verdicts = [before, at, after, taken_back, elsewhere]
    assert verdicts_in_force(verdicts, {before.edge: NOW}) == [at, after, elsewhere]
