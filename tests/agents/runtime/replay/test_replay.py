"""Recorded messages into a handler again: only the very message that was decided on, and nothing leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Price, Shop, Update

from sealbus import Agent, Context, Resource, ResourceNotFound
from sealbus.agents.runtime.replay.context import NotSent
from sealbus.agents.runtime.replay.replay import Replay, Replayed, Result
from sealbus.bus.audit.trail import AuditEntry, Finding
from sealbus.bus.ports import Delivery
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus


@dataclass
class Debugged:
    """The inventory again, as somebody looks into it with a debugger: what its handlers saw and did."""

    contexts: list[Context] = field(default_factory=list)
    bodies: list[Update] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    agent: Agent = field(default_factory=lambda: Agent("inventory"))

    def __post_init__(self) -> None:
        async def item(body: Update) -> Resource:
            self.loaded.append(body.item_id)
            if body.item_id == "sold":
                raise ResourceNotFound("no such item")
            return Resource("item", body.item_id)

        @self.agent.task("update", resource=item, timeout=0.2)
        async def update(body: Update, ctx: Context) -> Price:
            self.contexts.append(ctx)
            self.bodies.append(body)
            if body.item_id == "hang":
                await asyncio.Event().wait()
            if body.item_id == "fail":
                raise ValueError("broken here")
            await ctx.progress("half")
            await ctx.emit("ordered", body)
            await ctx.submit("pricing.quote", body)
            if body.item_id == "ask":
                await ctx.call("pricing.quote", body, returns=Price)
            return Price(item_id=body.item_id, price=7)


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    engine = ScriptedEngine(
        lambda one: deny("no") if one["context"]["user"]["id"] == "mallory" else allow(obligations=({"type": "mask"},))
    )
    async with TestBus(Shop().inventory, engine=engine) as running:
        yield running


async def submit(bus: TestBus, *items: str, user: str = "alice") -> None:
    client = await bus.client("shop-web")
    for item in items:
        await client.submit("inventory.update", Update(item_id=item), user=bus.user(user, "shop-web"))
    await bus.idle()


async def entries(*log: AuditEntry | Finding) -> AsyncIterator[AuditEntry | Finding]:
    for one in log:
        yield one


async def replay(
    bus: TestBus, agent: Agent, log: list[AuditEntry | Finding] | None = None, most: int = 100
) -> list[Replayed]:
    replaying = Replay(
        agent=agent,
        deployment=bus.deployment,
        transport=bus.broker.connect(),
        most=most,
        on_finding=lambda finding: pytest.fail(str(finding)),
    )
    log = list(await bus.audit()) if log is None else log
    return [one async for one in replaying.replay(entries(*log))]


async def test_a_handler_sees_what_was_decided_on_and_nothing_leaves(bus: TestBus) -> None:
    await submit(bus, "42")
    await bus.audit()
    stored = {name: len(stream.stored) for name, stream in bus.broker.streams.items()}
    debugged = Debugged()
    (one,) = await replay(bus, debugged.agent)
    assert (one.result, one.error, one.resource) == (Result.DONE, None, "item:42")
    assert one.answer is not None
    assert one.answer.body == b'{"item_id":"42","price":7}'
    assert [(sent.kind, sent.subject) for sent in one.sent] == [
        ("status", "working"), ("event", "event.inventory.ordered"), ("task", "task.pricing.quote"),
    ]  # fmt: skip
    assert debugged.bodies == [Update(item_id="42")]
    assert debugged.loaded == ["42"]
    (context,) = debugged.contexts
    assert context.replay
    assert one.outcome is not None
    assert one.outcome.code is None
    await bus.idle()
    assert {name: len(stream.stored) for name, stream in bus.broker.streams.items()} == stored


@pytest.mark.parametrize(
    ("item", "result", "error"),
    [
        ("ask", Result.STOPPED, NotSent),
        ("fail", Result.FAILED, ValueError),
        ("hang", Result.FAILED, TimeoutError),
        ("sold", Result.FAILED, ResourceNotFound),
    ],
)
async def test_what_ends_a_handler_is_told(bus: TestBus, item: str, result: Result, error: type[BaseException]) -> None:
    await submit(bus, item)
    (one,) = await replay(bus, Debugged().agent)
    assert one.result is result
    assert type(one.error) is error


async def test_a_body_that_the_handler_no_longer_takes_is_a_failure(bus: TestBus) -> None:
    await submit(bus, "42")
    changed = Agent("inventory")

    @changed.task("update")
    async def update(body: int, ctx: Context) -> None:
        pytest.fail("the body is no number")

    (one,) = await replay(bus, changed)
    assert (one.result, getattr(one.error, "code", None)) == (Result.FAILED, Code.BAD_BODY)


async def test_what_was_denied_is_not_given_to_the_handler(bus: TestBus) -> None:
    await submit(bus, "42", user="mallory")
    debugged = Debugged()
    (one,) = await replay(bus, debugged.agent)
    assert (one.result, debugged.contexts, debugged.loaded) == (Result.DENIED, [], [])


async def test_an_agent_without_that_handler_says_so(bus: TestBus) -> None:
    await submit(bus, "42")
    assert [one.result for one in await replay(bus, Agent("inventory"))] == [Result.UNKNOWN]


async def test_another_agents_decisions_are_not_replayed(bus: TestBus) -> None:
    await submit(bus, "42")
    assert await replay(bus, Agent("pricing")) == []


async def test_an_outcome_by_another_recorder_is_none_of_this_decision(bus: TestBus) -> None:
    await submit(bus, "42")
    other = bus.names.id_of("pricing")
    log: list[AuditEntry | Finding] = [
        replace(one, recorder=other) if isinstance(one.record, OutcomeRecord) else one for one in await bus.audit()
    ]
    (one,) = await replay(bus, Debugged().agent, log)
    assert one.outcome is None


async def test_only_tasks_are_replayed(bus: TestBus) -> None:
    await submit(bus, "42")
    (entry,) = [one for one in await bus.audit() if isinstance(one.record, DecisionRecord)]
    assert isinstance(entry.record, DecisionRecord)
    assert isinstance(entry.record.place, StreamPlace)
    place = entry.record.place._replace(stream="EVENTS")
    log: list[AuditEntry | Finding] = [replace(entry, record=entry.record._replace(place=place))]
    assert await replay(bus, Debugged().agent, log) == []


async def test_the_newest_come_in_the_order_of_the_stream(bus: TestBus) -> None:
    await submit(bus, "1", "2", "3", "4")
    debugged = Debugged()
    found = await replay(bus, debugged.agent, most=2)
    assert [body.item_id for body in debugged.bodies] == ["3", "4"]
    assert [one.outcome is not None for one in found] == [True, True]


async def test_of_several_deliveries_the_last_decision_counts() -> None:
    shop = Shop(fail=1)
    async with TestBus(shop.inventory, engine=ScriptedEngine(lambda _: allow())) as bus:
        await submit(bus, "42")
        debugged = Debugged()
        (one,) = await replay(bus, debugged.agent)
    assert isinstance(one.entry.record, DecisionRecord)
    assert one.entry.record.delivery == 2
    assert [context.delivery for context in debugged.contexts] == [2]
    assert one.outcome is not None
    assert (one.outcome.code, one.outcome.delivery) == (None, 2)


async def test_what_the_stream_does_not_hold_any_more_is_gone(bus: TestBus) -> None:
    await submit(bus, "1", "2")
    bus.broker.streams["TASKS"].remove(1)
    found = await replay(bus, Debugged().agent)
    assert [one.result for one in found] == [Result.DONE, Result.GONE]


async def test_the_same_bytes_under_another_subject_are_another_message() -> None:
    shop = Shop()
    async with TestBus(shop.inventory, shop.pricing, engine=ScriptedEngine(lambda _: allow())) as bus:
        await submit(bus, "1")
        client = await bus.client("shop-web")
        await client.submit("inventory.order", Update(item_id="2"), user=bus.user("alice", "shop-web"))
        await bus.idle()
        first, second = bus.stored("TASKS")
        bus.broker.streams["TASKS"].tamper(first._replace(subject=second.subject))
        found = await replay(bus, Debugged().agent)
    assert [one.result for one in found] == [Result.OTHER, Result.UNKNOWN]


async def test_a_recorded_body_is_as_good_as_the_stream() -> None:
    engine = ScriptedEngine(lambda _: allow())
    async with TestBus(Shop().inventory, engine=engine, bodies=["task.>"]) as bus:
        await submit(bus, "1")
        bus.broker.streams["TASKS"].remove(1)
        debugged = Debugged()
        found = await replay(bus, debugged.agent)
        log: list[AuditEntry | Finding] = [replace(one, message=None) for one in await bus.audit()]
        unproved = await replay(bus, debugged.agent, log)
    assert [one.result for one in found] == [Result.DONE]
    assert [body.item_id for body in debugged.bodies] == ["1"]
    assert [one.result for one in unproved] == [Result.OTHER]


async def test_another_message_in_its_place_is_not_given_to_the_handler(bus: TestBus) -> None:
    await submit(bus, "1", "2", "1")
    first, second, third = bus.stored("TASKS")

    def put(other: Delivery) -> None:
        bus.broker.streams["TASKS"].tamper(other)

    others = [
        first._replace(payload=second.payload),  # genuine, and not the one that was decided on
        first._replace(payload=third.payload),  # neither is this, though it says the same
        first._replace(payload=first.payload.replace(b'"item_id":"1"', b'"item_id":"9"')),  # its body
        first._replace(payload=b"\x80"),
        first._replace(payload=b""),
    ]
    for other in others:
        put(other)
        debugged = Debugged()
        found = await replay(bus, debugged.agent)
        assert [one.result for one in found] == [Result.OTHER, Result.DONE, Result.DONE]
        assert [body.item_id for body in debugged.bodies] == ["2", "1"]
    put(first)
    log: list[AuditEntry | Finding] = [replace(one, message=None) for one in await bus.audit()]
    assert {one.result for one in await replay(bus, Debugged().agent, log)} == {Result.OTHER}


async def test_findings_are_told_apart(bus: TestBus) -> None:
    finding = Finding(sequence=3, stored=5, subject="audit.inventory", code="bad_digest", step=9, detail="")
    told: list[Finding] = []
    replaying = Replay(
        agent=Debugged().agent,
        deployment=bus.deployment,
        transport=bus.broker.connect(),
        on_finding=told.append,
    )
    assert [one async for one in replaying.replay(entries(finding))] == []
    assert told == [finding]


@pytest.mark.parametrize("text", [b"\xff", b"[" * 9_000, b'[],"all":[]', b"7", b'["a"]', b""])
async def test_obligations_that_nobody_can_read_are_none(bus: TestBus, text: bytes) -> None:
    await submit(bus, "42")
    log: list[AuditEntry | Finding] = []
    for entry in await bus.audit():
        assert isinstance(entry.record, DecisionRecord) or entry.decision is not None
        if isinstance(entry.record, DecisionRecord):
            log.append(replace(entry, record=entry.record._replace(obligations=text)))
    debugged = Debugged()
    await replay(bus, debugged.agent, log)
    assert debugged.contexts[0].obligations == ()
