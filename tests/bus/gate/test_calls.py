"""The requester's side of calls: what of its inbox counts as an answer, and how a call ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from support.engines import ScriptedEngine
from support.lab import until
from support.shop import Price, Shop, Update

from sealbus import Agent, Context
from sealbus.agents.dev.memory.broker import MemoryTransport
from sealbus.agents.runtime.client import Client
from sealbus.bus.gate import calls as module
from sealbus.bus.ports import Delivery, Outgoing
from sealbus.bus.sending.answer import CallExpired, ChunkedAnswer, RemoteError
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.testing import TestBus

SLOW = Agent("slow")
"""Answers when it is told to."""
GO: asyncio.Event
RUN: list[str] = []
"""Handlers that began."""


@SLOW.call("quote")
async def quote(body: Update, ctx: Context) -> Price:
    await GO.wait()
    return Price(item_id=body.item_id, price=body.quantity)


@SLOW.call("many", chunks=True)
async def many(body: Update, ctx: Context) -> AsyncIterator[int]:
    RUN.append("many")
    for number in range(body.quantity):
        yield number


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    global GO  # noqa: PLW0603  made on each test's own loop
    GO = asyncio.Event()
    RUN.clear()
    async with TestBus(SLOW, Shop().pricing, engine=ScriptedEngine()) as running:
        yield running
        GO.set()


@pytest.fixture
async def client(bus: TestBus) -> Client:
    return await bus.client("shop-web")


def replies(bus: TestBus, monkeypatch: pytest.MonkeyPatch) -> list[Outgoing]:
    """Return a list of all answers that are sent from now on, which are held back."""
    held: list[Outgoing] = []
    send = MemoryTransport.send

    def holding(self: MemoryTransport, messages: list[Outgoing]) -> None:
        for one in messages:
            if one.subject.startswith("_INBOX."):
                held.append(one)
            else:
                send(self, [one])

    monkeypatch.setattr(MemoryTransport, "send", holding)
    return held


async def refused(bus: TestBus, count: int) -> list[str]:
    """Wait until so many deliveries were refused, and return their codes."""
    counters = (await bus.client("shop-web")).node.counters
    await until(lambda: counters.value("sealbus_refused_total") >= count)
    return [str(one["code"]) for one in await bus.flush_refusals() for _ in range(int(str(one["count"])))]


async def test_each_call_has_an_address_of_its_own_that_nobody_else_may_read(client: Client) -> None:
    addresses = [client.node.requests.address() for _ in range(3)]
    assert len(set(addresses)) == 3
    for address in addresses:
        inbox, token, reply, random, number = address.split(".")
        assert (inbox, token, reply) == ("_INBOX", "shop-web", "reply")
        assert len(random) == 16
        assert number.isdigit()


async def test_many_calls_at_a_time_each_get_their_own_answer(client: Client) -> None:
    GO.set()
    prices = await asyncio.gather(
        *(client.call("slow.quote", Update(item_id=str(n), quantity=n), returns=Price) for n in range(50))
    )
    assert [one.price for one in prices] == list(range(50))


async def test_silence_ends_a_call_at_its_own_time(client: Client) -> None:
    with pytest.raises(CallExpired) as ended:
        await client.call("slow.quote", Update(item_id="1"), returns=Price, timeout=0.05)
    assert ended.value.code is Code.EXPIRED


async def test_an_answer_after_the_end_changes_nothing(bus: TestBus, client: Client) -> None:
    with pytest.raises(CallExpired):
        await client.call("slow.quote", Update(item_id="1"), returns=Price, timeout=0.05)
    GO.set()
    assert await refused(bus, 1) == ["unexpected_reply"]


async def test_garbage_on_the_inbox_is_refused_and_the_call_stays_open(
    bus: TestBus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = replies(bus, monkeypatch)
    GO.set()
    calling = asyncio.ensure_future(client.call("slow.quote", Update(item_id="1", quantity=5), returns=Price))
    await until(lambda: bool(held))
    genuine = held[0]
    flipped = bytearray(genuine.payload)
    flipped[len(flipped) // 2] ^= 1
    elsewhere = genuine.subject.rpartition(".")[0] + ".999"
    for subject, payload in (
        (genuine.subject, b""),
        (genuine.subject, b"\xff" * 500),
        (genuine.subject, bytes(flipped)),
        (elsewhere, genuine.payload),
    ):
        bus.broker.deliver(Delivery(subject=subject, payload=payload, header_block=b""))
    codes = await refused(bus, 4)
    assert len(codes) == 4
    assert not calling.done()
    bus.broker.deliver(Delivery(subject=genuine.subject, payload=genuine.payload, header_block=b""))
    assert await calling == Price(item_id="1", price=5)


async def test_the_answer_of_one_call_is_none_of_another(
    bus: TestBus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = replies(bus, monkeypatch)
    GO.set()
    calls = [
        asyncio.ensure_future(client.call("slow.quote", Update(item_id=str(n), quantity=n), returns=Price))
        for n in range(2)
    ]
    await until(lambda: len(held) == 2)
    first, second = held
    for one, other in ((first, second), (second, first)):
        bus.broker.deliver(Delivery(subject=one.subject, payload=other.payload, header_block=b""))
    await refused(bus, 2)
    assert not any(one.done() for one in calls)
    for one in held:
        bus.broker.deliver(Delivery(subject=one.subject, payload=one.payload, header_block=b""))
    assert [one.price for one in await asyncio.gather(*calls)] == [0, 1]


async def test_a_second_copy_of_an_answer_is_dropped(
    bus: TestBus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = replies(bus, monkeypatch)
    GO.set()
    calling = asyncio.ensure_future(client.call("slow.quote", Update(item_id="1", quantity=5), returns=Price))
    await until(lambda: bool(held))
    again = Delivery(subject=held[0].subject, payload=held[0].payload, header_block=b"")
    bus.broker.deliver(again)
    assert (await calling).price == 5
    bus.broker.deliver(again)
    assert await refused(bus, 1) == ["unexpected_reply"]


@pytest.mark.parametrize("quantity", [0, 1, 3])
async def test_a_call_of_what_answers_in_chunks_raises_and_drops_nothing_in_silence(
    client: Client, quantity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an agent that does not know of the mark."""
    monkeypatch.setattr("sealbus.bus.work.executor.attempt.takes_one_answer", lambda header: False)
    with pytest.raises(ChunkedAnswer) as caught:
        await client.call("slow.many", Update(item_id="1", quantity=quantity), returns=int)
    assert (caught.value.code, caught.value.detail) == (Code.BAD_RESULT, "slow.many answers in chunks: use stream")


async def test_what_answers_in_chunks_is_not_run_for_who_takes_one_answer(bus: TestBus, client: Client) -> None:
    with pytest.raises(RemoteError) as caught:
        await client.call("slow.many", Update(item_id="1", quantity=3), returns=int)
    assert caught.value.code is Code.NOT_ACCEPTABLE
    assert RUN == []
    assert [one async for one in client.stream("slow.many", Update(item_id="1", quantity=1), returns=int)] == [0]
    assert RUN == ["many"]
    await bus.idle()
    outcomes = [one.record for one in await bus.audit() if isinstance(one.record, OutcomeRecord)]
    assert [one.code for one in outcomes if one.code] == ["not_acceptable"]


async def test_chunks_end_with_the_last_and_a_reader_may_leave_early(client: Client) -> None:
    assert [one async for one in client.stream("slow.many", Update(item_id="1", quantity=4), returns=int)] == [
        0,
        1,
        2,
        3,
    ]
    async with aclosing(client.stream("slow.many", Update(item_id="1", quantity=50), returns=int)) as chunks:
        assert await anext(chunks) == 0
    GO.set()
    assert (await client.call("slow.quote", Update(item_id="1", quantity=5), returns=Price)).price == 5


@pytest.mark.parametrize("bound", ["CHUNKS_WAITING", "BYTES_WAITING"])
async def test_a_reader_that_lags_behind_loses_the_call_and_no_other(
    client: Client, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(module, bound, 4)
    got: list[int] = []

    async def read_slowly() -> None:
        chunks = client.stream("slow.many", Update(item_id="1", quantity=500), returns=int, timeout=0.5)
        async with aclosing(chunks):
            async for chunk in chunks:
                got.append(chunk)
                await asyncio.sleep(0.002)

    with pytest.raises(CallExpired):
        await read_slowly()
    assert got == list(range(len(got)))
    assert len(got) < 500
    GO.set()
    assert (await client.call("slow.quote", Update(item_id="1", quantity=5), returns=Price)).price == 5


async def test_what_nobody_reads_any_more_is_canceled(
    bus: TestBus, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNKS_WAITING", 4)
    async with aclosing(client.stream("slow.many", Update(item_id="1", quantity=500), returns=int)) as chunks:
        await anext(chunks)
        await until(lambda: any(one.subject == "control.slow.cancel" for one in bus.stored("TASKS")))
