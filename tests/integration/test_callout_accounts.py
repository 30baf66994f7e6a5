"""From one account to two, as docs/callout.md tells operators: no stream moves, and nothing that is stored is lost."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from support.callout import CONF, CalloutSite, callout_site, let_in, policy_folder
from support.raw_nats import RawNats

from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.envelopes.encoding.strict_json import Json
from sealbus.policies.engines.embedded import EmbeddedEngine

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]

LIMITS: Json = {"subscriptions": 8192, "payload": -1, "data": -1}
VICTIM = "state.pricing.stop.0123.inventory"


def one_account() -> str:
    """Return the configuration that the release before had: an account for each tenant."""
    text, count = re.subn(
        r"  (APP|ACME) \{\n    jetstream.*?\n  \}\n  \1_AGENTS \{\n.*?\n  \}\n",
        r"  \1 { jetstream: enabled, limits { max_subscriptions: 8192 } }\n",
        CONF.read_text(),
        flags=re.DOTALL,
    )
    assert count == 2
    assert "_AGENTS" not in text.split("accounts {")[1]
    return text


async def publish(connection: Connection, subject: str, message_id: str) -> PubAck:
    """Publish until it is acknowledged: a server that reloads cuts connections."""
    message = Outgoing(subject=subject, payload=b"x", message_id=message_id)
    async with asyncio.timeout(60):
        while True:
            (answer,) = await NatsTransport(connection).publish([message], deadline=2)
            if isinstance(answer, PubAck):
                return answer


async def taken(connection: Connection) -> Delivery:
    pull = NatsTransport(connection).pull(
        "TASKS", "inventory", ["task.inventory.>"], batch=8, ack_wait=30, max_ack_pending=8
    )
    batches = pull.batches()
    try:
        async with asyncio.timeout(60):
            (delivery,) = await anext(batches)
    finally:
        await batches.aclose()
    pull.ack([delivery])
    return delivery


async def is_stored(site: CalloutSite) -> bool:
    """Say whether an answer to an agent's request is stored under another's name."""
    before = await last(site)
    async with site.raw("inventory") as agent:
        await agent.request("state.inventory.control", b"x")
        agent.publish("$JS.API.STREAM.LIST", reply=VICTIM)
        assert await agent.settle() == []
        await agent.request("state.inventory.control", b"x")
    return await last(site) - before > 2


async def last(site: CalloutSite) -> int:
    async with site.connection("operator") as operator:
        state = (await api(operator.jetstream, "STREAM.INFO.STATE"))["state"]
        assert isinstance(state, dict)
        return int(str(state["last_seq"]))


async def test_an_operator_goes_from_one_account_to_two(tmp_path: Path) -> None:
    conf = tmp_path / "nats.conf"
    conf.write_text(one_account())
    before = policy_folder(tmp_path / "before", tenants={"default": {"account": "APP", "limits": LIMITS}})
    async with callout_site(tmp_path / "site", policy=before, conf=conf) as site:
        await site.apply_streams()
        async with site.connection("inventory") as inventory, site.connection("shop-web") as sender:
            first = await publish(sender, "task.inventory.update", "1" * 32)
            assert await is_stored(site)

            # 1. The servers have the second account, in which nobody is yet.
            conf.write_text(CONF.read_text())
            await site.reload()
            assert (await taken(inventory)).arrival is not None
            await publish(sender, "task.inventory.update", "2" * 32)

            # 2. The policy places everybody anew, and the servers are started again: at a reload nats-server would leave the
            # subscriptions of who is connected in the account where they were.
            old = site.responders[0]
            after = policy_folder(tmp_path / "after")
            await site.respond(engine=await site.stack.enter_async_context(EmbeddedEngine.of_folder(after)))
            await old.stop()
            await site.stop()
            await site.start()
            async with asyncio.timeout(60):
                while not await let_in(site):
                    pass
            assert not await is_stored(site)

            # What was stored is where it was: the next is delivered, and what was sent before is known.
            delivery = await taken(inventory)
            assert delivery.arrival is not None
            assert delivery.arrival.sequence == 2
            again = await publish(sender, "task.inventory.update", "1" * 32)
            assert (again.sequence, again.duplicate) == (first.sequence, True)
            # Both are in the account of the agents now, in which calls are heard.
            async with site.raw("inventory") as server, site.raw("shop-web") as caller:
                server.subscribe("call.inventory.* inventory")
                await server.settle()
                await heard(server, caller)


async def heard(server: RawNats, caller: RawNats) -> None:
    async with asyncio.timeout(60):
        while not server.messages:
            caller.publish("call.inventory.update", b"x")
            await caller.settle()
            await server.settle()
    assert json.dumps(server.messages[0][0]) == '"call.inventory.update"'


async def test_who_has_the_streams_and_who_has_not(tmp_path: Path) -> None:
    """The operator may do with streams what nobody can do from the other account, whatever a policy grants there."""
    role: Json = {"publish": ["$JS.API.>", "$JS.ACK.>", "state.>"], "subscribe": []}
    policy = policy_folder(tmp_path / "policy", roles={"agent": role})
    async with callout_site(tmp_path / "site", policy=policy) as site:
        await site.apply_streams()
        async with site.raw("inventory") as agent, site.raw("operator") as operator:
            agent.subscribe("_INBOX.inventory.x")
            for number, verb in enumerate(("PURGE", "DELETE", "UPDATE", "MSG.GET", "SNAPSHOT", "RESTORE"), 1):
                agent.publish(f"$JS.API.STREAM.{verb}.STATE", b"{}", reply="_INBOX.inventory.x")
                async with asyncio.timeout(60):
                    while len(agent.messages) < number:
                        assert await agent.settle() == []
            # The server says of each that nobody answers.
            assert {payload.split(b"\r\n")[0] for _, payload in agent.messages} == {b"NATS/1.0 503"}
            assert "config" in await operator.ask("$JS.API.STREAM.INFO.STATE")
