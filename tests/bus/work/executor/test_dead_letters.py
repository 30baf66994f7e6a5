"""Dead letters: verbatim, once, with the reason beside them; and not acknowledged before they are stored."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.own_subjects import OWN
from support.shop import Shop, Update

from sealbus import Agent, Context
from sealbus.bus.ports import StreamRefused
from sealbus.bus.work.executor import settlement
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.testing import TestBus

FULL = StreamRefused("DEAD: maximum bytes exceeded", 10_077)


@pytest.fixture
def shop() -> Shop:
    return Shop(fail=1_000)


@pytest.fixture
async def bus(shop: Shop) -> AsyncIterator[TestBus]:
    async with TestBus(shop.inventory, engine=ScriptedEngine()) as running:
        yield running


def reasons(bus: TestBus, agent: str = "inventory") -> list[dict[str, object]]:
    """Return the bodies of the events that say what died."""
    return [
        json.loads(parse_envelope(one.payload).body)
        for one in bus.stored("EVENTS")
        if one.subject == f"event.{agent}.dead"
    ]


async def test_a_reason_of_any_length_is_told() -> None:
    """An event that is too large to be sealed would have the delivery come back, and be handled, until it expires."""
    agent, runs = Agent("talkative"), []

    @agent.task("run", retry=0)
    async def run(body: Update, ctx: Context) -> None:
        runs.append(body.item_id)
        raise HandlingError(Code.HANDLER_FAILED, "x" * 1_000_000)

    async with TestBus(agent, engine=ScriptedEngine()) as bus:
        await (await bus.client("shop-web")).submit("talkative.run", Update(item_id="1"))
        await bus.idle()
        assert [one["detail"] for one in reasons(bus, "talkative")] == ["x" * 256]
    assert runs == ["1"]


async def test_a_dead_letter_is_the_task_itself_with_its_reason_as_an_event(bus: TestBus) -> None:
    client = await bus.client("shop-web")
    sent = await client.submit("inventory.hang", Update(item_id="1"))
    await bus.idle()
    (task,), (dead,) = bus.stored("TASKS"), bus.stored("DEAD")
    assert dead.payload == task.payload
    assert dead.subject == "dead.inventory.hang"
    assert reasons(bus) == [
        {
            "message": sent.message_id,
            "subject": "task.inventory.hang",
            "code": "handler_timeout",
            "detail": "over 0.05 s",
            "deliveries": 1,
        }
    ]
    (event,) = [parse_envelope(one.payload) for one in bus.stored("EVENTS")]
    header = parse_header(event.header)
    assert (header.kind, header.re, header.ctx) == (Kind.EVENT, sent.digest, None)


@pytest.mark.slow
async def test_only_the_last_attempt_is_buried_and_no_secret_of_the_handler(bus: TestBus) -> None:
    await (await bus.client("shop-web")).submit("inventory.update", Update(item_id="1"))
    await bus.idle(30)
    assert len(bus.stored("DEAD")) == 1
    (reason,) = reasons(bus)
    assert (reason["code"], reason["deliveries"]) == ("handler_failed", 3)
    assert "secret" not in json.dumps(reason)


@pytest.mark.parametrize("stream", ["DEAD", "EVENTS"])
async def test_a_task_that_cannot_be_buried_is_not_given_up(
    bus: TestBus, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "BURY_AGAIN", 0.01)
    bus.broker.fail(stream, FULL)
    await (await bus.client("shop-web")).submit("inventory.hang", Update(item_id="1"))
    counters = bus.workers["inventory"].node.counters
    await until(
        lambda: 'sealbus_handled_total{action="inventory.hang",outcome="handler_timeout"} 2' in counters.render()
    )
    assert not bus.broker.consumers["TASKS", "inventory"].idle
    bus.broker.fail(stream, None)
    await bus.idle()
    assert len(bus.stored("DEAD")) == 1
    assert len(reasons(bus)) == 1


async def test_what_came_on_an_own_subject_is_buried_under_its_handler() -> None:
    orders = Agent("orders")

    @orders.on("shop.orders.ship", retry=0)
    async def ship(body: Update, ctx: Context) -> None:
        raise ValueError("no")

    async with TestBus(orders, engine=ScriptedEngine(), own=OWN) as bus:
        await (await bus.client("shop-web")).submit("orders.ship", Update(item_id="1"))
        await bus.idle()
        (dead,) = bus.stored("DEAD")
        assert dead.subject.startswith("dead.orders.")
        assert reasons(bus, "orders")[0]["subject"] == "shop.orders.ship"
