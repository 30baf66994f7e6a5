"""Detours through three servers, and through a leaf node before them: no answer of theirs is stored there either."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from ledger.servers import Layout, open_servers
from ledger.site import POLICY, Identities, broker_users, make_streams, settings_text
from support.workload_api import short_folder

from sealbus.agents.runtime.open import open_connection
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import JsonObject, Outgoing, PubAck
from sealbus.envelopes.errors import BusUnavailable
from sealbus.policies.bundle.files import build_bundle, write_bundle

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.slow, pytest.mark.timeout(240)]

WITHIN = 60.0
MINE = "state.shop.mine"
CONSUMER = {"durable_name": "shop", "ack_policy": "explicit", "filter_subject": "task.shop.>"}
REQUESTS = (
    (f"$JS.API.DIRECT.GET.STATE.{MINE}", b""),
    ("$JS.API.DIRECT.GET.STATE.state.shop.none", b""),
    ("$JS.API.STREAM.LIST", b""),
    ("$JS.API.CONSUMER.MSG.NEXT.TASKS.shop", b'{"batch": 3}'),
    ("$JS.API.CONSUMER.MSG.NEXT.TASKS.shop", b"{"),
    ("$JS.API.CONSUMER.INFO.TASKS.shop", b""),
    ("state.shop.other", b"x"),
)
VICTIMS = (
    "state.bank.stop.0123.shop",
    "held.bank.schedule.made-up",
    "audit.bank",
    "event.bank.paid",
    "status.bank.0123",
)
STREAMS = ("TASKS", "EVENTS", "RESULTS", "DEAD", "AUDIT", "REFUSALS", "STATE", "HELD")


@asynccontextmanager
async def layout_of(folder: Path, layout: Layout) -> AsyncIterator[tuple[Settings, list[Settings]]]:
    """Yield the settings of an operator, and those of an agent, one for each way in."""
    (folder / "policy").mkdir()
    (folder / "policy" / "authz.rego").write_text(POLICY)
    write_bundle(build_bundle(folder / "policy"), folder / "bundle.tar.gz")
    policy = f'engine = "embedded"\nbundle = "{folder / "bundle.tar.gz"}"'
    async with AsyncExitStack() as stack:
        identities = Identities(folder / "api")
        stack.push_async_callback(identities.stop)
        await identities.start()
        servers = await stack.enter_async_context(
            open_servers(folder, layout, authority=identities.authority, users=broker_users())
        )
        await servers.start()

        def settings(name: str, *ports: int) -> Settings:
            (folder / f"{name}.toml").write_text(settings_text(folder, ports, policy=policy, replicas=3))
            return load_settings(folder / f"{name}.toml")

        operator = settings("operator", *(one.port for one in servers.storing))
        await make_streams(operator)
        yield operator, [settings(f"agent-{port}", port) for port in servers.entrances]


async def counts(operator: Connection) -> dict[str, object]:
    found: dict[str, object] = {}
    for stream in STREAMS:
        state = (await asked(operator, f"STREAM.INFO.{stream}")).get("state")
        assert isinstance(state, dict)
        found[stream] = state["last_seq"]
    return found


async def asked(connection: Connection, what: str, content: Mapping[str, object] = MappingProxyType({})) -> JsonObject:
    """Ask until it is answered: the servers elect their leaders first."""
    async with asyncio.timeout(WITHIN):
        while True:
            try:
                return await api(connection.jetstream, what, dict(content))
            except BusUnavailable:
                await asyncio.sleep(0.2)


async def publish(connection: Connection, subject: str, payload: bytes = b"x") -> PubAck:
    """Publish until it is acknowledged: a replicated stream elects its leader first."""
    async with asyncio.timeout(WITHIN):
        while True:
            (answer,) = await NatsTransport(connection).publish(
                [Outgoing(subject=subject, payload=payload)], deadline=5
            )
            if isinstance(answer, PubAck):
                return answer
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("layout", [Layout.CLUSTER, Layout.LEAF])
async def test_no_answer_of_any_server_is_stored(layout: Layout) -> None:
    with short_folder() as folder:
        async with (
            layout_of(folder, layout) as (operators, ways),
            open_connection("operator", operators) as (_, operator),
        ):
            for number, way in enumerate(ways):
                async with open_connection("shop", way) as (_, agent):
                    await publish(agent, MINE, b"bytes of its own")
                    created = {"stream_name": "TASKS", "config": CONSUMER}
                    await asked(agent, "CONSUMER.CREATE.TASKS.shop.task.shop.>", created)
                    for _ in range(30):
                        await publish(agent, "task.shop.x")
                    before = await counts(operator)
                    for subject in VICTIMS:
                        for request, payload in REQUESTS:
                            frame = f"PUB {request} {subject} {len(payload)}\r\n".encode() + payload + b"\r\n"
                            agent.link.write(frame * 3)
                    await agent.link.flush(10)
                    # Answered by the same way, after all of them.
                    await publish(agent, "state.shop.last")
                    await publish(agent, "event.shop.last")
                    after = await counts(operator)
                    own = {"STATE": 3 * len(VICTIMS) + 1, "EVENTS": 1}
                    assert after == {name: int(str(had)) + own.get(name, 0) for name, had in before.items()}, number


def note(answers: asyncio.Queue[bytes], subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
    answers.put_nowait(payload)


@pytest.mark.parametrize("layout", [Layout.CLUSTER, Layout.LEAF])
async def test_what_is_stored_is_what_was_sent(layout: Layout) -> None:
    """Step 6 of acceptance looks for the line of the message id in the stored header block."""
    block = b"NATS/1.0\r\nNats-Msg-Id: 0123456789abcdef0123456789abcdef\r\nX:  y \r\nx: y\r\n\r\n"
    with short_folder() as folder:
        async with (
            layout_of(folder, layout) as (operators, ways),
            open_connection("operator", operators) as (_, operator),
        ):
            for number, way in enumerate(ways):
                async with open_connection("shop", way) as (_, agent):
                    await publish(agent, "task.shop.first")
                    own = block.replace(b"0123", b"%04d" % number, 1)
                    reply = f"{agent.inbox_prefix}stored"
                    size = f"{len(own)} {len(own) + 4}".encode()
                    frame = b"HPUB task.shop.x %b %b\r\n%bbody\r\n" % (reply.encode(), size, own)
                    answers: asyncio.Queue[bytes] = asyncio.Queue()
                    agent.link.subscribe(reply, partial(note, answers))
                    await agent.link.flush(10)
                    found = []
                    async with asyncio.timeout(WITHIN):
                        for _ in range(2):
                            agent.link.write(frame)
                            found.append(json.loads(await answers.get()))
                    assert found[1] == {**found[0], "duplicate": True}
                    stored = (await asked(operator, "STREAM.MSG.GET.TASKS", {"seq": found[0]["seq"]}))["message"]
                    assert isinstance(stored, dict)
                    assert (b64decode(str(stored["hdrs"])), b64decode(str(stored["data"]))) == (own, b"body")
