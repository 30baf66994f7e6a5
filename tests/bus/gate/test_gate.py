"""The gate end to end in memory: nothing is handled that was not verified, decided and recorded first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine, Verdict, allow, deny
from support.lab import until
from support.shop import Price, Shop, Update
from support.spans import KeptSpans

from sealbus import Agent, Context, Denied, Resource
from sealbus.agents.dev.memory.broker import header_block
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.audit.writer import AuditLimits, RecordPlaces
from sealbus.bus.gate.gate import permit
from sealbus.bus.ports import Outgoing, Overloaded, StreamRefused
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.stages import Decided, Opened
from sealbus.bus.sending.answer import CallExpired, RemoteError
from sealbus.bus.work import verb_room
from sealbus.envelopes.denial import NOTHING_TOLD, Denier, Remedy, RemedyKind
from sealbus.envelopes.errors import (
    BusUnavailable,
    Code,
    ObligationUnknown,
    PolicyFailed,
    PolicyUnavailable,
    SealbusError,
)
from sealbus.envelopes.message.wire import encode_envelope, parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.policies.decision.decision import Decision
from sealbus.testing import TestBus


class Weight(BaseModel):
    weight: float


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def bus(shop: Shop, engine: ScriptedEngine) -> AsyncIterator[TestBus]:
    # As a worker of a deployment, which may not be alone.
    async with TestBus(shop.inventory, shop.pricing, engine=engine, limits=WorkerLimits()) as running:
        yield running


async def submit(bus: TestBus, action: str = "inventory.update", **fields: Any) -> None:
    client = await bus.client("shop-web")
    await client.submit(action, Update(**{"item_id": "42", **fields}), user=bus.user("alice", "shop-web"))


async def test_a_task_is_decided_recorded_then_handled(bus: TestBus, shop: Shop, engine: ScriptedEngine) -> None:
    await submit(bus, quantity=3)
    await bus.idle()
    assert shop.handled == [("42", 3)]
    (asked,) = engine.asked
    assert asked["subject"]["id"] == "spiffe://example.org/agent/shop-web"
    assert asked["action"] == {"name": "inventory.update", "properties": {"quantity": 3}}
    assert asked["resource"] == {"type": "item", "id": "42", "properties": {"owner": "alice", "customer": "acme"}}
    assert asked["context"]["user"]["id"] == "alice"
    assert asked["context"]["chain"] == ["spiffe://example.org/agent/shop-web"]
    decision, outcome = [entry.record for entry in await bus.audit()]
    assert isinstance(decision, DecisionRecord)
    assert isinstance(outcome, OutcomeRecord)
    assert decision.allow
    assert outcome.code is None
    counters = bus.workers["inventory"].node.counters
    assert counters.value("sealbus_decisions_total", action="inventory.update", verdict="allow") == 1


async def test_the_record_is_stored_before_the_handler_runs(shop: Shop, engine: ScriptedEngine) -> None:
    quick = AuditLimits(within=0.2)
    async with TestBus(shop.inventory, shop.pricing, engine=engine, audit_limits=quick) as bus:
        bus.broker.fail("AUDIT", BusUnavailable("the audit stream is away"))
        client = await bus.client("shop-web")
        with pytest.raises((RemoteError, CallExpired)):
            await client.call("pricing.quote", Update(item_id="1"), returns=Price, timeout=0.5)
        await submit(bus)
        await until(lambda: len(engine.asked) == 2)
    # The workers have finished what they had by now, or given it up.
    assert shop.handled == []


async def test_a_full_audit_stream_stops_handling(bus: TestBus, shop: Shop) -> None:
    bus.broker.fail("AUDIT", StreamRefused("AUDIT: maximum bytes exceeded", 10_077))
    client = await bus.client("shop-web")
    with pytest.raises(RemoteError) as refused:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    assert refused.value.code is Code.AUDIT_UNAVAILABLE
    assert shop.handled == []


async def test_a_full_task_stream_is_overloaded_to_its_sender(bus: TestBus) -> None:
    bus.broker.fail("TASKS", StreamRefused("TASKS: maximum bytes exceeded", 10_077))
    with pytest.raises(Overloaded):
        await submit(bus)


async def test_a_denied_task_is_recorded_and_never_handled(bus: TestBus, shop: Shop, engine: ScriptedEngine) -> None:
    engine.verdict = lambda _: deny("not_owner")
    await submit(bus)
    await bus.idle()
    assert shop.handled == []
    await bus.assert_denied("inventory.update", reason="not_owner")


async def test_reasons_reach_a_caller_only_where_the_policy_says_so(bus: TestBus, engine: ScriptedEngine) -> None:
    client = await bus.client("shop-web")
    obligations: tuple[dict[str, object], ...] = ()

    def verdict(document: dict[str, Any]) -> Verdict:
        if document["action"]["name"].endswith(".reply"):
            return allow()
        return deny("not_owner", obligations=obligations)

    engine.verdict = verdict
    with pytest.raises(Denied) as hidden:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    login: dict[str, object] = {"type": "remedy", "kind": "login", "acr": "urn:x:2"}
    obligations = (login, {"type": "remedy", "kind": "bribe"}, {"type": "remedy", "kind": "later"})
    with pytest.raises(Denied) as unsaid:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    obligations += (dict[str, object](type="show_reasons"),)
    with pytest.raises(Denied) as told:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    assert hidden.value.reasons == ()
    assert told.value.reasons == ("not_owner",)
    assert hidden.value.explanation == unsaid.value.explanation == NOTHING_TOLD
    assert told.value.remedies == (Remedy(kind=RemedyKind.LOGIN, acr="urn:x:2"),)
    assert told.value.via == (Denier("spiffe://example.org/agent/pricing", "pricing.quote", "denied"),)


async def test_of_a_denied_event_nobody_is_told(shop: Shop) -> None:
    engine = ScriptedEngine(lambda _: deny("late", obligations=({"type": "show_reasons"}, {"type": "remedy"})))
    async with TestBus(shop.pricing, engine=engine) as bus:
        await (await bus.client("inventory")).emit("ordered", Update(item_id="1"))
        await bus.idle()
        (record,) = await bus.decisions("inventory.ordered")
        assert record.code is Code.DENIED
        assert bus.stored("RESULTS") == []
        assert shop.handled == []


async def test_an_allow_that_obliges_to_what_nobody_honours_is_a_denial(
    bus: TestBus, shop: Shop, engine: ScriptedEngine
) -> None:
    def verdict(document: dict[str, Any]) -> Verdict:
        answered = document["action"]["name"].endswith(".reply")
        return allow() if answered else allow(obligations=({"type": "watermark"},))

    engine.verdict = verdict
    client = await bus.client("shop-web")
    handle = await client.submit("inventory.update", Update(item_id="1"))
    await bus.idle()
    await bus.assert_task(handle, "rejected", "obligation_unknown")
    await bus.assert_denied("inventory.update", "obligation_unknown")
    assert bus.stored("DEAD") == []
    with pytest.raises(ObligationUnknown):
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    assert shop.handled == []


async def test_in_a_denial_only_our_own_obligation_is_looked_at(bus: TestBus, engine: ScriptedEngine) -> None:
    def verdict(document: dict[str, Any]) -> Verdict:
        if document["action"]["name"].endswith(".reply"):
            return allow()
        return deny("late", obligations=({"type": "watermark"}, {"type": "show_reasons"}))

    engine.verdict = verdict
    client = await bus.client("shop-web")
    with pytest.raises(Denied) as refused:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    assert (refused.value.code, refused.value.reasons) == (Code.DENIED, ("late",))


async def test_a_call_is_answered_and_its_reply_decided_too(bus: TestBus, engine: ScriptedEngine) -> None:
    client = await bus.client("shop-web")
    assert await client.call("pricing.quote", Update(item_id="1", quantity=2), returns=Price) == Price(
        item_id="1", price=14
    )
    assert [one["action"]["name"] for one in engine.asked] == ["pricing.quote", "pricing.quote.reply"]


async def test_a_reply_that_our_own_policy_denies_is_not_given_back(bus: TestBus, engine: ScriptedEngine) -> None:
    engine.verdict = lambda one: deny("unknown") if one["action"]["name"].endswith(".reply") else allow()
    client = await bus.client("shop-web")
    with pytest.raises(Denied):
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)


async def test_a_chain_of_three_hops_reaches_the_policy(bus: TestBus, shop: Shop, engine: ScriptedEngine) -> None:
    await submit(bus, "inventory.order", quantity=2)
    await bus.idle()
    assert ("42", 14) in shop.handled
    assert ("ordered", 1) in shop.handled
    (quote,) = [one for one in engine.asked if one["action"]["name"] == "pricing.quote"]
    assert quote["context"]["chain"] == ["spiffe://example.org/agent/shop-web", "spiffe://example.org/agent/inventory"]
    assert quote["context"]["user"]["id"] == "alice"
    (event,) = [one for one in engine.asked if one["action"]["name"] == "inventory.ordered"]
    assert event["context"]["user"]["present"] is False


async def test_chunks_arrive_in_order_under_one_decision(bus: TestBus, engine: ScriptedEngine) -> None:
    client = await bus.client("shop-web")
    got = [one async for one in client.stream("pricing.count", Update(item_id="1", quantity=4), returns=int)]
    assert got == [0, 1, 2, 3]
    assert [one["action"]["name"] for one in engine.asked] == ["pricing.count", "pricing.count.reply"]


@pytest.mark.parametrize("verdict", [PolicyUnavailable("away"), PolicyFailed("nonsense")])
async def test_an_engine_that_does_not_decide_never_allows(
    bus: TestBus, shop: Shop, engine: ScriptedEngine, verdict: Verdict
) -> None:
    engine.verdict = lambda one: verdict if not one["action"]["name"].endswith(".reply") else allow()
    client = await bus.client("shop-web")
    with pytest.raises(RemoteError) as refused:
        await client.call("pricing.quote", Update(item_id="1"), returns=Price)
    assert isinstance(verdict, PolicyUnavailable | PolicyFailed)
    assert refused.value.code is verdict.code
    assert shop.handled == []


async def test_an_engine_that_is_back_decides_the_task_again(bus: TestBus, shop: Shop, engine: ScriptedEngine) -> None:
    verdicts: Iterator[Verdict] = iter([PolicyUnavailable("away"), allow()])
    engine.verdict = lambda _: next(verdicts)
    await submit(bus)
    await bus.idle()
    assert shop.handled == [("42", 1)]
    refusals = await bus.flush_refusals()
    assert [one["code"] for one in refusals] == ["policy_unavailable"]


async def test_a_body_of_the_wrong_shape_is_a_recorded_denial(
    bus: TestBus, shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = await bus.client("shop-web")
    await client.submit("inventory.update", {"nothing": "fits"})
    await bus.idle()
    assert shop.handled == []
    await bus.assert_denied("inventory.update", "bad_body")
    assert "bad_body" in caplog.text
    counters = bus.workers["inventory"].node.counters
    assert counters.value("sealbus_decisions_total", action="inventory.update", verdict="bad_body") == 1


async def test_a_resource_that_does_not_exist_is_a_recorded_denial(bus: TestBus, shop: Shop) -> None:
    await submit(bus, item_id="none")
    await bus.idle()
    assert shop.handled == []
    await bus.assert_denied("inventory.update", "resource_not_found")


async def test_a_resource_that_no_policy_can_be_asked_about_is_told_by_the_name_of_its_attribute(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Agent("till")

    async def load(body: Update) -> Resource:
        return Resource("sum", body.item_id, amount=1.5)

    @agent.task("pay", resource=load)
    async def pay(body: Update, ctx: Context) -> None:
        shop.handled.append((body.item_id, 1))

    @agent.task("weigh", facts=["weight"])
    async def weigh(body: Weight, ctx: Context) -> None:
        shop.handled.append(("weight", 1))

    async with TestBus(agent, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        await client.submit("till.pay", Update(item_id="1"))
        await client.submit("till.weigh", Weight(weight=1.5))
        await bus.idle()
        await bus.assert_denied("till.pay", "policy_error")
        await bus.assert_denied("till.weigh", "policy_error")
    assert shop.handled == []
    assert "the resource for till.pay is not valid policy input: resource sum.amount is or holds a float" in caplog.text
    assert "cannot be asked about till.weigh: action.properties.weight is or holds a float" in caplog.text
    assert "1.5" not in caplog.text


async def test_a_handler_that_fails_is_tried_again_then_succeeds(bus: TestBus, shop: Shop) -> None:
    shop.fail = 1
    await submit(bus)
    await bus.idle()
    assert shop.handled == [("42", 1)]
    outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert [one.code for one in outcomes] == [Code.HANDLER_FAILED, None]


async def test_a_handler_that_hangs_ends_as_a_dead_letter_and_the_worker_lives(bus: TestBus, shop: Shop) -> None:
    await submit(bus, "inventory.hang")
    await bus.idle()
    (dead,) = bus.stored("DEAD")
    assert dead.payload == bus.stored("TASKS")[0].payload
    (reason,) = [one for one in bus.stored("EVENTS") if one.subject == "event.inventory.dead"]
    assert b"handler_timeout" in reason.payload
    await submit(bus)
    await bus.idle()
    assert shop.handled == [("42", 1)]


async def test_a_result_that_cannot_be_encoded_is_told_by_code(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    with pytest.raises(RemoteError) as refused:
        await client.call("pricing.broken", Update(item_id="1"), returns=Price)
    assert refused.value.code is Code.BAD_RESULT


async def test_the_same_bytes_again_are_stored_once(bus: TestBus, shop: Shop) -> None:
    await submit(bus)
    await bus.idle()
    (task,) = bus.stored("TASKS")
    message_id = task.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
    ack = bus.broker.inject(task.subject, task.payload, task.header_block, message_id)
    assert ack is not None
    assert ack.duplicate
    assert shop.handled == [("42", 1)]


async def test_what_a_killed_server_delivers_again_is_not_handled_again(bus: TestBus, shop: Shop) -> None:
    """nats-server writes consumers' state lazily: after a crash an acknowledged task may come again, as delivery 1."""
    await submit(bus)
    await bus.idle()
    pull = bus.broker.consumers["TASKS", "inventory"]
    pull.rewind()
    await bus.idle()
    assert shop.handled == [("42", 1)]
    outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert [one.code for one in outcomes] == [None, Code.REPLAYED]


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"", "malformed"),
        (b"\r\n\r\n", "malformed"),
        (b"NATS/1.0\r\nNats-Msg-Id: " + b"0" * 32 + b"\r\n\r\n", "malformed"),
    ],
)
async def test_a_captured_task_without_its_own_id_is_refused(bus: TestBus, shop: Shop, block: bytes, code: str) -> None:
    await submit(bus)
    await bus.idle()
    (task,) = bus.stored("TASKS")
    bus.broker.inject(task.subject, task.payload, block)
    await bus.idle()
    assert shop.handled == [("42", 1)]
    assert [one["code"] for one in await bus.flush_refusals()] == [code]


async def test_any_flipped_bit_is_refused_and_the_worker_goes_on(bus: TestBus, shop: Shop) -> None:
    await submit(bus)
    await bus.idle()
    (task,) = bus.stored("TASKS")
    payload = bytearray(task.payload)
    for place in range(0, len(payload), 37):
        damaged = bytearray(payload)
        damaged[place] ^= 1
        bus.broker.inject(task.subject, bytes(damaged), task.header_block)
    await submit(bus, quantity=2)
    await bus.idle()
    assert shop.handled == [("42", 1), ("42", 2)]


async def test_a_context_copied_onto_a_message_of_ones_own_is_refused(bus: TestBus, shop: Shop) -> None:
    """An agent outside the chain seals a message of its own and attaches the context that it saw."""
    await submit(bus)
    await bus.idle()
    stolen = parse_envelope(bus.stored("TASKS")[0].payload).context
    thief = await bus.client("thief")
    await thief.submit("inventory.update", Update(item_id="7"), user=stolen)
    await bus.idle()
    assert shop.handled == [("42", 1)]
    assert [one["code"] for one in await bus.flush_refusals()] == ["bad_chain"]


async def test_a_context_moved_to_another_envelope_is_refused(bus: TestBus, shop: Shop) -> None:
    await submit(bus)
    thief = await bus.client("thief")
    await thief.submit("inventory.update", Update(item_id="7"))
    await bus.idle()
    first, second = (parse_envelope(one.payload) for one in bus.stored("TASKS"))
    forged = encode_envelope(second._replace(context=first.context))
    before = len(shop.handled)
    task = bus.stored("TASKS")[1]
    bus.broker.inject(task.subject, forged, task.header_block)
    await bus.idle()
    assert len(shop.handled) == before
    assert [one["code"] for one in await bus.flush_refusals()] == ["bad_context"]


async def test_garbage_on_every_subject_leaves_the_worker_alive(bus: TestBus, shop: Shop) -> None:
    for garbage in (b"", b"\x97", b"\xff" * 2000, b"{}"):
        bus.broker.inject("task.inventory.update", garbage)
        bus.broker.inject("task.inventory.unknown", garbage)
        bus.broker.inject("call.pricing.quote", garbage)
        bus.broker.inject("event.inventory.ordered", garbage)
    await submit(bus)
    await bus.idle()
    assert shop.handled == [("42", 1)]
    assert {one["code"] for one in await bus.flush_refusals()} == {"malformed"}


@pytest.mark.slow
async def test_no_payload_reaches_a_record_or_refusal_but_its_sample(bus: TestBus, shop: Shop) -> None:
    shop.fail = 3
    await submit(bus)
    await bus.idle()
    for stream in ("AUDIT", "EVENTS", "REFUSALS"):
        assert not [one for one in bus.stored(stream) if b"a secret that no record may hold" in one.payload]


def test_header_blocks_are_those_of_the_server() -> None:
    block = header_block(Outgoing(subject="a", payload=b"", message_id="ab", headers={"X": "y"}))
    assert block == b"NATS/1.0\r\nNats-Msg-Id: ab\r\nX: y\r\n\r\n"
    assert header_block(Outgoing(subject="a", payload=b"")) == b""


async def test_a_verb_without_a_handler_is_told_at_once_and_fails_at_its_end(
    bus: TestBus, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second try is the last before the end, however late it comes on a busy machine.
    twice = RetryPolicy(initial_interval=0.01, backoff_coefficient=6_000.0, jitter=0.0, maximum_attempts=None)
    monkeypatch.setattr(verb_room, "VERB_AWAITED", twice)
    monkeypatch.setattr(verb_room, "LAST_TRY", 60.0)
    client = await bus.client("shop-web")
    handle = await client.submit("inventory.udpate", Update(item_id="1"), life=50)
    await bus.idle()
    told = [(one.state, one.code, one.final) for one in await bus.statuses(handle)]
    assert told == [("working", "unknown_verb", False), ("failed", "unknown_verb", True)]
    assert engine.asked == []
    assert await bus.audit() == []
    assert bus.stored("DEAD") == []
    assert await bus.flush_refusals() == []


async def test_a_sender_of_many_verbs_without_handlers_has_a_share_of_places(
    shop: Shop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb_room, "VERB_AWAITED", RetryPolicy(initial_interval=30.0, jitter=0.0))
    few = WorkerLimits(max_ack_pending=16)
    async with TestBus(shop.inventory, engine=engine, limits=few) as bus:
        one, other = await bus.client("shop-web"), await bus.client("shop-app")
        handles = [await one.submit(f"inventory.no{n}", Update(item_id="1"), life=60) for n in range(4)]
        handles.append(await other.submit("inventory.no", Update(item_id="1"), life=60))
        node = bus.workers["inventory"].node
        await until(lambda: node.counters.value("sealbus_no_place_total", cause="unknown_verb") >= 1)
        await until(lambda: node.counters.value("sealbus_statuses_total", state="failed", outcome="stored") >= 1)
        await until(lambda: node.counters.value("sealbus_statuses_total", state="working", outcome="stored") >= 4)
        states = [[status.state for status in await bus.statuses(handle)][-1] for handle in handles]
        assert states == ["working", "working", "working", "failed", "working"]
        assert bus.stored("DEAD") == []
    assert shop.handled == []


async def test_messages_of_unknown_keys_beyond_their_places_end(
    shop: Shop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = WorkerLimits(max_ack_pending=64)
    async with TestBus(shop.inventory, engine=engine, limits=few) as bus:
        counters = bus.workers["inventory"].node.counters
        with monkeypatch.context() as another:
            another.setattr(bus, "authority", DevelopmentAuthority(bus.trust_domain))
            stranger = await bus.client("shop-web")
        for number in range(3):
            await stranger.submit("inventory.update", Update(item_id=str(number)))
        await until(lambda: counters.value("sealbus_refused_total", code="unknown_key") == 3)
        assert counters.value("sealbus_put_off_total", cause="unauthenticated") == 1
        assert counters.value("sealbus_no_place_total", cause="unauthenticated") == 2
        pull = bus.broker.consumers["TASKS", "inventory"]
        assert (await pull.load()).unsettled == 1
    assert shop.handled == []


async def test_a_span_says_where_its_decision_is_recorded(
    shop: Shop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = KeptSpans(monkeypatch)
    async with TestBus(shop.inventory, engine=engine) as bus:
        await submit(bus)
        await bus.idle()
        recorded = [one for one in bus.stored("AUDIT") if one.subject == "audit.inventory"]
    [attributes] = [one.attributes for one in spans.ended if one.attributes and "sealbus.decision" in one.attributes]
    places = [one.arrival.sequence for one in recorded if one.arrival is not None]
    assert attributes["sealbus.policy.revision"] == "1"
    assert attributes["sealbus.record.stream"] == "AUDIT"
    assert attributes["sealbus.record.sequence"] == places[0]


async def test_a_forgery_for_a_verb_without_a_handler_is_refused_like_any_other(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    await client.submit("inventory.none", Update(item_id="1"), life=0.5)
    await bus.idle()
    (task,) = bus.stored("TASKS")
    envelope = parse_envelope(task.payload)
    bus.broker.inject(task.subject, encode_envelope(envelope._replace(body=b"other")), task.header_block)
    bus.broker.inject("task.inventory", task.payload, task.header_block)
    await bus.idle()
    assert {one["code"] for one in await bus.flush_refusals()} <= {
        "bad_digest",
        "expired",
        "malformed",
        "wrong_subject",
    }
    assert bus.workers["inventory"].node.counters.value("sealbus_put_off_total") >= 1


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("inner", ["denied", "obligation_unknown"])
async def test_what_a_handler_asked_for_and_was_denied_is_a_denial_of_its_own(
    shop: Shop, inner: str, shown: bool
) -> None:
    asking = Agent("asking")
    shows: tuple[dict[str, object], ...] = ({"type": "show_reasons"},)

    @asking.task("call", retry=5, status=False)
    async def call(body: Update, ctx: Context) -> None:
        await ctx.call("pricing.quote", body, returns=Price)

    @asking.task("submit", retry=5, once=True)
    async def submit(body: Update, ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task((await ctx.submit("inventory.update", body)).result())

    login: dict[str, object] = {"type": "remedy", "kind": "login", "max_age": 300}

    def verdict(document: dict[str, Any]) -> Verdict:
        if document["action"]["name"] in ("pricing.quote", "inventory.update"):
            if inner == "denied":
                return deny("not_yours", obligations=(login, *shows))
            return allow(obligations=(*shows, login, {"type": "watermark"}))
        return allow(obligations=shows if shown else ())

    engine = ScriptedEngine(verdict)
    async with TestBus(asking, shop.pricing, shop.inventory, engine=engine) as bus:
        client = await bus.client("shop-web")
        for verb in ("call", "submit"):
            handle = await client.submit(f"asking.{verb}", Update(item_id="1"))
            with pytest.raises(Denied) as refused:
                await handle.result()
            assert refused.value.code is Code.DENIED
            assert refused.value.reasons == (("not_yours",) if shown and inner == "denied" else ())
            # What would help is told by a denial only, not by an allow that obliges to what nobody knows.
            remedy = Remedy(kind=RemedyKind.LOGIN, max_age=300)
            assert refused.value.remedies == ((remedy,) if shown and inner == "denied" else ())
            asked = "pricing.quote" if verb == "call" else "inventory.update"
            named = [("asking", f"asking.{verb}", "denied"), (asked.split(".")[0], asked, inner)] if shown else []
            via = [(one.agent.rpartition("/")[2], one.action, one.code) for one in refused.value.via]
            assert via == named
            assert [(one.state, one.code) for one in await bus.statuses(handle)] == [("rejected", "denied")]
            assert [one["action"]["name"] for one in engine.asked].count(f"asking.{verb}") == 1
        await bus.idle()
        assert bus.stored("DEAD") == []
        outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
        assert [one.code for one in outcomes] == [Code.DENIED, Code.DENIED]


async def test_what_another_try_would_not_change_is_not_tried_again(shop: Shop, engine: ScriptedEngine) -> None:
    asking = Agent("asking")

    @asking.task("task", retry=5)
    async def task(body: Update, ctx: Context) -> None:
        await ctx.call("pricing.quote", {"nothing": "fits"}, returns=Price)

    @asking.call("call")
    async def call(body: Update, ctx: Context) -> Price:
        return await ctx.call("pricing.quote", {"nothing": "fits"}, returns=Price)

    async with TestBus(asking, shop.pricing, engine=engine) as bus:
        client = await bus.client("shop-web")
        handle = await client.submit("asking.task", Update(item_id="1"))
        with pytest.raises(RemoteError) as ended:
            await handle.result()
        assert ended.value.code is Code.BAD_BODY
        with pytest.raises(RemoteError) as answered:
            await client.call("asking.call", Update(item_id="1"), returns=Price)
        assert answered.value.code is Code.BAD_BODY
        await bus.idle()
        assert [one.state for one in await bus.statuses(handle)] == ["failed"]
        assert len(bus.stored("DEAD")) == 1


async def test_a_handler_that_catches_a_denial_goes_on(shop: Shop) -> None:
    asking = Agent("asking")
    caught: list[Denied] = []

    @asking.task("task")
    async def task(body: Update, ctx: Context) -> str:
        for asked in (
            ctx.call("pricing.quote", body, returns=Price),
            (await ctx.submit("inventory.update", body)).result(),
        ):
            try:
                await asked
            except Denied as denied:
                caught.append(denied)
        return "done without them"

    def verdict(document: dict[str, Any]) -> Verdict:
        if document["action"]["name"] in ("pricing.quote", "inventory.update"):
            return deny("not_yours", obligations=({"type": "show_reasons"}, {"type": "remedy", "kind": "login"}))
        return allow()

    async with TestBus(asking, shop.pricing, shop.inventory, engine=ScriptedEngine(verdict)) as bus:
        client = await bus.client("shop-web")
        handle = await client.submit("asking.task", Update(item_id="1"))
        assert await handle.result(str) == "done without them"
        await bus.assert_task(handle, "completed")
        assert [one.via[0].action for one in caught] == ["pricing.quote", "inventory.update"]
        assert {one.remedies for one in caught} == {(Remedy(kind=RemedyKind.LOGIN),)}


@pytest.mark.slow
async def test_work_that_waits_for_canceled_work_fails_and_is_not_tried_again(
    shop: Shop, engine: ScriptedEngine
) -> None:
    asking = Agent("asking")

    @asking.task("task", retry=5)
    async def task(body: Update, ctx: Context) -> None:
        raise RemoteError(Code.CANCELED, "what a task that was canceled raises")

    async with TestBus(asking, engine=engine) as bus:
        client = await bus.client("shop-web")
        handle = await client.submit("asking.task", Update(item_id="1"))
        with pytest.raises(RemoteError) as ended:
            await handle.result()
        assert ended.value.code is Code.CANCELED
        await bus.idle()
        assert [(one.state, one.code) for one in await bus.statuses(handle)] == [("failed", "canceled")]
        assert len(bus.stored("DEAD")) == 1


@pytest.mark.parametrize("shown", [True, False])
async def test_a_call_whose_handler_was_denied_is_answered_as_denied(shop: Shop, shown: bool) -> None:
    asking = Agent("asking")

    @asking.call("call")
    async def call(body: Update, ctx: Context) -> Price:
        return await ctx.call("pricing.quote", body, returns=Price)

    def verdict(document: dict[str, Any]) -> Verdict:
        shows: tuple[dict[str, object], ...] = ({"type": "show_reasons"},)
        if document["action"]["name"] == "pricing.quote":
            return deny("not_yours", obligations=shows)
        return allow(obligations=shows if shown else ())

    async with TestBus(asking, shop.pricing, engine=ScriptedEngine(verdict)) as own:
        client = await own.client("shop-web")
        with pytest.raises(Denied) as refused:
            await client.call("asking.call", Update(item_id="1"), returns=Price)
        assert (refused.value.code, refused.value.reasons) == (Code.DENIED, ("not_yours",) if shown else ())


async def test_batches_are_handled_in_their_order_whichever_is_recorded_first(
    shop: Shop, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TestBus(shop.inventory, engine=engine, limits=WorkerLimits(batch=1)) as bus:
        audit = (await bus.client("inventory")).node.audit
        decisions, second, recorded = audit.decisions, asyncio.Event(), list[int]()

        async def first_is_slow(
            decided: Sequence[Decided], places: RecordPlaces | None
        ) -> Sequence[bytes | SealbusError]:
            recorded.append(len(recorded))
            number = recorded[-1]
            leaves = await decisions(decided, places)
            if number == 0:
                await second.wait()
                for _ in range(100):
                    await asyncio.sleep(0)
            else:
                second.set()
            return leaves

        monkeypatch.setattr(audit, "decisions", first_is_slow)
        await submit(bus, item_id="1")
        await submit(bus, item_id="2")
        await bus.idle()
    assert [item for item, _ in shop.handled] == ["1", "2"]
    assert recorded == [0, 1]


@pytest.mark.parametrize(
    ("decision", "error"),
    [(deny("no"), None), (None, None), (None, PolicyUnavailable("away")), (allow(), PolicyFailed("late"))],
)
def test_only_what_the_policy_allowed_is_permitted(decision: Verdict | None, error: SealbusError | None) -> None:
    decided = Decided(opened=cast("Opened", None), decision=cast("Decision | None", decision), error=error)
    with pytest.raises(ValueError, match="not allowed"):
        permit(decided, b"", None, None)
