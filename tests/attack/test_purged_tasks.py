"""A captured task after its stream was emptied: purged it cannot be, and one that was made anew remembers its own age.

The server forgets a message id with the message. So whoever may purge TASKS, restarts the server and publishes a captured
copy within 60 s of its making would have it handled again.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.engines import ScriptedEngine
from support.real_bus import RealBus, real_bus
from support.shop import Shop, Update

from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.declared import declared_streams, stream_named
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import ConfigurationError

pytestmark = [pytest.mark.nats]

STREAMS = declared_streams({"TASKS": 1 << 26, "AUDIT": 1 << 26})


async def test_nobody_purges_tasks_or_events_or_deletes_from_them(tmp_path: Path) -> None:
    async with real_bus(tmp_path, "shop-web") as bus:
        client = Client.on(await bus.node("shop-web", ScriptedEngine()))
        await client.submit("inventory.update", Update(item_id="42"), user=bus.user("alice", "shop-web"))
        ask = bus.operator.jetstream
        for stream in ("TASKS", "EVENTS"):
            for verb, body in (("PURGE", {}), ("PURGE", {"filter": "task.>"}), ("MSG.DELETE", {"seq": 1})):
                answer = json.loads(await ask(f"$JS.API.STREAM.{verb}.{stream}", json.dumps(body).encode()))
                assert "error" in answer, (stream, verb, answer)
            # Once it is denied, no update allows it again.
            for protection in ("deny_purge", "deny_delete"):
                changed = {**stream_named(STREAMS, stream).config(), protection: False}
                answer = json.loads(await ask(f"$JS.API.STREAM.UPDATE.{stream}", json.dumps(changed).encode()))
                assert "error" in answer, (stream, protection, answer)


@pytest.mark.parametrize("protection", ["deny_purge", "deny_delete"])
async def test_a_worker_does_not_start_on_tasks_that_can_be_emptied(tmp_path: Path, protection: str) -> None:
    async with real_bus(tmp_path, "inventory") as bus:
        await bus.node("inventory", ScriptedEngine())
        ask = bus.operator.jetstream
        await ask("$JS.API.STREAM.DELETE.TASKS", b"")
        tasks = stream_named(STREAMS, "TASKS")
        await ask("$JS.API.STREAM.CREATE.TASKS", json.dumps({**tasks.config(), protection: False}).encode())
        with pytest.raises(ConfigurationError, match=f"stream TASKS: {protection} is (false|absent), needed: true"):
            await check_streams(STREAMS, ask)
        # What was made before this was asked for is mended in place.
        await apply(STREAMS, ask)
        await check_streams(STREAMS, ask)


async def test_a_captured_task_is_refused_where_the_stream_was_made_anew(tmp_path: Path) -> None:
    shop, engine = Shop(), ScriptedEngine()
    async with real_bus(tmp_path, "inventory", "shop-web") as bus:
        sender, node = await bus.node("shop-web", engine), await bus.node("inventory", engine)
        client = Client.on(sender)
        user = bus.user("alice", "shop-web")
        await client.submit("inventory.update", Update(item_id="42", quantity=3), user=user)
        (captured,) = [one async for batch in sender.transport.read("TASKS", ["task.>"]) for one in batch]
        await handle(shop, node, until=1)

        ask = bus.operator.jetstream
        await ask("$JS.API.STREAM.DELETE.TASKS", b"")
        await apply(STREAMS, ask)
        await bus.server.kill9()
        await bus.server.restart()
        await bus.connections["shop-web"].ready(30)
        await bus.connections["inventory"].ready(30)

        ack = await publish_again(bus, sender, captured)
        assert not ack.duplicate, "the server has forgotten it"
        await client.submit("inventory.update", Update(item_id="7"), user=user)
        await handle(shop, node, until=2)
    assert shop.handled == [("42", 3), ("7", 1)]
    assert node.counters.value("sealbus_refused_total", code="replayed") == 1


async def handle(shop: Shop, node: Node, *, until: int) -> None:
    """Run a worker until `until` tasks were handled in all."""
    stop = asyncio.Event()
    async with Worker(shop.inventory, node) as worker, asyncio.TaskGroup() as group, asyncio.timeout(60):
        group.create_task(worker.run(stop))
        await until_handled(shop, until)
        await worker.settle()
        stop.set()


async def until_handled(shop: Shop, count: int) -> None:
    """Wait for what a handler does; there is no event for it outside the worker."""
    while len(shop.handled) < count:  # noqa: ASYNC110 -- see above
        await asyncio.sleep(0.01)


async def publish_again(bus: RealBus, sender: Node, task: Delivery) -> PubAck:
    """Publish the captured bytes under their own id."""
    message_id = task.header_block.split(b"Nats-Msg-Id: ")[1][:32].decode()
    again = Outgoing(subject=task.subject, payload=task.payload, message_id=message_id)
    async with asyncio.timeout(60):
        while True:
            (ack,) = await sender.transport.publish([again], deadline=60.0)
            if isinstance(ack, PubAck):
                return ack
