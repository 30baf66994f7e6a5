"""Messages without header and payload: nats-server takes one for the last answer to a pull request across accounts.

What it sends to that request afterwards reaches nobody, and is redelivered only after `ack_wait`. Anybody who may store a
message for an agent can store such a one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from support.dev_broker import INVENTORY, NAMES, OPERATOR, PRICING, SERVER_ID, STREAMS, Site
from support.dev_broker import running as broker
from support.identity import StaticIdentity
from support.lab import QUICK
from support.raw_nats import RawNats

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.bus.streams.plan import apply

pytestmark = pytest.mark.nats

WITHIN = 60.0
"""Much less than `ACK_WAIT`: what is only redelivered does not come within it."""
ACK_WAIT = 600.0
BATCH = 64


@asynccontextmanager
async def site_of(folder: Path) -> AsyncIterator[tuple[NatsTransport, RawNats]]:
    """Yield the victim's transport, and an attacker with an agent's rights."""
    site = Site(folder=folder)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as attacker,
        Connection(
            [server.url],
            identity=StaticIdentity(site.ca, str(PRICING)),
            server_ids=frozenset({SERVER_ID}),
            inbox_prefix=NAMES.inbox_prefix(PRICING),
            options=QUICK,
        ) as connection,
    ):
        await apply(STREAMS, operator.request)
        yield NatsTransport(connection), attacker


async def publish(transport: NatsTransport, subject: str, numbers: Sequence[int]) -> None:
    messages = [Outgoing(subject=subject, payload=b"%d" % one, message_id=f"{one:032x}") for one in numbers]
    answers = await transport.publish(messages, deadline=5)
    assert all(isinstance(one, PubAck) for one in answers), answers


def numbers_of(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(one.payload) for one in deliveries if one.payload]


async def test_after_the_first_they_hold_up_no_task(tmp_path: Path) -> None:
    async with site_of(tmp_path) as (victim, attacker):
        pull = victim.pull(
            "TASKS", "pricing", ["task.pricing.>"], batch=BATCH, ack_wait=ACK_WAIT, max_ack_pending=4 * BATCH
        )
        async with aclosing(pull.batches()) as batches, asyncio.timeout(WITHIN):
            await attacker.request("task.pricing.quote")
            first = await anext(batches)
            assert [one.payload for one in first] == [b""]
            pull.ack(first)
            for start in range(0, 200, 10):
                await publish(victim, "task.pricing.quote", range(start, start + 10))
                await attacker.request("task.pricing.quote")
            taken: list[Delivery] = []
            while len(taken) < 220:
                batch = await anext(batches)
                pull.ack(batch)
                taken += batch
            assert numbers_of(taken) == list(range(200))
            assert {one.arrival.delivery for one in taken if one.arrival is not None} == {1}


async def test_the_first_holds_up_what_was_in_its_batch_and_nothing_else(tmp_path: Path) -> None:
    """The rest of the batch comes again after `ack_wait`; what is stored later comes at once."""
    async with site_of(tmp_path) as (victim, attacker):
        await publish(victim, "task.pricing.quote", range(5))
        await attacker.request("task.pricing.quote")
        await publish(victim, "task.pricing.quote", range(5, 10))
        pull = victim.pull("TASKS", "pricing", ["task.pricing.>"], batch=BATCH, ack_wait=2.0, max_ack_pending=4 * BATCH)
        async with aclosing(pull.batches()) as batches, asyncio.timeout(WITHIN):
            taken: list[Delivery] = []
            while len(taken) < 6:
                batch = await anext(batches)
                pull.ack(batch)
                taken += batch
            await publish(victim, "task.pricing.quote", [99])
            while len(taken) < 12:
                batch = await anext(batches)
                pull.ack(batch)
                taken += batch
        again = {int(one.payload): one.arrival.delivery for one in taken if one.payload and one.arrival is not None}
        assert again == {**dict.fromkeys(range(5), 1), 99: 1, **dict.fromkeys(range(5, 10), 2)}


async def test_who_reads_a_stream_loses_nothing_and_waits_for_nothing(tmp_path: Path) -> None:
    """As who lists values does, of which a part would be no answer: stops, approvals, schedules."""
    async with site_of(tmp_path) as (victim, attacker):
        for number in range(60):
            await publish(victim, f"state.pricing.stop.{number:02d}.x", [number])
            if not number % 3:
                await attacker.request(f"state.inventory.stop.{number:02d}.x")
        async with asyncio.timeout(WITHIN):
            found = [value async for some in victim.values("STATE", "state.*.stop.*.*") for value in some]
            assert [int(one.payload) for _, one in found if one.payload] == list(range(60))
            assert len(found) == 80
            read: list[Delivery] = []
            async with aclosing(victim.read("STATE", ["state.*.stop.*.*"], follow=True)) as batches:
                while len(read) < 80:
                    read += await anext(batches)
                # And on from there, with more of them in between.
                await attacker.request("state.inventory.stop.99.x")
                await publish(victim, "state.pricing.stop.99.x", [99])
                while len(read) < 82:
                    read += await anext(batches)
            assert numbers_of(read) == [*range(60), 99]
