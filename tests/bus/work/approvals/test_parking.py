"""What is parked, and what is denied plainly: by its obligation, its kind, its size, and how many somebody has asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.engines import ScriptedEngine, Verdict, deny
from support.lab import until
from support.parked import parked_task
from support.payments import ASKED, Pay, Payments
from support.replicas import Replicas

from sealbus import Agent, Context
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.sending.approval import LONGEST_WAIT, WAIT
from sealbus.bus.stream_names import HELD, RESULTS, TASKS
from sealbus.bus.work.approvals import parking
from sealbus.bus.work.approvals.parking import A_MINUTE, MINUTE, _waits_until
from sealbus.envelopes.errors import InfrastructureError
from sealbus.envelopes.limits import SECOND
from sealbus.testing import TestBus


class Clock:
    """A clock that a test moves; it begins with a minute."""

    def __init__(self) -> None:
        self.now = (1_790_000_000 * SECOND // MINUTE) * MINUTE

    def __call__(self) -> int:
        self.now += 1
        return self.now


@asynccontextmanager
async def running(payments: Payments, **options: Any) -> AsyncIterator[TestBus]:
    async with TestBus(payments.agent, engine=payments.engine, **options) as bus:
        yield bus


async def test_it_waits_as_long_as_the_shortest_says() -> None:
    clock = Clock()
    payments = Payments()
    async with running(payments, clock=clock) as bus:
        await payments.submitted(bus)
        [by_end] = await bus.waiting()
        assert by_end.until == by_end.header.end
    payments = Payments(asked={**ASKED, "until": 60})
    async with running(payments, clock=clock) as bus:
        await payments.submitted(bus, wait=600)
        [by_policy] = await bus.waiting()
        assert by_policy.until == by_policy.since + 60 * SECOND
    payments = Payments(asked={**ASKED, "until": 2_592_000})
    async with running(payments, clock=clock) as bus:
        await payments.submitted(bus, wait=7_200)
        [by_requester] = await bus.waiting()
        assert by_requester.until < by_requester.since + 7_201 * SECOND
        assert by_requester.until < by_requester.arrival.stored + LONGEST_WAIT


@pytest.mark.parametrize(
    "obligations",
    [
        (),
        ({"type": "remedy", "kind": "ask", "whom": "boss"},),
        ({**ASKED, "queue": "no token"},),
        ({**ASKED, "until": 0},),
        (ASKED, ASKED),
    ],
    ids=str,
)
async def test_a_denial_without_one_well_formed_obligation_is_plain(obligations: tuple[dict[str, object], ...]) -> None:
    payments = Payments(decide=lambda _: deny("no", obligations=obligations))
    async with running(payments) as bus:
        handle = await payments.submitted(bus)
        await bus.assert_task(handle, "rejected", "denied")
        assert not await bus.waiting()


async def test_a_call_never_waits() -> None:
    payments = Payments()

    @payments.agent.call("ask")
    async def ask(body: Pay, ctx: Context) -> str:
        return "never"

    payments.decide = lambda document: (
        deny("no", obligations=(ASKED,)) if document["action"]["name"] == "payments.ask" else None
    )
    async with running(payments) as bus:
        with pytest.raises(Exception, match="den"):
            await (await bus.client("shop")).call("payments.ask", Pay(), returns=str)
        assert not await bus.waiting()


@pytest.mark.parametrize("bound", ["ENVELOPE_BYTES", "INPUT_BYTES"])
async def test_what_is_too_large_is_denied_plainly(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    payments = Payments()
    monkeypatch.setattr(parking, bound, 0)
    async with running(payments) as bus:
        handle = await payments.submitted(bus)
        await bus.assert_task(handle, "rejected", "denied")
        [denied] = await bus.decisions("payments.pay")
        [sent] = [one for one in bus.stored(TASKS) if one.subject == "task.payments.pay"]
        size = len(sent.payload) if bound == "ENVELOPE_BYTES" else len(denied.input or b"")
        for most, waits in ((size - 1, 0), (size, 1)):
            monkeypatch.setattr(parking, bound, most)
            bus.broker.consumers[(TASKS, "payments")].rewind()
            await bus.idle()
            assert len(await bus.waiting()) == waits


@pytest.mark.parametrize("asked", [0, -1, True, "soon", 1])
def test_only_a_time_is_a_mark_of_how_long_it_waits(asked: Any) -> None:
    header = parked_task().header
    bare = _waits_until(header)
    assert bare == header.end
    marked = header._replace(ext={WAIT: asked})
    assert _waits_until(marked) == (1 if asked == 1 and asked is not True else bare)
    assert _waits_until(header._replace(ext={WAIT: 1 << 52})) == header.iat + LONGEST_WAIT
    assert _waits_until(header._replace(end=None)) == header.exp


async def test_one_user_of_one_requester_has_so_many_a_minute() -> None:
    clock, payments = Clock(), Payments()
    async with running(payments, clock=clock, limits=WorkerLimits(parked_a_minute=2)) as bus:

        async def waiting(**options: Any) -> bool:
            handle = await payments.submitted(bus, **options)
            return handle.digest in {one.digest for one in await bus.waiting()}

        assert [await waiting() for _ in range(3)] == [True, True, False]
        assert await waiting(user="bob")
        assert await waiting(client="pricing")
        clock.now += MINUTE
        assert [await waiting() for _ in range(3)] == [True, True, False]
    assert A_MINUTE == 20


async def test_so_many_users_are_counted_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "_KNOWN", 2)
    clock, payments = Clock(), Payments()
    async with running(payments, clock=clock) as bus:
        for user, waits in (("a", 1), ("b", 2), ("c", 2), ("a", 3)):
            await payments.submitted(bus, user=user)
            assert len(await bus.waiting()) == waits


async def deliver_again(bus: TestBus) -> None:
    """Deliver the one task once more, as a server does that lost its acknowledgement."""
    task = bus.broker.consumers[(TASKS, "payments")]
    [stored] = [one for one in bus.stored(TASKS) if one.subject == "task.payments.pay"]
    task.repeat(stored.sequence)
    await bus.idle()


async def test_what_is_delivered_again_needs_no_budget() -> None:
    clock, payments = Clock(), Payments()
    async with running(payments, clock=clock, limits=WorkerLimits(parked_a_minute=1)) as bus:
        first = await payments.submitted(bus)
        await deliver_again(bus)
        await bus.assert_task(first, "input-required", "approval_required")
        assert len(await bus.waiting()) == 1


async def test_what_a_consumer_without_its_state_delivers_again_is_not_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, payments = Clock(), Payments()
    async with running(payments, clock=clock, limits=WorkerLimits(parked_a_minute=2)) as bus:
        tasks = [await payments.submitted(bus) for _ in range(3)]
        # As if for the first time: the same two wait, whoever is looked at first, and the third stays denied.
        bus.broker.consumers[(TASKS, "payments")].rewind()
        await bus.idle()
        assert {one.digest for one in await bus.waiting()} == {one.digest for one in tasks[:2]}
        rejected = [one.subject for one in bus.stored(RESULTS) if b"rejected" in one.payload]
        assert len(rejected) == 2
        assert {subject.rpartition(".")[2] for subject in rejected} == {tasks[2].message_id}


async def test_what_is_put_off_is_charged_once() -> None:
    payments, limits = Payments(), WorkerLimits(parked_a_minute=1)
    async with (
        TestBus(engine=payments.engine, clock=Clock()) as bus,
        Replicas(bus, payments.agent, payments.engine, limits=limits) as replicas,
    ):
        counters = replicas.workers[0].node.counters
        bus.broker.fail(HELD, InfrastructureError())
        shop, alice = await bus.client("shop"), bus.user("alice", "shop")
        first = await shop.submit("payments.pay", Pay(invoice="1"), user=alice)
        await until(lambda: counters.value("sealbus_parked_total", outcome="put_off") > 0)
        bus.broker.fail(HELD, None)
        # The budget is used up when the first comes again.
        await shop.submit("payments.pay", Pay(invoice="2"), user=alice)
        await replicas.idle()
        assert {one.digest for one in await bus.waiting()} == {first.digest}
        assert counters.value("sealbus_parked_total", outcome="over_budget") == 1


def decided_by(verdict: Verdict) -> Callable[[dict[str, Any]], Verdict]:
    return lambda _: verdict


async def test_an_event_waits_for_nobody() -> None:
    agent = Agent("payments")

    @agent.on("event.shop.ordered")
    async def ordered(body: Pay, ctx: Context) -> None:
        raise AssertionError

    denied = deny("over_limit", obligations=(ASKED,))
    async with TestBus(agent, engine=ScriptedEngine(lambda _: denied)) as bus:
        await (await bus.client("shop")).emit("ordered", Pay())
        await bus.idle()
        await bus.assert_denied("shop.ordered", "denied")
        assert not await bus.waiting()
        assert bus.stored(HELD) == []


async def test_what_has_ended_is_not_asked_about_again() -> None:
    payments = Payments()
    async with running(payments) as bus:
        handle = await payments.submitted(bus)
        await bus.approve(handle, "boss")
        await bus.idle()
        assert payments.paid == [("42", ("boss",))]
        told = await bus.statuses(handle)
        await deliver_again(bus)
        # And as the first delivery, by a server that has lost all it knew of its consumers.
        bus.broker.consumers[TASKS, "payments"].rewind()
        await bus.idle()
        assert await bus.statuses(handle) == told
        assert not await bus.waiting()
    assert len(payments.paid) == 1


async def test_an_allow_that_asks_for_an_approval_is_no_denial_to_be_parked() -> None:
    allowed = replace(deny("x", obligations=(ASKED,)), allow=True)
    payments = Payments(decide=decided_by(allowed))
    async with running(payments) as bus:
        handle = await payments.submitted(bus)
        await bus.assert_task(handle, "rejected", "obligation_unknown")
        assert not await bus.waiting()
