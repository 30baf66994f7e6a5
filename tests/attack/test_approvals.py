"""Approvals that must not count: forged, reused, late, weak, foreign, or about what has changed.

Each test is what somebody would try who wants a payment made that nobody, or the wrong person, has approved.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from support.engines import allow, deny
from support.payments import ASKED, Pay, Payments

from sealbus import Context
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.gate import resumption
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.bus.stream_names import HELD
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, ParkedState, parse_parked
from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code, Denied
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.policies.bundle.revocations import Revocations
from sealbus.testing import SubjectType, TestBus


class Clock:
    """A clock that stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.now = 1_790_000_000 * SECOND

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


@pytest.fixture
def payments() -> Payments:
    return Payments()


@pytest.fixture
async def bus(payments: Payments) -> AsyncIterator[TestBus]:
    async with TestBus(payments.agent, engine=payments.engine) as running:
        yield running


async def say(
    bus: TestBus,
    task: bytes,
    decision: bytes,
    *,
    user: Statement | None = None,
    verdict: Verdict = Verdict.APPROVE,
    sender: str = "edge",
    follows: tuple[str, ...] = (),
) -> None:
    """Send an approval as `sender` would that has no scruples, and return once it is counted."""
    node = (await bus.client(sender)).node
    await node.sending.approve(
        task,
        ApprovalRequest(decision=decision, verdict=verdict),
        agent=bus.names.id_of("payments"),
        follows=follows,
        user=user if user is not None else person(bus, "boss"),
    )


def person(bus: TestBus, name: str, **options: Any) -> Statement:
    """Return a context as the edge mints it for somebody who is there themselves: for no workload."""
    from sealbus.agents.dev.users import DevUser, mint_user

    options.setdefault("login_age", 0.0)
    return mint_user(bus.edge.sealer(), DevUser(name, **options), trust_domain=bus.trust_domain, now=bus._clock())


async def leaf(bus: TestBus, handle: TaskHandle) -> bytes:
    """Return the leaf of the decision that parked a task."""
    [found] = [one.leaf for one in await bus.waiting() if one.digest == handle.digest]
    return found


@asynccontextmanager
async def refused(code: Code) -> AsyncIterator[None]:
    """Expect that what is said is not counted, with `code`."""
    with pytest.raises((RemoteError, Denied)) as raised:
        yield
    assert raised.value.code == code


async def test_what_is_approved_is_done_once_and_nobody_can_say_more(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    decision = await leaf(bus, handle)
    await bus.assert_task(handle, "input-required", "approval_required")
    assert not payments.paid
    await bus.approve(handle, "boss")
    assert await handle.result(str, timeout=60) == "paid"
    await bus.idle()
    assert payments.paid == [("42", ("boss",))]
    for one in ("boss", "other-boss"):
        async with refused(Code.APPROVAL_CLOSED):
            await say(bus, handle.digest, decision, user=person(bus, one))
    assert len(payments.paid) == 1


async def test_an_approval_for_another_task_or_another_decision_does_not_count(
    bus: TestBus, payments: Payments
) -> None:
    first, second = await payments.submitted(bus), await payments.submitted(bus, invoice="43")
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, first.digest, await leaf(bus, second))
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, first.digest, b"x" * 32)
    async with refused(Code.APPROVAL_CLOSED):
        await say(bus, b"y" * 32, await leaf(bus, first))
    await bus.idle()
    assert not payments.paid


@pytest.mark.parametrize("session", ["session-alice", "another-session"])
async def test_nobody_approves_what_they_asked_for(bus: TestBus, payments: Payments, session: str) -> None:
    handle = await payments.submitted(bus)
    async with refused(Code.APPROVAL_SELF):
        await say(
            bus, handle.digest, await leaf(bus, handle), user=person(bus, "alice", session=session, client="other")
        )
    assert not payments.paid


async def test_one_person_counts_once_whatever_their_session(bus: TestBus, payments: Payments) -> None:
    payments.enough = 2
    handle = await payments.submitted(bus)
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.assert_task(handle, "input-required", "approval_required")
    async with refused(Code.APPROVAL_REPEATED):
        await bus.approve(handle, "boss", session="another")
    assert not payments.paid
    await bus.approve(handle, "second")
    await bus.idle()
    assert payments.paid == [("42", ("boss", "second"))]


async def test_a_verdict_can_be_changed_and_withdrawn_while_it_waits(bus: TestBus, payments: Payments) -> None:
    payments.enough = 2
    handle = await payments.submitted(bus)
    async with refused(Code.APPROVAL_CLOSED):
        await bus.approve(handle, "boss", verdict="withdraw")
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.approve(handle, "boss", verdict="withdraw")
    await bus.idle()
    [waiting] = await bus.waiting()
    assert [one.verdict.value for one in waiting.verdicts] == ["withdraw"]
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.approve(handle, "second", verdict="deny")
    await bus.idle()
    await bus.assert_task(handle, "rejected", "denied")
    assert not payments.paid
    assert not await bus.waiting()


async def test_what_comes_after_the_end_does_not_count(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=600)
        decision = await leaf(bus, handle)
        clock.forward(601)
        async with refused(Code.APPROVAL_CLOSED):
            await say(bus, handle.digest, decision)
        assert not await bus.waiting()
    assert not payments.paid


@pytest.mark.parametrize(
    ("login", "code"),
    [
        ({"acr": "silver"}, Code.APPROVAL_WEAK),
        ({"acr": None}, Code.APPROVAL_WEAK),
        ({"acr": "gold", "login_age": 301.0}, Code.APPROVAL_WEAK),
        ({"acr": "gold", "login_age": None}, Code.APPROVAL_WEAK),
    ],
)
async def test_a_login_that_is_too_weak_or_too_old_does_not_count(
    bus: TestBus, payments: Payments, login: dict[str, object], code: Code
) -> None:
    payments.asked = {**ASKED, "acr": ["gold"], "max_age": 300}
    handle = await payments.submitted(bus)
    async with refused(code):
        await say(bus, handle.digest, await leaf(bus, handle), user=person(bus, "boss", **login))
    assert not payments.paid
    await bus.approve(handle, "boss", acr="gold")
    await bus.idle()
    assert payments.paid


async def test_an_agent_does_not_approve_with_somebodys_context(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, handle.digest, await leaf(bus, handle), user=bus.user("boss", "shop"), sender="shop")
    assert not payments.paid


async def test_the_edge_does_not_approve_in_the_name_of_what_is_no_person(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    for kind in SubjectType:
        async with refused(Code.APPROVAL_FOREIGN):
            await say(bus, handle.digest, await leaf(bus, handle), user=person(bus, "robot", typ=kind))
    assert not payments.paid


async def test_an_approval_lets_nothing_follow_that_the_policy_did_not_name(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, handle.digest, await leaf(bus, handle), follows=("payments.note",))
    assert not payments.paid


@pytest.mark.parametrize("follows", [(), ("payments.note",)])
async def test_what_follows_is_in_the_approvers_name_and_within_the_grant(
    bus: TestBus, payments: Payments, follows: tuple[str, ...]
) -> None:
    payments.asked = {**ASKED, "follows": list(follows)}
    handle = await payments.submitted(bus)
    await bus.approve(handle, "boss")
    await bus.idle()
    [ctx] = payments.contexts
    assert ctx.user is not None
    assert ctx.user.sub == "alice"
    sent = await ctx.submit("payments.note", {"invoice": "1"})
    await bus.idle()
    if not follows:
        assert [one["code"] for one in await bus.flush_refusals()] == ["grant_exceeded"]
        return
    assert await sent.result(str) == "noted"
    user = payments.contexts[-1].user
    assert user is not None
    assert user.sub == "boss"


async def test_the_policy_says_who_may_approve_and_who_was_revoked_may_not(payments: Payments) -> None:
    revoked: list[Revocations] = [Revocations()]
    async with TestBus(payments.agent, engine=payments.engine, revocations=lambda: revoked[0]) as bus:
        payments.may = lambda user: user != "clerk"
        handle = await payments.submitted(bus)
        with pytest.raises(Denied, match="denies"):
            await bus.approve(handle, "clerk")
        boss = parse_payload(person(bus, "boss").payload)
        revoked[0] = Revocations(revision="r", users={(boss.idp, "boss"): boss.iat + 10 * SECOND})
        with pytest.raises(Denied, match="denies"):
            await bus.approve(handle, "boss")
        assert not payments.paid
        await bus.approve(handle, "other")
        await bus.idle()
    assert payments.paid == [("42", ("other",))]


async def test_a_policy_that_cannot_say_who_may_approve_lets_nobody(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    payments.decide = lambda document: allow(obligations=({"type": "mask"},)) if "of" in document else None
    async with refused(Code.OBLIGATION_UNKNOWN):
        await say(bus, handle.digest, await leaf(bus, handle))
    assert not payments.paid


async def test_the_policy_is_asked_again_with_the_approvals(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    payments.decide = lambda document: None if "of" in document else deny("not_today")
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.assert_task(handle, "rejected", "denied")
    assert not payments.paid
    last = payments.engine.asked[-1]["context"]
    assert [one["user"] for one in last["approvals"]] == ["boss"]
    assert last["parked"]["revision"] == "1"


async def test_what_was_said_is_void_once_the_policy_asks_for_something_else(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    decision = await leaf(bus, handle)
    payments.asked = {**ASKED, "queue": "directors"}
    payments.enough = 2
    await bus.approve(handle, "boss")
    await bus.idle()
    [waiting] = await bus.waiting()
    assert (waiting.obligation.queue, waiting.verdicts) == ("directors", ())
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, handle.digest, decision, user=person(bus, "second"))
    await bus.approve(handle, "first-director")
    await bus.idle()
    await bus.approve(handle, "second-director")
    await bus.idle()
    assert payments.paid == [("42", ("first-director", "second-director"))]


async def places(bus: TestBus) -> dict[str, ParkedState]:
    """Return the state of what is parked in each queue."""
    held = (await bus.client("edge")).node.held
    parked = [parse_parked(one) for one in (await held.newest("held.*.task.>", PARKED_TYPE)).values()]
    return {one.obligation.queue: one.state for one in parked}


async def test_what_waits_for_other_people_has_ended_where_it_was(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    payments.asked = {**ASKED, "queue": "directors"}
    payments.enough = 2
    await bus.approve(handle, "boss")
    await bus.idle()
    assert await places(bus) == {"managers": ParkedState.ENDED, "directors": ParkedState.WAITING}


async def test_an_allow_with_an_obligation_asks_nobody(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    asking = replace(deny("x", obligations=({**ASKED, "queue": "directors"},)), allow=True)
    payments.decide = lambda document: None if "of" in document else asking
    await bus.approve(handle, "boss")
    await bus.idle()
    await bus.assert_task(handle, "rejected", "obligation_unknown")
    assert not await bus.waiting()
    assert not payments.paid


async def test_what_was_said_is_void_in_the_same_queue_too(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    decision = await leaf(bus, handle)
    payments.asked = {**ASKED, "text": "Pay ACME twice"}
    payments.enough = 2
    await bus.approve(handle, "boss")
    await bus.idle()
    [waiting] = await bus.waiting()
    assert (waiting.obligation.text, waiting.verdicts) == ("Pay ACME twice", ())
    async with refused(Code.APPROVAL_FOREIGN):
        await say(bus, handle.digest, decision, user=person(bus, "second"))
    for number in range(2):
        await bus.approve(handle, f"boss-{number}")
        await bus.idle()
    assert payments.paid == [("42", ("boss-0", "boss-1"))]


async def test_what_people_were_asked_once_goes_on_waiting_for_more_of_them(
    bus: TestBus, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments.enough = 2
    handle = await payments.submitted(bus)
    monkeypatch.setattr(resumption, "INPUT_BYTES", 1)
    await bus.approve(handle, "boss")
    await bus.idle()
    [waiting] = await bus.waiting()
    assert [one.user for one in waiting.verdicts] == ["boss"]


async def test_a_denial_of_who_approves_is_one_whatever_it_obliges_to(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    payments.decide = lambda document: deny("no", obligations=({"type": "x"},)) if "of" in document else None
    async with refused(Code.DENIED):
        await say(bus, handle.digest, await leaf(bus, handle), user=person(bus, "boss"))


@pytest.mark.parametrize("reason", ["redacted", "too long"])
async def test_what_is_asked_for_later_has_to_be_what_people_can_see(
    payments: Payments, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = AuditWriter.record
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        handle = await payments.submitted(bus)
        payments.asked = {**ASKED, "queue": "directors"}
        payments.enough = 2
        if reason == "too long":
            monkeypatch.setattr(resumption, "INPUT_BYTES", 1)
        else:
            monkeypatch.setattr(AuditWriter, "record", lambda *one: record(*one)._replace(redacted=("/context/user",)))
        await bus.approve(handle, "boss")
        await bus.idle()
        await bus.assert_task(handle, "rejected", "denied")
        assert not await bus.waiting()
    assert not payments.paid


async def test_what_is_asked_for_later_has_its_own_end(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=86_400)
        payments.asked = {**ASKED, "queue": "directors", "until": 600}
        payments.enough = 2
        await bus.approve(handle, "boss")
        await bus.idle()
        [waiting] = await bus.waiting()
        assert waiting.until <= clock.now + 600 * SECOND
        clock.forward(601)
        async with refused(Code.APPROVAL_CLOSED):
            await say(bus, handle.digest, waiting.leaf, user=person(bus, "first-director"))
    assert not payments.paid


async def test_two_people_at_the_same_moment_have_it_done_once(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    said = await asyncio.gather(*(bus.approve(handle, f"boss-{number}") for number in range(4)), return_exceptions=True)
    await bus.idle()
    assert len(payments.paid) == 1
    assert None in said


async def test_the_same_request_approved_twice_is_done_once(bus: TestBus, payments: Payments) -> None:
    first = await payments.submitted(bus, idempotency_key="k")
    second = await payments.submitted(bus, idempotency_key="k")
    await bus.approve(first, "boss")
    await bus.idle()
    await bus.approve(second, "boss")
    await bus.idle()
    await bus.assert_task(second, "failed", "replayed")
    assert len(payments.paid) == 1


async def test_a_canceled_task_is_not_done_however_it_is_approved(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    decision = await leaf(bus, handle)
    await handle.cancel("a mistake")
    await bus.assert_task(handle, "canceled", "canceled")
    assert not await bus.waiting()
    async with refused(Code.APPROVAL_CLOSED):
        await say(bus, handle.digest, decision)
    assert not payments.paid


async def test_a_task_whose_end_has_passed_is_canceled_all_the_same(payments: Payments) -> None:
    clock = Clock()
    async with TestBus(payments.agent, engine=payments.engine, clock=clock) as bus:
        handle = await payments.submitted(bus, wait=7 * 86_400)
        clock.forward(2 * 86_400)
        again = (await bus.client("shop")).handle(handle.text)
        await bus.assert_task(again, "input-required", "approval_required")
        await again.cancel("too late")
        assert not await bus.waiting()


def planted(bus: TestBus, subject: str) -> Iterator[bytes]:
    """Yield what is stored under the parked tasks of the bus, in order."""
    for one in bus.stored(HELD):
        if one.subject.startswith(subject):
            yield one.payload


async def test_a_parked_task_that_is_rolled_back_stays_ended(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    decision = await leaf(bus, handle)
    [subject] = [one.subject for one in bus.stored(HELD) if ".task." in one.subject]
    first = next(planted(bus, subject))
    await bus.approve(handle, "boss")
    await bus.idle()
    bus.broker.inject(subject, first)
    assert not await bus.waiting()
    async with refused(Code.APPROVAL_CLOSED):
        await say(bus, handle.digest, decision, user=person(bus, "second"))
    assert len(payments.paid) == 1


async def test_a_parked_task_of_another_agent_or_place_is_nobodys(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    other = await payments.submitted(bus, invoice="43")
    waiting = ParkedTaskReader((await bus.client("edge")).node)
    boss = parse_payload(person(bus, "boss").payload)
    [subject] = [
        one.subject for one in bus.stored(HELD) if handle.digest.hex() in one.subject and ".task." in one.subject
    ]
    [stored] = planted(bus, subject)
    for forged in (subject.replace("managers", "directors"), subject.replace("payments", "pricing")):
        bus.broker.inject(forged, stored)
        [*_, queue, digest] = forged.split(".")
        assert digest == handle.digest.hex()
        assert not (await waiting.page(queue, boss)).tasks or queue == "managers"
    assert len((await waiting.page("managers", boss)).tasks) == 2
    bus.broker.inject(subject.replace(handle.digest.hex(), other.digest.hex()), stored)
    found = await waiting.find_task(other.digest, boss)
    assert found is not None
    assert found.message.header.digest == other.digest


async def test_bytes_in_the_place_of_a_task_do_not_keep_it_from_being_parked(bus: TestBus, payments: Payments) -> None:
    handle = await payments.submitted(bus)
    [subject] = [one.subject for one in bus.stored(HELD) if ".task." in one.subject]
    for junk in (b"", b"junk", b"\x95" + b"\xc4\x00" * 5):
        bus.broker.inject(subject, junk)
    await bus.approve(handle, "boss")
    await bus.idle()
    assert payments.paid == [("42", ("boss",))]


async def test_an_edge_shows_nothing_that_no_requester_has_sent(bus: TestBus, payments: Payments) -> None:
    """An agent signs a parked task about a message that nobody sent: a person must not be shown it."""
    handle = await payments.submitted(bus)
    [parked] = await bus.waiting()
    node = bus.workers["payments"].node
    waiting = ParkedTaskReader((await bus.client("edge")).node)
    boss = parse_payload(person(bus, "boss").payload)
    assert await waiting.find_task(handle.digest, boss) is not None
    assert parked.value is not None
    forged = bytearray(parked.envelope)
    forged[-1] ^= 1
    stored = await node.held.write(
        parked.value.subject,
        parked.keys(),
        "application/vnd.sealbus.parked.v1",
        node.identity.sealer(),
        before=parked.value,
        extra=bytes(forged),
    )
    assert stored is not None
    assert await waiting.find_task(handle.digest, boss) is None


async def test_a_call_does_not_wait_and_is_told_that_a_task_can(payments: Payments) -> None:
    @payments.agent.call("ask")
    async def ask(body: Pay, ctx: Context) -> str:
        return "asked"

    payments.decide = lambda document: (
        deny("over_limit", obligations=(ASKED, {"type": "show_reasons"}))
        if document["action"]["name"] == "payments.ask"
        else None
    )
    async with TestBus(payments.agent, engine=payments.engine) as bus:
        with pytest.raises(Denied) as raised:
            await (await bus.client("shop")).call("payments.ask", Pay(), returns=str)
        assert raised.value.remedies == (Remedy(kind=RemedyKind.APPROVAL, action="payments.ask"),)
        assert not await bus.waiting()


async def test_what_is_redacted_in_the_log_cannot_be_approved(payments: Payments) -> None:
    """Who approves is asked about what was recorded; without the requester there it could be anybody, themselves too."""
    async with TestBus(payments.agent, engine=payments.engine, redact={"task.payments.>": ["/context/user/id"]}) as bus:
        handle = await payments.submitted(bus)
        await bus.assert_task(handle, "rejected", "denied")
        assert not await bus.waiting()


async def test_bytes_that_were_there_before_do_not_keep_it_from_being_parked(bus: TestBus, payments: Payments) -> None:
    first = await payments.submitted(bus)
    [subject] = [one.subject for one in bus.stored(HELD) if ".task." in one.subject]
    stored = next(planted(bus, subject))
    # Whoever knows a task's header before its agent has it can be first in its place.
    bus.broker.streams[HELD].truncate(0)
    bus.broker.inject(subject, b"junk")
    bus.broker.consumers[("TASKS", "payments")].rewind()
    await bus.idle()
    assert stored not in set(planted(bus, subject))
    await bus.approve(first, "boss")
    await bus.idle()
    assert payments.paid == [("42", ("boss",))]
