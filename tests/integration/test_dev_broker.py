"""The permissions of `sealbus dev` fit what the real transport asks of the broker: nothing needed is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sealbus.agents.dev.nats.config import BrokerRole
from sealbus.agents.dev.nats.server import EmbeddedNatsServer
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.dev.workload_api.server import EmbeddedWorkloadApi
from sealbus.agents.dev.workload_api.server_svid import write_server_svid
from sealbus.agents.identity import WorkloadIdentity
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = [pytest.mark.nats, pytest.mark.workload_api]

SECONDS = 60.0
DOMAIN = TrustDomain("example.org")
NAMES = Names(DOMAIN)
SERVER_ID = DOMAIN.id("/nats")
STREAMS = declared_streams({"TASKS": 8_388_608, "AUDIT": 8_388_608})
RELOADS = 100
"""Without the retries about 20 of 100 refuse something."""
TASK_ID = "00112233445566778899aabbccddeeff"


class Site:
    """The running broker and Workload API, and connections of its workloads."""

    def __init__(self, api: EmbeddedWorkloadApi, server: EmbeddedNatsServer) -> None:
        self.api = api
        self.server = server

    @asynccontextmanager
    async def connected(self, name: str) -> AsyncIterator[tuple[Connection, NatsTransport]]:
        spiffe_id = NAMES.id_of(name)
        async with (
            WorkloadIdentity.connect(self.api.address(spiffe_id), deadline=60) as identity,
            Connection(
                [self.server.url],
                identity=identity,
                server_ids=frozenset({SERVER_ID}),
                inbox_prefix=NAMES.inbox_prefix(spiffe_id),
            ) as connection,
        ):
            yield connection, NatsTransport(connection)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Site]:
    authority = DevelopmentAuthority(DOMAIN)
    workloads = {
        NAMES.id_of("operator"): BrokerRole.OPERATOR,
        **{NAMES.id_of(n): BrokerRole.AGENT for n in ("inventory", "shop")},
    }
    async with EmbeddedWorkloadApi(folder / "api", authority) as api:
        for spiffe_id in workloads:
            await api.add_identity(spiffe_id)
        async with (
            asyncio.TaskGroup() as tasks,
            EmbeddedNatsServer(
                folder / "nats",
                tasks=tasks,
                names=NAMES,
                write_svid=lambda where: write_server_svid(where, api.authority, SERVER_ID),
                workloads=workloads,
                port=0,
            ) as server,
        ):
            site = Site(api, server)
            async with site.connected("operator") as (connection, _):
                await apply(STREAMS, connection.jetstream)
            yield site


def outgoing(subject: str, number: int) -> Outgoing:
    return Outgoing(subject=subject, payload=b"x", message_id=f"{number:032x}")


async def first(source: AsyncIterator[Sequence[Delivery]]) -> Sequence[Delivery]:
    """Return the first batch and close the source, so that nothing more is delivered to it."""
    try:
        async with asyncio.timeout(SECONDS):
            return await anext(source)
    finally:
        assert isinstance(source, AsyncGenerator)
        await source.aclose()


async def test_a_worker_and_a_client_do_their_whole_part(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as site,
        site.connected("inventory") as (worker_connection, worker),
        site.connected("shop") as (_, shop),
    ):
        await check_streams(STREAMS, worker_connection.jetstream)
        assert await worker.created("AUDIT")

        # A task, from its sender to its acknowledgement.
        (ack,) = await shop.publish([outgoing("task.inventory.update", 1)], deadline=60.0)
        assert isinstance(ack, PubAck)
        assert (ack.stream, ack.sequence) == ("TASKS", 1)
        pull = worker.pull("TASKS", "inventory", ["task.inventory.>"], batch=8, ack_wait=30, max_ack_pending=8)
        batch = await first(pull.batches())
        assert [delivery.subject for delivery in batch] == ["task.inventory.update"]
        pull.ack(batch)

        # What the worker says of it: record, status, event, dead letter, refusal.
        said = ("audit.inventory", f"status.shop.{TASK_ID}", "dead.inventory.update", "refused.inventory")
        answers = await worker.publish(
            [outgoing(one, number) for number, one in enumerate(said, start=10)], deadline=60.0
        )
        assert all(isinstance(answer, PubAck) for answer in answers), answers

        # The requester reads its result, and events of any number of filters.
        batch = await first(shop.read("RESULTS", [f"status.shop.{TASK_ID}"]))
        assert [delivery.subject for delivery in batch] == [f"status.shop.{TASK_ID}"]
        names = ["event.inventory.changed", "event.inventory.sold"]
        for count in (1, 2):
            await worker.publish([outgoing(names[count - 1], 20 + count)], deadline=60.0)
            events = shop.pull("EVENTS", "shop", names[:count], batch=8, ack_wait=30, max_ack_pending=8)
            assert [delivery.subject for delivery in await first(events.batches())] == [names[count - 1]]
            # Answered after the pull was withdrawn: the next event is not sent to a pull that nobody reads.
            await shop.created("EVENTS")


async def test_a_call_and_its_answer_pass(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as site,
        site.connected("inventory") as (_, worker),
        site.connected("shop") as (_, shop),
    ):
        calls = worker.listen("call.inventory.*", queue="inventory")
        replies = shop.listen(f"{NAMES.inbox_prefix(NAMES.id_of('shop'))}reply.r.*")
        called, replied = asyncio.ensure_future(first(calls)), asyncio.ensure_future(first(replies))
        async with asyncio.timeout(SECONDS):
            while not called.done():
                shop.send([Outgoing(subject="call.inventory.quote", payload=b"x")])
                await asyncio.wait({called}, timeout=0.05)
            while not replied.done():
                worker.send([Outgoing(subject="_INBOX.shop.reply.r.1", payload=b"y")])
                await asyncio.wait({replied}, timeout=0.05)
        assert [(await called)[0].subject, (await replied)[0].payload] == ["call.inventory.quote", b"y"]


async def test_only_the_operator_reads_the_audit(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as site,
        site.connected("inventory") as (_, worker),
        site.connected("operator") as (_, operator),
    ):
        (ack,) = await worker.publish([outgoing("audit.inventory", 1)], deadline=60.0)
        assert isinstance(ack, PubAck)
        batch = await first(operator.read("AUDIT", ["audit.>"]))
        assert [delivery.subject for delivery in batch] == ["audit.inventory"]
        (refused,) = await worker.publish([outgoing("audit.shop", 2)], deadline=1)
        assert isinstance(refused, BusUnavailable)


async def test_a_reload_of_the_configuration_refuses_nothing(tmp_path: Path) -> None:
    """While nats-server replaces its accounts, it knows of no subscription of JetStream's for an instant."""
    async with (
        running(tmp_path) as site,
        site.connected("shop") as (_, transport),
        site.connected("operator") as (connection, _),
    ):
        sent = 0
        ended = asyncio.Event()

        async def publish() -> None:
            nonlocal sent
            while not ended.is_set():
                [answer] = await transport.publish([outgoing("audit.shop", sent := sent + 1)], deadline=SECONDS)
                assert isinstance(answer, PubAck), answer

        async def ask() -> None:
            while not ended.is_set():
                await connection.jetstream("$JS.API.STREAM.INFO.TASKS", b"")

        async with asyncio.TaskGroup() as tasks:
            for work in (*(publish() for _ in range(4)), ask()):
                tasks.create_task(work)
            for _ in range(RELOADS):
                await site.server.permit(NAMES.id_of("inventory"))
            ended.set()
        assert sent > RELOADS
