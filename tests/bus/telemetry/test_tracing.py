"""Spans of messages: one trace over a chain, carried in the header; what strangers say of traces decides nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import context, trace
from opentelemetry.trace import StatusCode
from pydantic import BaseModel
from support.acceptance import Delivery, Message
from support.egress import ScriptedApi, answered, api_of, way_out
from support.engines import ScriptedEngine, allow, deny
from support.lab import until
from support.spans import KeptSpans

from sealbus import Agent, Context, Denied
from sealbus.agents.runtime.tracing import traceparent_fields
from sealbus.agents.sdk.messages import Origin
from sealbus.bus.ports import Overloaded, StreamRefused
from sealbus.bus.routing.retry import Retry
from sealbus.bus.telemetry.tracing import parent_of
from sealbus.testing import TestBus

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Item(BaseModel):
    id: str
    fail: bool = False


def agents() -> tuple[Agent, Agent, list[str]]:
    first, second = Agent("first"), Agent("second")
    seen: list[str] = []

    @first.task("do")
    async def do(body: Item, ctx: Context) -> None:
        if body.fail and not seen:
            seen.append("failed")
            raise Retry(after=0.01)
        seen.append(traceparent_fields()["traceparent"])
        await ctx.call("second.look", body, returns=Item)
        await ctx.emit("done", body)

    @second.call("look")
    async def look(body: Item, ctx: Context) -> Item:
        del ctx
        return body

    @second.on("event.first.done")
    async def done(body: Item, ctx: Context) -> None:
        del body, ctx

    return first, second, seen


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> KeptSpans:
    return KeptSpans(monkeypatch)


@pytest.fixture(autouse=True)
def no_span_before() -> Iterator[None]:
    token = context.attach(context.Context())
    yield
    context.detach(token)


async def test_a_chain_is_one_trace_and_each_span_follows_from_the_one_before(spans: KeptSpans) -> None:
    first, second, seen = agents()
    async with TestBus(first, second, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        handle = await client.submit("first.do", Item(id="1"), user=bus.user("alice", "shop-web"))
        await handle.result()
        await bus.idle()
    names = {one.context.span_id: one.name for one in spans.ended}
    after = [(names.get(one.parent.span_id) if one.parent else None, one.name) for one in spans.ended]
    assert sorted(after, key=str) == sorted(
        [
            (None, "send task.first.do"),
            ("send task.first.do", "process first.do"),
            ("process first.do", "send call.second.look"),
            ("send call.second.look", "process second.look"),
            ("process first.do", "send event.first.done"),
            ("send event.first.done", "process first.done"),
        ],
        key=str,
    )
    [trace_id] = {one.context.trace_id for one in spans.ended}
    [processed] = spans.named("process first.do")
    attributes = dict(processed.attributes or {})
    assert seen == [f"00-{trace_id:032x}-{processed.context.span_id:016x}-01"]
    # Stream deliveries link to who sent them, too; calls do not.
    assert [len(one.links) for one in spans.ended if one.name.startswith("process")] == [1, 0, 1]
    assert attributes["messaging.message.id"] == handle.message_id
    assert attributes["sealbus.verdict"] == "allow"
    assert attributes["sealbus.settled"] == "acknowledged"
    assert (processed.start_time or 0) < (processed.end_time or 0)
    times = [int(str(attributes[f"sealbus.{name}"])) for name in ("received", "decided", "recorded", "handled")]
    assert times == sorted(times)
    said = repr([dict(one.attributes or {}) for one in spans.ended])
    assert "alice" not in said


async def test_a_denial_and_an_attempt_that_fails_end_their_spans(spans: KeptSpans) -> None:
    first, second, _ = agents()
    engine = ScriptedEngine()
    async with TestBus(first, second, engine=engine) as bus:
        client = await bus.client("shop-web")
        await (await client.submit("first.do", Item(id="1", fail=True))).result()
        engine.verdict = lambda _: deny("no")
        with pytest.raises(Denied):
            await (await client.submit("first.do", Item(id="2"))).result()
        await bus.idle()
    failed, done, denied = spans.named("process first.do")
    assert [dict(one.attributes or {}).get("sealbus.settled") for one in (failed, done, denied)] == [
        "put off",
        "acknowledged",
        "denied",
    ]
    assert (failed.status.status_code, dict(failed.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "handler_failed",
    )
    assert done.status.status_code is StatusCode.UNSET
    assert dict(denied.attributes or {})["sealbus.verdict"] == "denied"


async def test_what_is_sent_goes_on_in_the_trace_of_its_chain_whatever_the_current_span(spans: KeptSpans) -> None:
    first, second, _ = agents()
    async with TestBus(first, second, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        origin = Origin(tid=bytes.fromhex(TRACE))
        with spans.provider.get_tracer("user").start_as_current_span("of the user's own"):
            await (await client.node.sending.submit("first.do", Item(id="1"), origin=origin)).result()
            await (await client.submit("first.do", Item(id="2"))).result()
        await bus.idle()
    chained, own = spans.named("send task.first.do")
    assert f"{chained.context.trace_id:032x}" == TRACE
    [outer] = spans.named("of the user's own")
    assert own.parent is not None
    assert own.parent.span_id == outer.context.span_id


async def test_a_message_that_is_not_stored_ends_its_span_as_an_error(spans: KeptSpans) -> None:
    first, _, _ = agents()
    async with TestBus(first, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        bus.broker.fail("TASKS", StreamRefused("maximum bytes exceeded", 10077))
        with pytest.raises(Overloaded):
            await client.submit("first.do", Item(id="1"))
    [sent] = spans.ended
    assert (sent.name, sent.status.status_code) == ("send task.first.do", StatusCode.ERROR)
    assert dict(sent.attributes or {})["error.type"] == "overloaded"


def test_a_parent_is_taken_only_from_the_messages_own_trace() -> None:
    header = Delivery().accept(Message()).header
    ours = f"00-{TRACE}-{SPAN}-00"
    assert parent_of(header._replace(tid=None, ext={"traceparent": ours})) is None
    assert parent_of(header._replace(tid=bytes(16), ext=None)) is None
    found = parent_of(header._replace(tid=bytes.fromhex(TRACE), ext={"traceparent": ours}))
    assert found is not None
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags) == (TRACE, SPAN, 0)
    for said in (
        f"00-{'1' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"{ours}-more",
        "\x1b[2J",
        7,
        b"x",
    ):
        other = parent_of(header._replace(tid=bytes.fromhex(TRACE), ext={"traceparent": said}))
        assert other is not None
        assert f"{other.trace_id:032x}" == TRACE
        assert other.span_id == int.from_bytes(header.digest[:8])


async def test_who_does_not_sample_is_not_sampled_on_the_way(spans: KeptSpans) -> None:
    first, second, seen = agents()
    async with TestBus(first, second, engine=ScriptedEngine()) as bus:
        client = await bus.client("shop-web")
        parent = trace.SpanContext(int(TRACE, 16), int(SPAN, 16), True, trace.TraceFlags(0))
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
        await (await client.submit("first.do", Item(id="1"))).result()
        context.detach(token)
        await bus.idle()
    assert spans.ended == []
    [said] = seen
    assert said.startswith(f"00-{TRACE}-")
    assert said.endswith("-00")


async def test_an_api_outside_is_told_the_trace(spans: KeptSpans) -> None:
    reader = Agent("reader")

    @reader.call("look")
    async def look(body: Item, ctx: Context) -> Item:
        await ctx.http("crm").get("/customers/acme")
        return body

    async with ScriptedApi(lambda _: answered()) as api, way_out(api_of(api.url), agents=[reader]) as out:
        client = await out.bus.client("shop-web")
        await client.call("reader.look", Item(id="1"), returns=Item, user=out.bus.user("alice", "shop-web"))
    await until(lambda: bool(spans.named("process exit.crm")))
    [exit_] = spans.named("process exit.crm")
    [asked] = api.asked
    assert asked.headers["traceparent"] == f"00-{exit_.context.trace_id:032x}-{exit_.context.span_id:016x}-01"


async def test_without_a_tracer_nothing_is_carried() -> None:
    first, second, _ = agents()
    async with TestBus(second, engine=ScriptedEngine(lambda _: allow())) as bus:
        client = await bus.client("shop-web")
        assert client.node.tracer is None
        await client.call("second.look", Item(id="1"), returns=Item)
    assert traceparent_fields() == {}
    del first
