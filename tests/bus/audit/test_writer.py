"""The audit writer: what is stored before the gate goes on, in how few messages, and what happens where it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.lab import until
from support.shop import Price, Shop, Update

from sealbus.agents.dev.memory.broker import header_block
from sealbus.bus.audit import writer as module
from sealbus.bus.audit.writer import AuditWriter, RecordPlaces
from sealbus.bus.ports import Outgoing, StreamRefused
from sealbus.bus.routing.stages import Decided
from sealbus.bus.sending.outbox import Outbox
from sealbus.envelopes.errors import AuditUnavailable, Code, Denied, EnvelopeError, SealbusError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.record import guard_id
from sealbus.envelopes.records.work import DenialsRecord, OutcomeRecord
from sealbus.testing import TestBus

Record = Callable[[Sequence[Decided], RecordPlaces | None], Awaitable[Sequence[bytes | SealbusError]]]


class Seen:
    """Everything that the gate had recorded, and what the writer answered."""

    def __init__(self, writer: AuditWriter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decided: list[Decided] = []
        self.answers: list[bytes | SealbusError] = []
        for name in ("decisions", "call_decisions"):
            monkeypatch.setattr(writer, name, self._watched(getattr(writer, name)))

    def _watched(self, record: Record) -> Record:
        async def watched(
            decided: Sequence[Decided], places: RecordPlaces | None = None
        ) -> Sequence[bytes | SealbusError]:
            answers = await record(decided, places)
            self.decided += decided
            self.answers += answers
            return answers

        return watched


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def bus(shop: Shop, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    async with TestBus(shop.inventory, shop.pricing, engine=engine) as running:
        yield running


async def test_decisions_of_a_batch_are_stored_together_and_named_by_their_leaves(
    bus: TestBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(bus.workers["inventory"].node.audit, monkeypatch)
    client = await bus.client("shop-web")
    await asyncio.gather(*(client.submit("inventory.update", Update(item_id=str(number))) for number in range(20)))
    await bus.idle()
    entries = await bus.audit()
    decisions = [one for one in entries if isinstance(one.record, DecisionRecord)]
    assert len(decisions) == 20
    assert [one.leaf for one in decisions] == seen.answers
    assert len({one.sequence for one in entries}) < len(entries)
    assert {one.recorder.path for one in entries} == {"/agent/inventory"}


async def test_a_decision_is_stored_before_its_outcome_and_joined_with_it(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    await client.submit("inventory.update", Update(item_id="1"))
    await bus.idle()
    entries = await bus.audit()
    (decision,) = [one for one in entries if isinstance(one.record, DecisionRecord)]
    (outcome,) = [one for one in entries if isinstance(one.record, OutcomeRecord)]
    assert outcome.sequence > decision.sequence
    assert isinstance(outcome.record, OutcomeRecord)
    assert outcome.record.decision == decision.leaf
    assert outcome.decision == decision.record


async def test_a_record_holds_what_was_decided_on_and_no_body(bus: TestBus, engine: ScriptedEngine) -> None:
    engine.verdict = lambda _: deny("not_owner", "out_of_hours")
    client = await bus.client("shop-web")
    await client.submit(
        "inventory.update", Update(item_id="an id in the body", quantity=7), user=bus.user("alice", "shop-web")
    )
    await bus.idle()
    (record,) = await bus.decisions("inventory.update")
    assert (record.allow, record.code, record.reasons) == (False, Code.DENIED, ("not_owner", "out_of_hours"))
    assert (record.revision, record.policy, record.engine) == ("1", "scripted", "scripted")
    task = bus.stored("TASKS")[0]
    assert record.header == parse_envelope(task.payload).header
    stored = b"".join(one.payload for one in bus.stored("AUDIT"))
    assert b'"quantity":7' in stored  # a declared fact, in the input document
    assert parse_envelope(task.payload).body not in stored


async def test_a_decision_on_a_call_is_alone_under_the_guard_id(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    node = bus.workers["pricing"].node
    seen = Seen(node.audit, monkeypatch)
    client = await bus.client("shop-web")
    for number in range(3):
        await client.call("pricing.quote", Update(item_id=str(number)), returns=Price)
    await bus.idle()
    ids = {parse_header(parse_envelope(one.payload).header).id for one in bus.stored("AUDIT")}
    expected = {guard_id(node.own, one.opened.message.header.digest) for one in seen.decided}
    assert len(expected) == 3
    assert expected <= ids
    for one in bus.stored("AUDIT"):
        header = parse_header(parse_envelope(one.payload).header)
        assert one.header_block == header_block(Outgoing(subject="x", payload=b"", message_id=header.id.hex()))


async def test_a_call_that_a_replica_decided_on_is_replayed_here(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> None:
    node = bus.workers["pricing"].node
    seen = Seen(node.audit, monkeypatch)
    await (await bus.client("shop-web")).call("pricing.quote", Update(item_id="1"), returns=Price)
    async with (
        Outbox(identity=node.identity, transport=bus.broker.connect()) as outbox,
        AuditWriter(subject="audit.pricing", outbox=outbox, counters=node.counters) as replica,
    ):
        (answer,) = await replica.call_decisions(seen.decided)
    assert isinstance(answer, EnvelopeError)
    assert answer.code is Code.REPLAYED


async def test_what_the_stream_does_not_take_is_unavailable_for_each(
    bus: TestBus, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen(bus.workers["inventory"].node.audit, monkeypatch)
    bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))
    client = await bus.client("shop-web")
    await client.submit("inventory.update", Update(item_id="1"))
    await client.submit("inventory.update", Update(item_id="2"))
    await until(lambda: len(seen.answers) >= 2)
    assert all(isinstance(one, AuditUnavailable) for one in seen.answers)
    assert shop.handled == []
    bus.broker.fail("AUDIT", None)
    await bus.idle()
    assert sorted(shop.handled) == [("1", 1), ("2", 1)]


async def test_a_lost_outcome_is_counted_and_ends_nothing(shop: Shop, bus: TestBus) -> None:
    """The effect has happened: the task is not handled again for want of its outcome's record."""
    audit = bus.broker.streams["AUDIT"]
    before = len(audit.stored)

    async def fail_after_the_decision() -> None:
        await until(lambda: len(audit.stored) > before)
        bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))

    client = await bus.client("shop-web")
    shop.fail = 0
    await client.submit("inventory.hang", Update(item_id="1"))
    await fail_after_the_decision()
    shop.hang.set()
    node = bus.workers["inventory"].node
    await until(lambda: "sealbus_outcomes_lost_total 1" in node.counters.render())
    await bus.idle()
    assert node.audit.problem == "overloaded"


async def test_who_noted_what_was_not_stored_is_told(bus: TestBus) -> None:
    audit = bus.workers["inventory"].node.audit
    record = DenialsRecord(iss=bus.names.id_of("inventory"), minute=0, counts={"denied": 1})
    told: list[str] = []
    bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))
    await audit.note(record, lambda: told.append("then"), lost=lambda: told.append("lost"))
    await until(lambda: "then" in told)
    assert told == ["lost", "then"]
    bus.broker.fail("AUDIT", None)
    await audit.note(record, lambda: told.append("again"), lost=lambda: told.append("lost again"))
    await until(lambda: len(told) > 2)
    assert told == ["lost", "then", "again"]


async def test_leaving_stores_what_waits(engine: ScriptedEngine, shop: Shop) -> None:
    async with TestBus(shop.inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for number in range(5):
            await client.submit("inventory.update", Update(item_id=str(number)))
        await bus.idle()
    outcomes = [one for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert len(outcomes) == 5


async def test_leaving_with_a_denial_stores_it(engine: ScriptedEngine, shop: Shop) -> None:
    """Our own policy denies a result, and we leave with that: what it decided is what anybody would look for."""
    bus = TestBus(shop.inventory, engine=engine)
    engine.verdict = lambda asked: deny("no") if str(asked["action"]["name"]).endswith(".reply") else allow()

    async def ask() -> None:
        async with bus:
            handle = await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
            await handle.result(int)

    with pytest.raises(Denied):
        await ask()
    denied = await bus.decisions("inventory.update.reply")
    assert [(one.allow, one.reasons) for one in denied] == [(False, ("no",))]


async def test_a_bus_that_takes_nothing_keeps_nobody_who_leaves_with_an_error(
    engine: ScriptedEngine, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAVING", 0.01)
    bus = TestBus(shop.inventory, engine=engine)
    never = asyncio.Event()

    async def ask() -> None:
        async with bus:
            node = (await bus.client("shop-web")).node

            async def stuck(batch: object, **_: object) -> None:
                del batch
                await never.wait()

            monkeypatch.setattr(node.audit, "_store", stuck)
            handle = await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
            await handle.result(object)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask()
