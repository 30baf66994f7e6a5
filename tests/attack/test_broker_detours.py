"""Detours through the broker: what an agent can have the server itself publish for it, past its own permissions.

nats-server asks nobody whether a client may publish to the reply subject of its request, or to the subject that a push
consumer of its own delivers to. So neither may be worth anything: what comes that way is refused, and changes nothing.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.dev_broker import INVENTORY, NAMES, OPERATOR, PRICING, SERVER_ID, STREAMS, Site
from support.dev_broker import running as broker
from support.engines import ScriptedEngine
from support.identity import StaticIdentity
from support.lab import QUICK, until
from support.own_subjects import OWN, Orders
from support.raw_nats import RawNats
from support.real_bus import RealBus, real_bus
from support.shop import Price, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry, AuditTrail, Finding
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.streams.plan import apply
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.records.archive import ArchiveProfile

pytestmark = pytest.mark.nats

CREATE = "$JS.API.CONSUMER.CREATE.TASKS.inventory.task.inventory.>"
PUSH = {"name": "inventory", "durable_name": "inventory", "ack_policy": "none", "filter_subject": "task.inventory.>"}
FORBIDDEN = (
    "audit.pricing",
    "event.pricing.changed",
    "dead.pricing.quote",
    "refused.pricing",
    "call.pricing.quote",
    "state.pricing.effect.00",
    "$JS.ACK.TASKS.pricing.1.1.1.1700000000000000000.0",
    "_INBOX.pricing.0123456789abcdef.0123456789abcdef01234567",
    "$JS.API.STREAM.PURGE.TASKS",
    "$JS.API.STREAM.MSG.DELETE.TASKS",
    "$JS.API.STREAM.DELETE.DEAD",
)


async def first(operator: RawNats, stream: str, sequence: int = 1) -> tuple[str, bytes]:
    """Return subject and payload of the stream's first message, or that of `sequence`, as soon as there is one."""
    async with asyncio.timeout(60):
        while True:
            found = (await operator.ask(f"$JS.API.STREAM.MSG.GET.{stream}", {"seq": sequence})).get("message")
            if isinstance(found, dict):
                return str(found["subject"]), b64decode(str(found["data"]))


async def counts(operator: RawNats) -> dict[str, object]:
    """Return how many messages each stream holds; a stream that is gone is missing."""
    found: dict[str, object] = {}
    for stream in STREAMS:
        answer = await operator.ask(f"$JS.API.STREAM.INFO.{stream.name}")
        state = answer.get("state")
        if isinstance(state, dict):
            found[stream.name] = state["messages"]
    return found


async def test_a_push_consumer_reaches_no_stream_no_inbox_and_no_api(tmp_path: Path) -> None:
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        await agent.request("task.inventory.x", b"planted")
        before = await counts(operator)
        for subject in FORBIDDEN:
            made = await agent.ask(CREATE, {"stream_name": "TASKS", "config": {**PUSH, "deliver_subject": subject}})
            assert "error" not in made, made
            # The server pushes only to where a client subscribes to exactly this subject: here nobody does.
            info = await operator.ask("$JS.API.CONSUMER.INFO.TASKS.inventory")
            assert not info.get("push_bound"), subject
            await operator.ask("$JS.API.CONSUMER.DELETE.TASKS.inventory")
        # One that does deliver, after all of them: had they been served, it would be seen by now.
        agent.subscribe("_INBOX.inventory.control")
        await agent.settle()
        config = {**PUSH, "deliver_subject": "_INBOX.inventory.control"}
        await agent.ask(CREATE, {"stream_name": "TASKS", "config": config})
        async with asyncio.timeout(60):
            while not any(payload == b"planted" for _, payload in agent.messages):
                await agent.settle()
        assert await counts(operator) == before


async def test_the_answers_of_the_server_do_nothing_to_its_own_api(tmp_path: Path) -> None:
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        for _ in range(3):
            await agent.request("task.inventory.x", b"stays")
        await agent.request("dead.inventory.x", b"stays")
        before = await counts(operator)
        for verb in ("PURGE.TASKS", "MSG.DELETE.TASKS", "DELETE.TASKS", "PURGE.DEAD", "MSG.DELETE.DEAD", "DELETE.DEAD"):
            # A PubAck names a stream and a sequence, as a request to delete a message would.
            agent.publish("dead.inventory.x", b"y", reply=f"$JS.API.STREAM.{verb}")
            agent.publish("$JS.API.STREAM.LIST", reply=f"$JS.API.STREAM.{verb}")
        assert await agent.settle() == []
        await agent.request("dead.inventory.x", b"control")
        assert await counts(operator) == {**before, "DEAD": 1 + 6 + 1}


PLANTED = {
    "audit.pricing": "AUDIT",
    "event.pricing.changed": "EVENTS",
    "dead.pricing.quote": "DEAD",
    "state.pricing.effect.00": "STATE",
    "status.pricing.0123": "RESULTS",
}


async def test_bytes_of_an_agents_own_can_be_stored_in_any_stream(tmp_path: Path) -> None:
    """By a pull of its own message with a reply subject of its choice (SECURITY.md)."""
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        made = await agent.ask(CREATE, {"stream_name": "TASKS", "config": {**PUSH, "ack_policy": "explicit"}})
        assert "error" not in made, made
        before = await counts(operator)
        for number, subject in enumerate(PLANTED):
            await agent.request("task.inventory.x", b"planted %d" % number)
            agent.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory", b"1", reply=subject)
        assert await agent.settle() == []
        for number, stream in enumerate(PLANTED.values()):
            # Under the subject that it was sent to: what another has there is not replaced.
            assert await first(operator, stream) == ("task.inventory.x", b"planted %d" % number)
        after = await counts(operator)
        assert {name for name in after if after[name] != before[name]} == {"TASKS", *PLANTED.values()}


async def test_bytes_of_an_agents_own_can_be_stored_under_anybodys_name(tmp_path: Path) -> None:
    """By asking for a value of its own in STATE: the answer is what it put there, and goes to whatever reply subject."""
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        await agent.request("state.inventory.mine", b"bytes of its own")
        for subject in PLANTED:
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.mine", b"", reply=subject)
        assert await agent.settle() == []
        for subject, stream in PLANTED.items():
            least = 2 if stream == "STATE" else 1
            assert await first(operator, stream, least) == (subject, b"bytes of its own")


ANSWERS = {
    "with a subject, sequence and time of its own": b"NATS/1.0\r\n\r\n",
    "that claims to be another's": (
        b"NATS/1.0\r\nNats-Subject: state.inventory.x\r\nNats-Sequence: 99\r\nNats-Time-Stamp: 2000-01-01T00:00:00Z\r\n\r\n"
    ),
    "that there is nothing": b"NATS/1.0 404 Message Not Found\r\n\r\n",
    "that nobody answers": b"NATS/1.0 503\r\n\r\n",
}


async def test_what_an_answer_of_the_server_was_written_over_can_be_read_and_replaced(tmp_path: Path) -> None:
    """Else a notary could be kept from its lease, and a cancel from being stored, by one message."""
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
        Connection(
            [server.url],
            identity=StaticIdentity(site.ca, str(PRICING)),
            server_ids=frozenset({SERVER_ID}),
            inbox_prefix=NAMES.inbox_prefix(PRICING),
            options=QUICK,
        ) as connection,
    ):
        await apply(STREAMS, operator.request)
        keyed, victim = KeyValue(NatsTransport(connection)), "state.pricing.lease"
        written = await keyed.create(victim, b"mine")
        for answer, block in ANSWERS.items():
            await agent.request("state.inventory.mine", b"planted", block=block)
            agent.publish("$JS.API.DIRECT.GET.STATE.state.inventory.mine", b"", reply=victim)
            assert await agent.settle() == []
            async with asyncio.timeout(60):
                while (found := await keyed.get(victim)) is None or found.sequence == written:
                    await agent.settle()
            assert found.payload == b"planted", answer
            written = await keyed.replace(victim, b"mine again", last=found.sequence)
            assert written is not None, answer


@pytest.mark.parametrize("stream", ["RESULTS", "STATE", "TASKS"])
async def test_no_agent_learns_the_subjects_of_others(tmp_path: Path, stream: str) -> None:
    """`status.<requester>.<task>` and `state.<agent>.effect.<key>` end in what is between two: not by any question."""
    site, filters = Site(folder=tmp_path), b'{"subjects_filter":">"}'
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        await operator.request("status.shop-web.5ec2e7", b"of others")
        await agent.request("status.shop-web.0123", b"a status of its own making")
        # An operator sees them: the question is a good one.
        assert "5ec2e7" in str(await operator.ask("$JS.API.STREAM.INFO.RESULTS", {"subjects_filter": ">"}))
        agent.publish(f"$JS.API.STREAM.INFO.{stream}", filters, reply="_INBOX.inventory.reply.aa.1")
        (refused,) = await agent.settle()
        assert f"$JS.API.STREAM.INFO.{stream}" in refused
        for question in (
            {},
            {"subjects_filter": ">"},
            {"subject": "status.>"},
            {"subject": "status.>", "deleted_details": True},
        ):
            for verb in ("LIST", "NAMES"):
                assert "5ec2e7" not in str(await agent.ask(f"$JS.API.STREAM.{verb}", question))


# What acceptance makes of it


class Victim:
    """A worker that serves an own call subject and an own event, and an attacker with an agent's rights."""

    def __init__(self, bus: RealBus, orders: Orders, client: Client, counters: Counters) -> None:
        self.bus = bus
        self.orders = orders
        self.client = client
        self.counters = counters

    def publish(self, subject: str, payload: bytes, *, reply: str) -> None:
        frame = f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"
        self.bus.connections["shop-web"].link.write(frame)

    async def refused(self, code: str, least: int = 1) -> None:
        """Wait until the worker has refused so many by `code`."""

        await until(lambda: self.counters.value("sealbus_refused_total", code=code) >= least)

    async def still_works(self) -> None:
        price = await self.client.call("orders.price", Update(item_id="1", quantity=2), returns=Price)
        assert price == Price(item_id="1", price=6)


@asynccontextmanager
async def victim(folder: Path) -> AsyncIterator[Victim]:
    orders, engine, stop = Orders(), ScriptedEngine(), asyncio.Event()
    async with (
        real_bus(folder, "orders", "shop-web", own=OWN, permitted=True) as bus,
        asyncio.timeout(60),
        asyncio.TaskGroup() as group,
    ):
        node = await bus.node("orders", engine)
        client = Client.on(await bus.node("shop-web", engine))
        async with Worker(orders.agent, node) as worker:
            running = group.create_task(worker.run(stop))
            await worker.ready.wait()
            yield Victim(bus, orders, client, node.counters)
            stop.set()
            await running


async def test_what_is_pushed_onto_a_served_subject_is_refused(tmp_path: Path) -> None:
    """An own call subject is subscribed to as it is, in its owner's group, so that somebody's push consumer reaches it."""
    async with victim(tmp_path) as attacked:
        await attacked.still_works()
        attacker = attacked.bus.connections["shop-web"]
        (ack,) = await NatsTransport(attacker).publish(
            [Outgoing(subject="task.shop-web.x", payload=b"any bytes", message_id="0" * 32)], deadline=5
        )
        assert not isinstance(ack, Exception)
        config = {
            "name": "shop-web",
            "durable_name": "shop-web",
            "ack_policy": "none",
            "filter_subject": "task.shop-web.>",
            "deliver_subject": "shop.orders.price",
            "deliver_group": "orders",
        }
        made = await api(
            attacker.jetstream,
            "CONSUMER.CREATE.TASKS.shop-web.task.shop-web.>",
            {"stream_name": "TASKS", "config": config},
        )
        assert "error" not in made
        # It comes under the subject that it was stored on, which no handler has.
        await attacked.refused("wrong_subject")
        await attacked.still_works()


async def test_an_answer_of_the_server_stored_as_an_event_is_refused(tmp_path: Path) -> None:
    async with victim(tmp_path) as attacked:
        attacked.publish("task.shop-web.x", b"y", reply="shop.sold")
        await attacked.refused("malformed")
        assert attacked.orders.handled.empty()
        await attacked.still_works()


async def test_an_answer_of_the_server_in_the_audit_is_a_finding_beside_the_records(tmp_path: Path) -> None:
    async with victim(tmp_path) as attacked:
        attacked.publish("task.shop-web.x", b"y", reply="audit.orders")
        await attacked.still_works()
        operator = await attacked.bus.node("operator", ScriptedEngine())
        trail = AuditTrail(
            transport=operator.transport,
            profile=ArchiveProfile(names=attacked.bus.names, minters=frozenset({attacked.bus.edge})),
            bundles=operator.identity.bundles,
        )
        entries = [entry async for entry in trail.entries()]
        findings = [one for one in entries if isinstance(one, Finding)]
        assert [(one.subject, one.code) for one in findings] == [("audit.orders", "malformed")]
        assert [one for one in entries if isinstance(one, AuditEntry)]
