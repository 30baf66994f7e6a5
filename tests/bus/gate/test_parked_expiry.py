"""What nobody approved in time has expired, for every reader alike, whatever comes near the end of its wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest
from support.engines import Verdict
from support.floods import forged_value
from support.payments import ASKED, Payments
from support.replicas import hasten

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.clocks import HostClock
from sealbus.bus.gate.status_reader import StatusLimits
from sealbus.bus.inspection.tasks import TaskFilter, TaskList, task_subjects
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.bus.sending.status import State
from sealbus.bus.streams.held import FORGERIES
from sealbus.bus.work.approvals.marker import MARKER_TYPE, marker_subject
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, ParkedState, parse_parked
from sealbus.bus.work.approvals.progress import DECIDED_WITHIN
from sealbus.bus.work.status_writer import Statuses
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.trust.bundles import Trust
from sealbus.testing import TestBus

UNTIL = 600
"""Seconds for which the policy lets a task wait, which its requester would let wait for a week."""
WEEK = 7 * 86_400
SETTLE = 10
"""Seconds after which a reader concludes that the task has expired."""


class Clock:
    """A clock that stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    hasten(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def payments() -> Payments:
    return Payments(asked={**ASKED, "until": UNTIL})


def running(payments: Payments, clock: Clock) -> TestBus:
    return TestBus(payments.agent, engine=payments.engine, clock=clock)


async def listed(bus: TestBus, handle: TaskHandle, clock: Clock) -> str:
    """Return the state of a task in the list of an operator."""
    deployment, node = bus.deployment, (await bus.client("edge")).node
    profile = LiveProfile(
        own=node.own, names=bus.names, kinds=frozenset({Kind.TASK}), own_subjects=deployment.own_subjects,
        minters=deployment.minters,
    )  # fmt: skip
    tasks = TaskList(
        transport=bus.broker.connect(),
        profile=profile,
        trust=lambda: Trust(bundles=bus.edge.bundles()),
        clock=HostClock(clock),
    )
    last = len(bus.stored("TASKS"))
    async with aclosing(tasks.newest(task_subjects(profile), TaskFilter(), first=1, last=last, most=100)) as found:
        [state] = [one.status.state async for one in found if one.header.digest == handle.digest]
    return state


async def seen(bus: TestBus, handle: TaskHandle, clock: Clock) -> set[str]:
    """Return the states that all readers see, who have nothing but the handle's text, or the stream."""
    again = (await bus.client("shop")).handle(handle.text)
    newest = await again.status()
    states = {newest.state.value if newest is not None else "submitted", await listed(bus, handle, clock)}
    reading = again.statuses()
    async with asyncio.timeout(10), aclosing(reading):
        async for one in reading:
            # Whoever follows waits where those who look once do.
            if one.final or {one.state.value} == states:
                states.add(one.state.value)
                break
    return states


def unreadable(monkeypatch: pytest.MonkeyPatch, node: Node) -> Callable[..., Any]:
    """Have nobody at a node read HELD; return what reads it."""

    async def newest(*_: object, **__: object) -> dict[str, object]:
        raise BusUnavailable("away")

    true = node.held.newest
    monkeypatch.setattr(node.held, "newest", newest)
    return true


async def ended(bus: TestBus, handle: TaskHandle) -> list[ParkedState]:
    node = bus.workers["payments"].node
    found = await node.held.newest(f"held.payments.task.*.{handle.digest.hex()}", PARKED_TYPE)
    return [parse_parked(one).state for one in found.values()]


async def test_what_nobody_approved_in_time_has_expired_ten_seconds_later(payments: Payments, clock: Clock) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until + SETTLE * SECOND - 1_000
        assert await seen(bus, handle, clock) == {"input-required"}
        clock.forward(0.002)
        assert await seen(bus, handle, clock) == {"expired"}
        with pytest.raises(CallExpired):
            await handle.result(timeout=5)
        assert [one.code for one in await bus.statuses(handle)][-1] == "expired"


async def test_who_follows_is_told_in_time(payments: Payments, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before the clocks of two hosts can no longer disagree about it."""
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        reader = (await bus.client("shop")).node.status_reader
        monkeypatch.setattr(reader, "limits", StatusLimits(parked=0.2))
        clock.now = parked.until - 1_000
        async with asyncio.timeout(10), aclosing(handle.statuses()) as statuses:
            assert (await anext(statuses)).state is State.INPUT_REQUIRED
            following = asyncio.ensure_future(anext(statuses))
            await asyncio.sleep(0)
            assert not following.done()
            clock.forward(1)
            assert (await following).state is State.EXPIRED


async def test_a_verdict_shortly_before_the_end_is_waited_for_by_all(payments: Payments, clock: Clock) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        payments.hold.clear()

        clock.now = parked.until - SECOND
        passed: list[set[str]] = []

        def slowly(document: dict[str, Any]) -> Verdict | None:
            # The policy is asked about the task itself: the verdict was counted.
            if "of" not in document and document["context"].get("approvals"):
                clock.now = max(clock.now, parked.until + 2 * SETTLE * SECOND)
            return None

        payments.decide = slowly
        await bus.approve(handle, "boss")
        await payments.begun.wait()
        passed.append(await seen(bus, handle, clock))
        payments.hold.set()
        await bus.idle()
        assert passed == [{"input-required"}]
        assert await seen(bus, handle, clock) == {"completed"}
        clock.forward(WEEK)
        assert await handle.result(str, timeout=5) == "paid"
    assert payments.paid == [("42", ("boss",))]


async def test_a_verdict_that_is_not_decided_on_in_time_does_nothing(payments: Payments, clock: Clock) -> None:
    """Whoever read in between was told that the task has expired: nobody is told anything else."""
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until - SECOND

        def slowly(document: dict[str, Any]) -> Verdict | None:
            if "of" not in document and document["context"].get("approvals"):
                clock.now = max(clock.now, parked.until + DECIDED_WITHIN + SETTLE * SECOND)
            return None

        payments.decide = slowly
        await bus.approve(handle, "boss")
        await bus.idle()
        assert await seen(bus, handle, clock) == {"expired"}
        assert await ended(bus, handle) == [ParkedState.ENDED]
    assert not payments.paid


@pytest.mark.parametrize("stored", [True, False], ids=["stored late", "not stored"])
async def test_a_verdict_counts_only_once_every_reader_will_wait_for_it(
    payments: Payments, clock: Clock, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until - SECOND
        held = bus.workers["payments"].node.held
        true, begun = held.write, False

        async def write(subject: str, *arguments: Any, **named: Any) -> object:
            nonlocal begun
            if ".wait." in subject and not begun:
                begun = True
                clock.now = parked.until + SETTLE * SECOND
                if not stored:
                    raise BusUnavailable("away")
            return await true(subject, *arguments, **named)

        monkeypatch.setattr(held, "write", write)
        with pytest.raises(RemoteError) as refused:
            await bus.approve(handle, "boss")
        assert refused.value.code == "approval_closed"
        await bus.idle()
        assert await seen(bus, handle, clock) == {"expired"}
    assert begun
    assert not payments.paid


@pytest.mark.parametrize("verdict", ["deny", "cancel"])
async def test_what_is_told_after_the_end_is_told_to_nobody(payments: Payments, clock: Clock, verdict: str) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until + SETTLE * SECOND
        assert await seen(bus, handle, clock) == {"expired"}
        if verdict == "cancel":
            await handle.cancel("too late")
        else:
            with pytest.raises(LookupError):
                await bus.approve(handle, "boss", verdict="deny")
        await bus.idle()
        assert await seen(bus, handle, clock) == {"expired"}


async def test_a_terminal_status_that_was_stored_after_the_end_counts_for_nobody(
    payments: Payments, clock: Clock
) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        worker = bus.workers["payments"]
        statuses = Statuses(names=bus.names, outbox=worker.node.outbox, counters=worker.node.counters)
        clock.now = parked.until + 1
        assert await statuses.of(parked.header, 2).tell(State.FAILED, code="late")
        assert await seen(bus, handle, clock) == {"input-required"}
        clock.forward(SETTLE)
        assert await seen(bus, handle, clock) == {"expired"}
        clock.forward(86_400)
        assert await seen(bus, handle, clock) == {"expired"}


async def test_a_shorter_wait_that_is_asked_for_anew_counts_for_readers(payments: Payments, clock: Clock) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        payments.asked = {**ASKED, "text": "Pay ACME, now", "until": 60}
        payments.enough = 2
        await bus.approve(handle, "boss")
        await bus.idle()
        [parked] = await bus.waiting()
        assert await seen(bus, handle, clock) == {"input-required"}
        clock.now = parked.until + SETTLE * SECOND
        assert await seen(bus, handle, clock) == {"expired"}


async def test_the_first_of_two_verdicts_does_not_make_readers_wait_for_longer(
    payments: Payments, clock: Clock
) -> None:
    payments.enough = 2
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until - SECOND
        await bus.approve(handle, "boss")
        await bus.idle()
        assert await seen(bus, handle, clock) == {"input-required"}
        clock.now = parked.until + SETTLE * SECOND
        assert await seen(bus, handle, clock) == {"expired"}


async def test_what_still_waits_when_its_time_is_over_ends(payments: Payments, clock: Clock) -> None:
    """The first of two verdicts was counted in time, and the policy asks for the second one when it is too late."""
    payments.enough = 2
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        [parked] = await bus.waiting()
        clock.now = parked.until - SECOND

        def slowly(document: dict[str, Any]) -> Verdict | None:
            if "of" not in document and document["context"].get("approvals"):
                clock.now = max(clock.now, parked.until + SETTLE * SECOND)
            return None

        payments.decide = slowly
        await bus.approve(handle, "boss")
        await bus.idle()
        assert await seen(bus, handle, clock) == {"expired"}
        assert await ended(bus, handle) == [ParkedState.ENDED]


@pytest.mark.parametrize("follow", [True, False])
async def test_no_end_is_told_while_it_is_not_known_until_when_the_task_waited(
    payments: Payments, clock: Clock, follow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        await bus.approve(handle, "boss")
        await bus.idle()
        shop = (await bus.client("shop")).node
        quick = StatusLimits(backoff=Backoff(initial_interval=0.001, maximum_interval=0.01), marker_tries=3)
        monkeypatch.setattr(shop.status_reader, "limits", quick)
        unreadable(monkeypatch, shop)
        again: Callable[[], Any] = (lambda: handle.result(str, timeout=5)) if follow else handle.status
        with pytest.raises(BusUnavailable):
            await again()
        clock.forward(WEEK)
        with pytest.raises(BusUnavailable):
            await again()
        monkeypatch.undo()
        assert await handle.result(str, timeout=5) == "paid"


async def test_who_follows_waits_for_what_is_not_known_now(
    payments: Payments, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        shop = (await bus.client("shop")).node
        quick = StatusLimits(backoff=Backoff(initial_interval=0.001, maximum_interval=0.01), parked=0.1)
        monkeypatch.setattr(shop.status_reader, "limits", quick)
        true = unreadable(monkeypatch, shop)
        [parked] = [one for one in [await handle.status()] if one is not None]
        assert parked.state is State.INPUT_REQUIRED
        reading = asyncio.ensure_future(handle.result(str, timeout=8))
        await asyncio.sleep(0.02)
        monkeypatch.setattr(shop.held, "newest", true)
        clock.forward(UNTIL + 1)
        with pytest.raises(CallExpired):
            await reading


async def test_a_marker_that_cannot_be_known_hides_no_other_task(payments: Payments, clock: Clock) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        other = await payments.submitted(bus, wait=WEEK, invoice="43")
        place, agent = (
            marker_subject("payments", "shop", bytes.fromhex(handle.message_id)),
            bus.workers["payments"].node,
        )
        stranger = (await bus.client("shop")).node.identity.sealer()
        forged = forged_value(place, agent.own, MARKER_TYPE, stranger, at=agent.clock())
        for _ in range(FORGERIES + 1):
            bus.broker.inject(place, forged)
        clock.forward(UNTIL + SETTLE + 1)
        assert await listed(bus, other, clock) == "expired"
        assert await listed(bus, handle, clock) == "input-required"


async def test_tasks_are_listed_where_nobody_may_ask_until_when_they_wait(
    payments: Payments, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(payments, clock) as bus:
        handle = await payments.submitted(bus, wait=WEEK)
        clock.forward(UNTIL + SETTLE + 1)

        async def refused(*_: object, **__: object) -> None:
            raise BusUnavailable("not permitted")

        with monkeypatch.context() as patched:
            patched.setattr("sealbus.bus.inspection.tasks.marker_of", refused)
            assert await listed(bus, handle, clock) == "input-required"
        assert await listed(bus, handle, clock) == "expired"


def test_a_reader_gives_two_clocks_their_skew() -> None:
    assert StatusLimits().parked == SETTLE
