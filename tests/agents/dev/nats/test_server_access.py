"""The embedded nats-server, real: who may connect, and what each may do."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
from support.dev_broker import (
    INVENTORY,
    NAMES,
    OPERATOR,
    PRICING,
    REFUSED,
    SECONDS,
    STREAMS,
    WORKLOADS,
    Site,
    running,
)
from support.raw_nats import RawNats
from support.x509 import ThrowawayCa

from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.declared import declared_streams, own_durable
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject

pytestmark = pytest.mark.nats

EDGE = NAMES.id_of("edge")
WITH_EDGE = {**WORKLOADS, EDGE: BrokerRole.EDGE}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(folder=tmp_path)


def error_code(answer: Mapping[str, object]) -> object:
    return cast("Mapping[str, object]", answer["error"])["err_code"]


# Who may connect


async def test_only_a_known_id_of_our_own_ca_may_connect(site: Site) -> None:
    async with running(site) as server:
        async with site.connect(server, INVENTORY):
            pass
        with pytest.raises(REFUSED):
            await site.connect(server, NAMES.id_of("stranger")).__aenter__()
        with pytest.raises(REFUSED):
            await site.connect(server, INVENTORY, ca=ThrowawayCa("example.org")).__aenter__()


async def test_nothing_is_said_in_the_clear(site: Site) -> None:
    async with running(site) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        async with asyncio.timeout(SECONDS):
            assert b"INFO" not in await reader.read()
        writer.close()


async def test_older_tls_is_refused(site: Site) -> None:
    async with running(site) as server:
        client = site.connect(server, INVENTORY)
        client._context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(REFUSED):
            await client.__aenter__()


async def test_a_client_without_a_certificate_is_refused(site: Site) -> None:
    async with running(site) as server:
        client = site.connect(server, INVENTORY)
        client._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client._context.check_hostname = False
        client._context.load_verify_locations(cadata=site.ca.cert_pem.decode())
        with pytest.raises(REFUSED):
            await client.__aenter__()


# What each may do


async def test_an_agent_does_its_part_and_nothing_else(site: Site) -> None:
    async with running(site) as server, site.connect(server, OPERATOR) as operator:
        await apply(STREAMS, operator.request)
        async with site.connect(server, INVENTORY) as agent:
            for subject in (
                "task.pricing.quote",
                "call.pricing.quote",
                "status.pricing.00",
                "event.inventory.changed",
                "dead.inventory.update",
                "audit.inventory",
                "refused.inventory",
                "_INBOX.pricing.reply.abc.1",
            ):
                assert await agent.may_publish(subject), subject
            for subject in (
                "event.pricing.changed",
                "dead.pricing.update",
                "audit.pricing",
                "refused.pricing",
                "orders.created",
                "_INBOX.pricing.abc.1",
                "$JS.API.STREAM.UPDATE.TASKS",
                "$JS.API.STREAM.PURGE.TASKS",
                "$JS.API.STREAM.DELETE.AUDIT",
                "$JS.API.STREAM.MSG.DELETE.TASKS",
                "$JS.API.STREAM.MSG.GET.AUDIT",
                "$JS.API.DIRECT.GET.AUDIT",
                "$JS.API.CONSUMER.CREATE.AUDIT.x",
                "$JS.API.CONSUMER.DURABLE.CREATE.TASKS.inventory",
                "$JS.API.CONSUMER.MSG.NEXT.TASKS.pricing",
                "$JS.ACK.TASKS.pricing.1.1.1.1.0",
                "$SYS.REQ.SERVER.PING",
            ):
                assert not await agent.may_publish(subject), subject
            for subject in ("_INBOX.inventory.x", "call.inventory.*"):
                assert await agent.may_subscribe(subject), subject
            for subject in (
                "_INBOX.pricing.x",
                "_INBOX.>",
                "task.>",
                "task.inventory.>",
                "event.pricing.changed",
                "call.pricing.*",
                "audit.>",
                "status.>",
                ">",
                "$SYS.>",
            ):
                assert not await agent.may_subscribe(subject), subject


async def test_an_agents_consumer_is_held_to_its_own_tasks(site: Site) -> None:
    create = "$JS.API.CONSUMER.CREATE.TASKS.inventory"
    mine = {"durable_name": "inventory", "name": "inventory", "ack_policy": "explicit"}
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        made = await agent.ask(
            f"{create}.task.inventory.>",
            {"stream_name": "TASKS", "config": {**mine, "filter_subject": "task.inventory.>"}},
        )
        assert "error" not in made, made
        # The permission names the filter; the server holds the request to it.
        for wider in ({"filter_subject": "task.>"}, {"filter_subjects": ["task.>"]}, {}):
            refused = await agent.ask(
                f"{create}.task.inventory.>", {"stream_name": "TASKS", "config": {**mine, **wider}}
            )
            assert error_code(refused) in (10_131, 10_137), refused
        for subject in (create, f"{create}.task.>", "$JS.API.CONSUMER.CREATE.TASKS.pricing.task.pricing.>"):
            with pytest.raises(PermissionError):
                await agent.ask(subject, {"stream_name": "TASKS", "config": mine})
        # It works: take the one task that is there, and acknowledge it.
        await agent.request("task.inventory.update", b"x")
        await operator.request("task.pricing.quote", b"not for us")
        inbox = "_INBOX.inventory.pull"
        agent.subscribe(inbox)
        # It waits: a consumer learns of what was just stored in its own time.
        agent.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.inventory", b'{"batch":2,"expires":5000000000}', reply=inbox)
        async with asyncio.timeout(SECONDS):
            while not any(subject == "task.inventory.update" for subject, _ in agent.messages):
                await agent.settle()
        assert not any(subject == "task.pricing.quote" for subject, _ in agent.messages)
        assert await agent.may_publish("$JS.ACK.TASKS.inventory.1.1.1.1.0")


async def test_an_agent_reads_its_own_results_and_no_one_elses(site: Site) -> None:
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        await apply(STREAMS, operator.request)
        reader = {"name": "read-1", "ack_policy": "none", "mem_storage": True}
        made = await agent.ask(
            "$JS.API.CONSUMER.CREATE.RESULTS.read-1.status.inventory.00",
            {"stream_name": "RESULTS", "config": {**reader, "filter_subject": "status.inventory.00"}},
        )
        assert "error" not in made, made
        with pytest.raises(PermissionError):
            await agent.ask(
                "$JS.API.CONSUMER.CREATE.RESULTS.read-2.status.pricing.00", {"stream_name": "RESULTS", "config": reader}
            )
        assert (await agent.ask("$JS.API.CONSUMER.DELETE.RESULTS.read-1"))["success"] is True


async def test_an_agent_reads_of_held_what_concerns_it_and_an_edge_what_waits(site: Site) -> None:
    """With the filters that are really used: their wildcards are plain tokens of the API's subject."""
    own = ("held.inventory.task.*.00", "held.inventory.task.q.00", "held.inventory.schedule.*", "held.inventory.>")
    everybodys = ("held.*.wait.inventory.00", "held.*.stop.00.*", "held.notary.keys")
    others = (
        "held.pricing.task.*.00",
        "held.*.task.>",
        "held.*.wait.pricing.00",
        "held.*.wait.>",
        "held.>",
        "held.*.stop.>",
    )
    waiting = ("held.*.task.>", "held.*.task.managers.*", "held.*.task.*.00", "held.pricing.task.managers.00")
    async with (
        running(site, workloads=WITH_EDGE) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
        site.connect(server, EDGE) as edge,
    ):
        await apply(STREAMS, operator.request)
        numbers = itertools.count()

        async def read(client: RawNats, wanted: str, really: str = "") -> dict[str, object]:
            name = f"read-{next(numbers)}"
            config = {"name": name, "ack_policy": "none", "mem_storage": True, "filter_subject": really or wanted}
            subject = f"$JS.API.CONSUMER.CREATE.HELD.{name}.{wanted}"
            return await client.ask(subject, {"stream_name": "HELD", "config": config})

        for wanted in (*own, *everybodys):
            assert "error" not in await read(agent, wanted), wanted
        for wanted in others:
            with pytest.raises(PermissionError):
                await read(agent, wanted)
        # The permission names the filter; the server holds the request to it.
        for really in ("held.>", "held.*.task.>", "held.inventory.>"):
            assert error_code(await read(agent, "held.inventory.task.*.00", really)) == 10_131
        for wanted in waiting:
            assert "error" not in await read(edge, wanted), wanted
        for wanted in ("held.>", "held.pricing.>", "held.*.effect.00"):
            with pytest.raises(PermissionError):
                await read(edge, wanted)
        assert await agent.may_publish("held.inventory.task.q.00")
        assert not await agent.may_publish("held.pricing.task.q.00")
        assert not await edge.may_publish("held.pricing.task.q.00")
        assert await edge.may_publish("control.pricing.approve")
        assert not await agent.may_publish("control.pricing.approve")
        # What was parked comes to who may read it, through a consumer of its own.
        await agent.request("held.inventory.task.managers.00", b"parked")
        made = await read(edge, "held.*.task.managers.*")
        edge.subscribe("_INBOX.edge.pull")
        edge.publish(f"$JS.API.CONSUMER.MSG.NEXT.HELD.{made['name']}", b"1", reply="_INBOX.edge.pull")
        async with asyncio.timeout(SECONDS):
            while ("held.inventory.task.managers.00", b"parked") not in edge.messages:
                await edge.settle()


async def test_approvals_come_through_a_consumer_of_their_own(site: Site) -> None:
    create = "$JS.API.CONSUMER.CREATE.TASKS.id-apr-inventory.control.inventory.approve"
    config: dict[str, object] = {"durable_name": "id-apr-inventory", "ack_policy": "explicit"}
    async with (
        running(site, workloads=WITH_EDGE) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
        site.connect(server, EDGE) as edge,
    ):
        await apply(STREAMS, operator.request)
        mine = {**config, "filter_subject": "control.inventory.approve"}
        assert "error" not in await agent.ask(create, {"stream_name": "TASKS", "config": mine})
        wider = {**config, "filter_subject": "control.inventory.>"}
        assert error_code(await agent.ask(create, {"stream_name": "TASKS", "config": wider})) == 10_131
        await edge.request("control.inventory.approve", b"approved")
        await edge.request("control.inventory.cancel", b"canceled")
        agent.subscribe("_INBOX.inventory.pull")
        agent.publish("$JS.API.CONSUMER.MSG.NEXT.TASKS.id-apr-inventory", b"1", reply="_INBOX.inventory.pull")
        async with asyncio.timeout(SECONDS):
            while not (found := [one for one in agent.messages if one[0].startswith("control.")]):
                await agent.settle()
        assert found == [("control.inventory.approve", b"approved")]
        assert await agent.may_publish("$JS.ACK.TASKS.id-apr-inventory.1.1.1.1.0")


async def test_own_subjects_belong_to_their_owner(site: Site) -> None:
    own = (
        OwnSubject(subject="orders.created", kind=Kind.EVENT, owner=PRICING, action="orders.created"),
        OwnSubject(subject="orders.ship", kind=Kind.TASK, owner=INVENTORY, action="orders.ship"),
    )
    create = f"$JS.API.CONSUMER.CREATE.TASKS.{own_durable('orders.ship')}.orders.ship"
    config = {"durable_name": own_durable("orders.ship"), "ack_policy": "explicit", "filter_subject": "orders.ship"}
    async with (
        running(site, own=own) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
        site.connect(server, PRICING) as pricing,
    ):
        await apply(declared_streams({"TASKS": 1_048_576, "AUDIT": 1_048_576}, own=own), operator.request)
        assert not await agent.may_publish("orders.created")
        assert await agent.may_publish("orders.ship")
        assert await pricing.may_publish("orders.created")
        for one in (agent, pricing):
            for subject in ("orders.ship", "orders.created"):
                assert not await one.may_subscribe(subject)
        with pytest.raises(PermissionError):
            await pricing.ask(create, {"stream_name": "TASKS", "config": config})
        refused = await agent.ask(create, {"stream_name": "TASKS", "config": {**config, "filter_subject": "task.>"}})
        assert error_code(refused) in (10_131, 10_137), refused
        assert "error" not in await agent.ask(create, {"stream_name": "TASKS", "config": config})


async def test_an_operator_manages_streams_an_agent_only_checks_them(site: Site) -> None:
    async with (
        running(site) as server,
        site.connect(server, OPERATOR) as operator,
        site.connect(server, INVENTORY) as agent,
    ):
        with pytest.raises(PermissionError):
            await apply(STREAMS, agent.request)
        await apply(STREAMS, operator.request)
        assert len(await check_streams(STREAMS, agent.request)) == len(STREAMS)
        assert (await operator.ask("$JS.API.STREAM.PURGE.RESULTS"))["success"] is True
        # Not even they: the server would forget the ids of what it forgets (docs/durability.md).
        assert "error" in await operator.ask("$JS.API.STREAM.PURGE.TASKS")
