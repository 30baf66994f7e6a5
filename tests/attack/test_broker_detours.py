"""Detours through the broker: what an agent can have the server itself publish for it, past its own permissions.

nats-server asks nobody whether a client may publish to the reply subject of its request, or to the subject that a push
consumer of its own delivers to. The streams are in an account of their own, so that neither is ever stored. On core NATS what
comes that way is refused, and changes nothing.
"""

from __future__ import annotations

import asyncio
import json
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

from sealbus.agents.dev.nats.accounts import imports
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.audit.trail import AuditEntry, AuditTrail
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
        # Nor to an inbox of its own: the server pushes within the account of the streams.
        agent.subscribe("_INBOX.inventory.control")
        await agent.settle()
        config = {**PUSH, "deliver_subject": "_INBOX.inventory.control"}
        await agent.ask(CREATE, {"stream_name": "TASKS", "config": config})
        assert not (await operator.ask("$JS.API.CONSUMER.INFO.TASKS.inventory")).get("push_bound")
        await operator.ask("$JS.API.CONSUMER.DELETE.TASKS.inventory")
        # One that does deliver, after all of them: had they been served, it would be seen by now. Only who is in that account
        # can be reached, on exactly a subject that it subscribed to.
        operator.subscribe("_INBOX.operator.control")
        await operator.settle()
        config = {**PUSH, "deliver_subject": "_INBOX.operator.control"}
        await agent.ask(CREATE, {"stream_name": "TASKS", "config": config})
        async with asyncio.timeout(60):
            while not any(payload == b"planted" for _, payload in operator.messages):
                await operator.settle()
        await agent.settle()
        assert not any(payload == b"planted" for _, payload in agent.messages)
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


PLANTED = (
    "audit.pricing",
    "event.pricing.changed",
    "dead.pricing.quote",
    "refused.pricing",
    "status.pricing.0123",
    "task.pricing.quote",
    "control.pricing.cancel",
    "state.pricing.effect.00",
    "state.pricing.stop.0123.shop-web",
    "held.pricing.schedule.made-up",
    "held.notary.keys",
    "$O.policies.M.cmV2b2NhdGlvbnM=",
    "$JS.API.STREAM.PURGE.DEAD",
)
"""What another agent has there, or the server takes as its own."""

NEXT = "$JS.API.CONSUMER.MSG.NEXT.TASKS"
DETOURS = {
    "a value of its own": ("$JS.API.DIRECT.GET.STATE.state.inventory.mine", b""),
    "a value that it planted with a status": ("$JS.API.DIRECT.GET.STATE.state.inventory.status", b""),
    "that there is no such value": ("$JS.API.DIRECT.GET.STATE.state.inventory.none", b""),
    "an answer of the API": ("$JS.API.STREAM.LIST", b""),
    "a refusal of the API": ("$JS.API.STREAM.NAMES", b"not JSON"),
    "the acknowledgement of a message": ("event.inventory.changed", b"x"),
    "messages of its own": (f"{NEXT}.inventory", b'{"batch": 3}'),
    "that there is no message": (f"{NEXT}.id-ctl-inventory", b'{"batch": 1, "no_wait": true}'),
    "that a request is malformed": (f"{NEXT}.inventory", b"{"),
    "heartbeats": (f"{NEXT}.id-ctl-inventory", b'{"batch": 1, "expires": 1000000000, "idle_heartbeat": 100000000}'),
    "the end of an acknowledgement": ("$JS.ACK.TASKS.inventory.1.1.1.1700000000000000000.0", b"+ACK"),
    "the next message": ("$JS.ACK.TASKS.inventory.1.2.2.1700000000000000000.0", b"+NXT"),
    "a consumer": ("$JS.API.CONSUMER.INFO.TASKS.inventory", b""),
}


@asynccontextmanager
async def prepared(folder: Path) -> AsyncIterator[tuple[RawNats, RawNats]]:
    """Yield an operator, and an agent who has put there what it would have the server answer with."""
    site = Site(folder=folder)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        for name, subjects in (("inventory", "task.inventory.>"), ("id-ctl-inventory", "control.inventory.>")):
            config = {"durable_name": name, "ack_policy": "explicit", "filter_subject": subjects}
            made = await agent.ask(
                f"$JS.API.CONSUMER.CREATE.TASKS.{name}.{subjects}", {"stream_name": "TASKS", "config": config}
            )
            assert "error" not in made, made
        await agent.request("state.inventory.mine", b"bytes of its own")
        await agent.request("state.inventory.status", b"", block=b"NATS/1.0 503\r\n\r\n")
        yield operator, agent


@pytest.mark.parametrize("detour", DETOURS)
async def test_no_answer_of_the_server_is_stored(tmp_path: Path, detour: str) -> None:
    """The streams are in another account than who asks; in one account nearly every one of these was stored."""
    request, payload = DETOURS[detour]
    async with prepared(tmp_path) as (operator, agent):
        for number in range(60):
            await agent.request("task.inventory.x", b"planted %d" % number)
        before = await counts(operator)
        for subject in PLANTED:
            for _ in range(5):
                agent.publish(request, payload, reply=subject)
        assert await agent.settle() == []
        # Asked by the same way, and answered after all of them.
        for own in ("state.inventory.mine", "event.inventory.changed"):
            await agent.request(own, b"control")
        if "heartbeat" in payload.decode():
            agent.subscribe("_INBOX.inventory.beats")
            agent.publish(request, payload, reply="_INBOX.inventory.beats")
            async with asyncio.timeout(60):
                while sum(subject == "_INBOX.inventory.beats" for subject, _ in agent.messages) < 3:
                    await agent.settle()
        sent = 5 * len(PLANTED) if request.startswith("event.") else 0
        assert await counts(operator) == {**before, "EVENTS": sent + 1}


async def test_what_passes_between_the_accounts_is_stored_as_it_was_sent(tmp_path: Path) -> None:
    """Step 6 of acceptance looks for the one line of the message id in the stored header block: SPEC.md section 7."""
    message_id = b"0123456789abcdef0123456789abcdef"
    blocks = (
        b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % message_id,
        b"NATS/1.0\r\nNats-Msg-Id: %b1\r\ntraceparent: 00-1\r\nX:  y \r\nx: y\r\nEmpty:\r\n\r\n" % message_id[1:],
        b"NATS/1.0\r\nz: 1\r\nnats-msg-id: %b\r\nNats-Msg-Id:%b2\r\n\r\n" % (message_id, message_id[1:]),
        b"",
    )
    async with prepared(tmp_path) as (operator, agent):
        for block in blocks:
            await agent.request("task.inventory.x", b"body", block=block)
        for number, block in enumerate(blocks, 1):
            found = (await operator.ask("$JS.API.STREAM.MSG.GET.TASKS", {"seq": number}))["message"]
            assert isinstance(found, dict)
            assert b64decode(str(found.get("hdrs", ""))) == block
        # And what a consumer delivers is the same, and the message id is remembered.
        again = json.loads(await agent.request("task.inventory.x", b"body", block=blocks[0]))
        assert (again["seq"], again.get("duplicate")) == (1, True)


async def test_no_subject_of_an_agent_crosses_that_makes_or_removes_streams(tmp_path: Path) -> None:
    """Also a permission too many would let nobody do it: it is not imported."""
    crossing = [str(one["service"]["subject"]) for one in imports()]  # type: ignore[index]  # as the configuration has it
    for verb in (
        "CREATE",
        "UPDATE",
        "DELETE",
        "PURGE",
        "SNAPSHOT",
        "RESTORE",
        "MSG.GET",
        "PEER.REMOVE",
        "LEADER.STEPDOWN",
    ):
        assert not any(one.startswith(f"$JS.API.STREAM.{verb}") for one in crossing)
    assert [one for one in crossing if one.startswith("$JS.API.STREAM.MSG")] == ["$JS.API.STREAM.MSG.DELETE.DEAD"]
    assert not {">", "$JS.>", "$JS.API.>", "$JS.API.STREAM.>", "$JS.API.CONSUMER.>"} & set(crossing)


ANSWERS = {
    "with a subject, sequence and time of its own": b"NATS/1.0\r\n\r\n",
    "that claims to be another's": (
        b"NATS/1.0\r\nNats-Subject: state.inventory.x\r\nNats-Sequence: 99\r\nNats-Time-Stamp: 2000-01-01T00:00:00Z\r\n\r\n"
    ),
    "that there is nothing": b"NATS/1.0 404 Message Not Found\r\n\r\n",
    "that nobody answers": b"NATS/1.0 503\r\n\r\n",
}


async def test_what_an_answer_of_the_server_was_written_over_can_be_read_and_replaced(tmp_path: Path) -> None:
    """Else a notary could be kept from its lease, and a cancel from being stored, by one message.

    Only who is in the account of the streams can have that done: there it is as it was for everybody in one account.
    """
    site = Site(folder=tmp_path)
    async with (
        broker(site) as server,
        site.connect(server, OPERATOR) as operator,
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
            await operator.request("state.operator.mine", b"planted", block=block)
            operator.publish("$JS.API.DIRECT.GET.STATE.state.operator.mine", b"", reply=victim)
            assert await operator.settle() == []
            async with asyncio.timeout(60):
                while (found := await keyed.get(victim)) is None or found.sequence == written:
                    await operator.settle()
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


SERVED = ("shop.orders.price", "shop.orders.count", "call.orders.cancel", "_INBOX.orders.reply.0123456789abcdef.0123")
"""What an agent listens to on core NATS: own calls, those of the scheme, and answers to its own."""


async def test_an_answer_of_the_server_on_a_served_subject_is_refused(tmp_path: Path) -> None:
    """What is said on core NATS stays in the account of the agents, and there the server answers to whatever subject."""
    async with victim(tmp_path) as attacked:
        await attacked.still_works()
        attacker = attacked.bus.connections["shop-web"]
        (ack,) = await NatsTransport(attacker).publish(
            [Outgoing(subject="task.shop-web.x", payload=b"any bytes", message_id="0" * 32)], deadline=5
        )
        assert not isinstance(ack, Exception)
        for subject in SERVED:
            # The acknowledgement of a message, and a list of streams: JSON of the server's own.
            attacked.publish("task.shop-web.x", b"y", reply=subject)
            attacked.publish("$JS.API.STREAM.LIST", b"", reply=subject)
        # The two own calls hear both; the call of the scheme has no handler, and is refused as well.
        await attacked.refused("malformed", 4)
        await attacked.still_works()
        # A message of the attacker's comes under the subject that it was stored on, which no handler has.
        name, subjects = "shop-web", "task.shop-web.>"
        config = {"durable_name": name, "ack_policy": "explicit", "filter_subject": subjects}
        made = await api(
            attacker.jetstream,
            f"CONSUMER.CREATE.TASKS.{name}.{subjects}",
            {"stream_name": "TASKS", "config": config},
        )
        assert "error" not in made
        attacked.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.shop-web", b"1", reply="shop.orders.price")
        await attacked.refused("wrong_subject")
        await attacked.still_works()
        # And values of its own, which it had stored, arrive as what they are: bytes that nobody sealed.
        stored = await KeyValue(NatsTransport(attacker)).create("state.shop-web.mine", b"bytes of its own")
        assert stored is not None
        before = attacked.counters.value("sealbus_refused_total", code="malformed")
        attacked.publish("$JS.API.DIRECT.GET.STATE.state.shop-web.mine", b"", reply="shop.orders.price")
        await attacked.refused("malformed", int(before) + 1)
        await attacked.still_works()


async def test_what_is_pushed_onto_a_served_subject_reaches_nobody(tmp_path: Path) -> None:
    """A push consumer delivers within the account of the streams, where nobody serves anything."""
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
        told = await api(attacker.jetstream, "CONSUMER.INFO.TASKS.shop-web")
        assert not told.get("push_bound")
        assert told["num_pending"] == 1
        await attacked.still_works()
        assert attacked.counters.value("sealbus_refused_total", code="wrong_subject") == 0


async def test_an_answer_of_the_server_is_no_event_and_no_entry_of_the_audit(tmp_path: Path) -> None:
    async with victim(tmp_path) as attacked:
        for subject in ("shop.sold", "audit.orders", "shop.orders.ship"):
            attacked.publish("task.shop-web.x", b"y", reply=subject)
        await attacked.still_works()
        assert attacked.orders.handled.empty()
        operator = await attacked.bus.node("operator", ScriptedEngine())
        assert [one async for batch in operator.transport.read("EVENTS", ["shop.sold"]) for one in batch] == []
        trail = AuditTrail(
            transport=operator.transport,
            profile=ArchiveProfile(names=attacked.bus.names, minters=frozenset({attacked.bus.edge})),
            bundles=operator.identity.bundles,
        )
        entries = [entry async for entry in trail.entries()]
        assert entries
        assert all(isinstance(one, AuditEntry) for one in entries)
