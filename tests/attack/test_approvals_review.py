"""What a review of approvals found: values that an agent makes up, stores that fail halfway, and decisions that change.

Each test is what went wrong: a worker or a queue that one value brought down, a task that got stuck, or one whose requester
was told something else than happened.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from support.engines import deny
from support.floods import forged_value
from support.lab import until
from support.payments import ASKED, Payments

from sealbus.agents.edge.v1 import approvals as shown
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.audit.redaction import Recording
from sealbus.bus.audit.writer import AuditLimits
from sealbus.bus.ports import Delivery
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.bus.sending.approval import Verdict
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.held import FORGERIES, HeldValue
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE
from sealbus.envelopes.encoding.codec import Value
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext, parse_payload
from sealbus.testing import TestBus


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
async def bus(payments: Payments) -> AsyncIterator[TestBus]:
    async with TestBus(payments.agent, engine=payments.engine) as running:
        yield running


class Clock:
    """A clock that stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: int) -> None:
        self.now += seconds * SECOND


def boss(bus: TestBus) -> UserContext:
    return parse_payload(bus.user("boss", "edge").payload)


async def waiting(bus: TestBus) -> ParkedTaskReader:
    return ParkedTaskReader((await bus.client("edge")).node)


async def rewritten(bus: TestBus, handle: TaskHandle, **changed: Any) -> None:
    """Have the agent itself store another record of its parked task, as if it had gone bad."""
    [parked] = [one for one in await bus.waiting() if one.digest == handle.digest]
    node = bus.workers["payments"].node
    keys: dict[str, Value] = {**parked.keys(), "rec": parked.decision._replace(**changed).encode()}
    assert parked.value is not None
    assert await node.held.write(
        parked.value.subject,
        keys,
        PARKED_TYPE,
        node.identity.sealer(),
        before=parked.value,
        extra=parked.envelope,
    )


DEEP = b"[" * 20_000 + b"]" * 20_000


@pytest.mark.parametrize(
    "changed",
    [
        {"obligations": b"[1]"},
        {"obligations": b"{}"},
        {"obligations": b"7"},
        {"obligations": DEEP},
        {"obligations": json.dumps([{**ASKED, "until": float("inf")}]).encode()},
        {"input": b"no document"},
        {"input": DEEP},
        {"input": b'{"action":"pay"}'},
        {"input": b'{"action":{"properties":[]},"resource":7}'},
    ],
)
async def test_what_one_agent_makes_up_does_not_hide_what_others_parked(
    bus: TestBus, payments: Payments, changed: dict[str, Any]
) -> None:
    bad, good = await payments.submitted(bus), await payments.submitted(bus, invoice="43")
    await rewritten(bus, bad, **changed)
    edge = await waiting(bus)
    page = await edge.page("managers", boss(bus))
    documents = [one.document() for one in page.tasks]
    assert good.digest.hex() in [one["id"] for one in documents]
    await edge.find_task(bad.digest, boss(bus))
    await edge.ended(bad.digest, boss(bus))


async def test_a_document_that_is_too_large_for_one_person_does_not_end_their_page(
    bus: TestBus, payments: Payments
) -> None:
    await payments.submitted(bus)
    claims = {f"claim{number}": "x" * 240 for number in range(400)}
    context = boss(bus)
    page = await (await waiting(bus)).page("managers", replace(context, clm=claims))
    assert not page.tasks


def flood(bus: TestBus, subject: str) -> None:
    """Store more forgeries under a subject of the pricing agent's than a reader looks at."""
    own, sealer = bus.names.id_of("pricing"), bus.workers["payments"].node.identity.sealer()
    forged = forged_value(subject, own, PARKED_TYPE, sealer, at=bus.workers["payments"].node.clock())
    for _ in range(FORGERIES + 1):
        bus.broker.inject(subject, forged)


async def test_a_subject_that_was_flooded_does_not_hide_the_rest_of_its_queue(bus: TestBus, payments: Payments) -> None:
    good = await payments.submitted(bus)
    flooded = f"held.pricing.task.managers.{'0' * 64}"
    flood(bus, flooded)
    page = await (await waiting(bus)).page("managers", boss(bus))
    assert [one.parked.digest for one in page.tasks] == [good.digest]


async def test_another_agents_flood_does_not_keep_a_task_from_being_found(bus: TestBus, payments: Payments) -> None:
    good = await payments.submitted(bus)
    flood(bus, f"held.pricing.task.managers.{good.digest.hex()}")
    found = await (await waiting(bus)).find_task(good.digest, boss(bus))
    assert found is not None
    assert found.parked.digest == good.digest


async def test_a_page_looks_at_so_much_and_no_more(bus: TestBus, payments: Payments) -> None:
    for _ in range(shown.PAGE_LIMITS.looked_at + 1):
        bus.broker.inject(f"held.pricing.task.managers.{'0' * 64}", b"")
    good = await payments.submitted(bus)
    edge = await waiting(bus)
    page = await edge.page("managers", boss(bus))
    assert page.after
    page = await edge.page("managers", boss(bus), after=page.after)
    assert [one.parked.digest for one in page.tasks] == [good.digest]
    assert not page.after


async def test_who_may_see_nothing_costs_nothing_but_a_question(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    await payments.submitted(bus)
    payments.may = lambda _: False

    async def reopened(*_: object, **__: object) -> None:
        raise AssertionError("a task was verified for somebody who may not see it")

    monkeypatch.setattr(shown, "reopened_message", reopened)
    assert not (await (await waiting(bus)).page("managers", boss(bus))).tasks


async def test_a_body_that_is_no_json_for_a_browser_is_shown_as_bytes(bus: TestBus, payments: Payments) -> None:
    client = await bus.client("shop")
    for amount in ('5000,"x":NaN', '5000,"x":1e999', '5000,"x":' + "[" * 150 + "]" * 150, '1,"amount":5000'):
        body = f'{{"invoice":"42","amount":{amount}}}'.encode()
        await client.submit("payments.pay", Content(body=body, typ="application/json"), user=bus.user("alice", "shop"))
    await bus.idle()
    page = await (await waiting(bus)).page("managers", boss(bus))
    assert len(page.tasks) == 4
    for one in page.tasks:
        document = one.document()
        json.dumps(document, allow_nan=False)
        shown_body = document["body"]
        assert isinstance(shown_body, dict)
        assert "base64" in shown_body


@pytest.mark.parametrize("error", [ConfigurationError("no HELD"), BusUnavailable("away")])
async def test_a_held_that_is_gone_does_not_end_the_worker(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch, error: SealbusError
) -> None:
    node = bus.workers["payments"].node
    true = node.held.write

    tries, again = [0], asyncio.Event()

    async def write(*_: object, **__: object) -> None:
        tries[0] += 1
        if tries[0] > 1:
            again.set()
        raise error

    monkeypatch.setattr(node.held, "write", write)
    context = bus.user("alice", "shop")
    handle = await (await bus.client("shop")).submit("payments.pay", {"invoice": "42"}, user=context)
    async with asyncio.timeout(60):
        await again.wait()
    monkeypatch.setattr(node.held, "write", true)
    await bus.idle()
    await bus.assert_task(handle, "input-required", "approval_required")


async def test_an_approval_is_tried_again_while_cancels_cannot_be_looked_up(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await payments.submitted(bus)
    node = bus.workers["payments"].node
    true, left = node.held.newest, [1]

    async def newest(pattern: str, *arguments: Any, **named: Any) -> object:
        if ".stop." in pattern and left:
            left.pop()
            raise BusUnavailable("away")
        return await true(pattern, *arguments, **named)

    monkeypatch.setattr(node.held, "newest", newest)
    await bus.approve(handle, "boss")
    await bus.idle()
    assert payments.paid


async def test_obligations_that_no_record_can_hold_end_no_worker(bus: TestBus, payments: Payments) -> None:
    many: tuple[dict[str, object], ...] = tuple({"type": "note", "texts": ["ä" * 250] * 15} for _ in range(15))
    payments.decide = lambda _: deny("over_limit", obligations=(ASKED, *many))
    context = bus.user("alice", "shop")
    await (await bus.client("shop")).submit("payments.pay", {"invoice": "42"}, user=context)
    counters = bus.workers["payments"].node.counters
    await until(lambda: counters.value("sealbus_put_off_total", cause="passing") > 0)
    assert bus.workers["payments"].ready.is_set()
    payments.decide = lambda _: None
    handle = await payments.submitted(bus)
    await bus.assert_task(handle, "input-required", "approval_required")


async def test_a_task_that_moves_to_another_queue_and_back_can_be_approved(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    for queue in ("directors", "managers", "directors"):
        payments.asked = {**ASKED, "queue": queue}
        payments.enough = 2
        await bus.approve(handle, "boss")
        await bus.idle()
        [parked] = await bus.waiting()
        assert parked.obligation.queue == queue
    payments.enough = 1
    await bus.approve(handle, "boss")
    await bus.idle()
    assert payments.paid == [("42", ("boss",))]


async def test_a_move_that_was_interrupted_is_finished(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await payments.submitted(bus)
    payments.asked = {**ASKED, "queue": "directors"}
    payments.enough = 2
    node = bus.workers["payments"].node
    true = node.held.write
    failed: list[str] = []

    async def write(subject: str, keys: dict[str, Value], *arguments: Any, **named: Any) -> HeldValue | None:
        if keys.get("sta") == "ended" and not failed:
            failed.append(subject)
            raise BusUnavailable("away")
        return await true(subject, keys, *arguments, **named)

    monkeypatch.setattr(node.held, "write", write)
    await bus.approve(handle, "boss")
    await bus.idle()
    assert failed
    [parked] = await bus.waiting()
    assert parked.obligation.queue == "directors"
    payments.enough = 1
    await bus.approve(handle, "director")
    await bus.idle()
    assert payments.paid == [("42", ("director",))]


async def test_a_shorter_time_that_is_asked_for_anew_counts(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=7 * 86_400)
        payments.asked = {**ASKED, "text": "Pay ACME, now", "until": 60}
        payments.enough = 2
        await bus.approve(handle, "boss")
        await bus.idle()
        [parked] = await bus.waiting()
        assert parked.until <= clock.now + 60 * SECOND
        clock.forward(61)
        assert not await bus.waiting()


async def test_tries_of_a_handler_do_not_count_the_approvals_before(bus: TestBus, payments: Payments) -> None:
    payments.enough, payments.fail = 3, 2
    handle = await payments.submitted(bus)
    for one in ("a", "b", "c"):
        await bus.approve(handle, one)
        await bus.idle()
    # The handler is tried three times: it fails twice.
    assert payments.paid == [("42", ("a", "b", "c"))]
    await bus.assert_task(handle, "completed")


async def test_a_result_after_the_wait_is_found_by_who_asks_later(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=3 * 86_400)
        payments.hold.clear()
        clock.forward(3 * 86_400 - 60)
        await bus.approve(handle, "boss")
        await payments.begun.wait()
        clock.forward(120)
        payments.hold.set()
        await bus.idle()
        assert payments.paid
        clock.forward(2_000)
        again = (await bus.client("shop")).handle(handle.text)
        assert await again.result(str, timeout=60) == "paid"


@pytest.mark.parametrize("later", [Verdict.DENY, Verdict.WITHDRAW])
async def test_a_verdict_that_was_taken_back_does_not_come_back_with_a_redelivery(
    bus: TestBus, payments: Payments, later: Verdict
) -> None:
    payments.enough = 2
    payments.decide = lambda document: (
        deny("over_limit", obligations=(ASKED,))
        if "of" not in document and len(document["context"]["approvals"]) < 2
        else None
    )
    handle = await payments.submitted(bus)
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.approve(handle, "boss", verdict=later.value)
    await bus.idle()
    approvals = [one for one in bus.stored("TASKS") if one.subject == "control.payments.approve"]
    assert len(approvals) == 2
    for one in approvals:
        await delivered_again(bus, one)
        [parked] = await bus.waiting()
        assert [one.verdict for one in parked.verdicts] == [later]
    # What another person says now is the first that counts.
    await bus.approve(handle, "director")
    await bus.idle()
    assert not payments.paid


async def delivered_again(bus: TestBus, approval: Delivery) -> None:
    """Deliver an approval as if its process had died before it acknowledged, or the server had lost that."""
    bus.broker.consumers["TASKS", "id-apr-payments"].repeat(approval.sequence)
    await bus.idle()


async def test_who_withdrew_may_approve_again_and_is_one_person(bus: TestBus, payments: Payments) -> None:
    payments.enough = 2
    handle = await payments.submitted(bus)
    for verdict in ("approve", "withdraw", "approve", "withdraw"):
        await bus.approve(handle, "boss", verdict=verdict)
        await bus.idle()
        [parked] = await bus.waiting()
        assert [one.verdict.value for one in parked.verdicts] == [verdict]
    with pytest.raises(RemoteError, match="approval_closed"):
        await bus.approve(handle, "boss", verdict="withdraw")


async def test_a_task_ends_where_its_approval_could_not_be_gone_on_with(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=7 * 86_400)

        def away(document: dict[str, Any]) -> None:
            if "of" not in document:
                clock.forward(100_000)
                raise BusUnavailable("the engine is away")

        payments.decide = away
        with pytest.raises(CallExpired):
            await bus.approve(handle, "boss")
        await bus.idle()
        payments.decide = lambda document: None
        assert not await bus.waiting()
        with pytest.raises(CallExpired):
            await (await bus.client("shop")).handle(handle.text).result(str, timeout=5)
        with pytest.raises(LookupError):
            await bus.approve(handle, "director")
        assert not payments.paid


async def test_a_denial_after_approvals_is_recorded_whatever_is_only_counted(payments: Payments) -> None:
    async with TestBus(payments.agent, engine=payments.engine, audit_limits=AuditLimits(denials=1)) as bus:
        handle = await payments.submitted(bus)
        payments.decide = lambda document: None if "of" in document else deny("not_today")
        for _ in range(3):
            await payments.submitted(bus)
        await bus.approve(handle, "boss")
        await bus.idle()
        decided = [one for one in await bus.decisions("payments.pay") if b'"boss"' in (one.input or b"")]
        assert [one.allow for one in decided] == [False]


async def test_who_was_told_that_a_task_expired_does_not_see_it_done(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        node = bus.workers["payments"].node
        true = node.held.write

        async def write(subject: str, *arguments: Any, **named: Any) -> object:
            if ".wait." in subject:
                clock.forward(100_000)
                raise BusUnavailable("away")
            return await true(subject, *arguments, **named)

        monkeypatch.setattr(node.held, "write", write)
        handle = await payments.submitted(bus, wait=7 * 86_400)
        assert not payments.paid
        assert not await bus.waiting()
        del handle


async def test_what_is_redacted_by_now_is_not_asked_about_anew(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    bus.workers["payments"].node.audit.recording = Recording({"task.payments.>": ["/context/user/id"]})
    payments.asked = {**ASKED, "queue": "directors"}
    payments.enough = 2
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.assert_task(handle, "rejected", "denied")
    assert not await bus.waiting()


async def test_a_task_whose_requester_looks_for_nothing_is_denied_plainly(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus, wait=1e-6)
    await bus.assert_task(handle, "rejected", "denied")
