"""Three nats-servers; the one that has an agent's consumers is killed: they are moved, and no task is lost."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from ledger.servers import Layout, Server, Servers, open_servers
from ledger.site import POLICY, Identities, broker_users, make_streams, settings_text
from pydantic import BaseModel
from support.lab import until
from support.workload_api import short_folder

from sealbus import Agent, Context
from sealbus.agents.runtime.client import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_connection, open_node
from sealbus.agents.runtime.settings.settings import Settings, load_settings
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.streams.declared import approval_durable, control_durable, schedule_durable
from sealbus.bus.work.ack_floors import StoredFloors
from sealbus.envelopes.errors import BusUnavailable
from sealbus.policies.bundle.files import build_bundle, write_bundle

pytestmark = [pytest.mark.nats, pytest.mark.workload_api, pytest.mark.timeout(300)]

WITHIN = 120.0
"""Seconds until servers have leaders again, and consumers their places, on a busy machine."""
COUNT = 20
CONSUMERS = ("bank", *(durable("bank") for durable in (control_durable, schedule_durable, approval_durable)))


class Work(BaseModel):
    """What a task asks for."""

    number: int


@dataclass(kw_only=True)
class Site:
    """The servers, and the settings of who is connected to them."""

    servers: Servers
    settings: Settings
    operators: Settings

    async def places(self) -> dict[str, Server | None]:
        """Return which server has each consumer of `bank`, `None` for one that does not tell."""
        return {consumer: await self.place(TASKS, consumer) for consumer in CONSUMERS}

    async def place(self, stream: str, consumer: str) -> Server | None:
        """Return which server has a consumer, `None` if that does not tell."""
        named = {server.name: server for server in self.servers.storing}
        async with open_connection("operator", self.operators) as (_, connection):
            try:
                answer = await connection.request(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}", b"", deadline=2.0)
                return named[json.loads(answer.payload)["cluster"]["leader"]]
            except (BusUnavailable, KeyError):
                return None


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(short_folder())
        policy = folder / "policy"
        policy.mkdir()
        (policy / "authz.rego").write_text(POLICY)
        bundle = folder / "bundle.tar.gz"
        write_bundle(build_bundle(policy), bundle)
        identities = Identities(folder / "api")
        stack.push_async_callback(identities.stop)
        await identities.start()
        servers = await stack.enter_async_context(
            open_servers(folder, Layout.CLUSTER, authority=identities.authority, users=broker_users())
        )
        ports = [server.port for server in servers.storing]
        file = folder / "sealbus.toml"
        file.write_text(settings_text(folder, ports, policy=f'engine = "embedded"\nbundle = "{bundle}"', replicas=3))
        settings = load_settings(file, environment={})
        await servers.start()
        await make_streams(settings)
        yield Site(servers=servers, settings=settings, operators=settings)


@asynccontextmanager
async def working(settings: Settings, agent: Agent) -> AsyncIterator[Node]:
    """Run a replica of `agent`."""
    async with open_node("bank", settings) as node, Worker(agent, node) as worker:
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        await worker.ready.wait()
        yield node
        stop.set()
        await running


async def submitted(client: Client, numbers: range) -> None:
    """Submit tasks, each until it is acknowledged."""
    for number in numbers:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    await client.submit("bank.note", Work(number=number))
                except BusUnavailable:
                    continue
                break


@pytest.mark.slow
@pytest.mark.parametrize(("beside", "how"), [(1, Server.kill), (2, Server.kill), (2, Server.stop)])
async def test_consumers_whose_server_ends_are_moved(
    site: Site, beside: int, how: Callable[[Server], Awaitable[None]]
) -> None:
    """`beside` replicas see it at the same time. Of a server that was stopped, the others say that it is away."""
    agent, handled = Agent("bank"), Counter[int]()

    @agent.task("note")
    async def note(work: Work, ctx: Context) -> None:
        handled[work.number] += 1

    async with AsyncExitStack() as stack:
        node, *_ = [await stack.enter_async_context(working(site.settings, agent)) for _ in range(beside)]
        client = Client.on(await stack.enter_async_context(open_node("shop", site.settings)))
        await submitted(client, range(COUNT))
        await until(lambda: len(handled) == COUNT, seconds=WITHIN)
        floors = StoredFloors(node.site)
        async with asyncio.timeout(WITHIN):
            while (await floors.read(TASKS, "bank")).floor < COUNT:
                await asyncio.sleep(0.1)  # an agent may read its values, and not follow them
        before = await site.places()
        dead = before["bank"]
        assert dead is not None
        await how(dead)
        await submitted(client, range(COUNT, 2 * COUNT))
        await until(lambda: len(handled) == 2 * COUNT, seconds=WITHIN)
        async with asyncio.timeout(WITHIN):
            while None in (after := await site.places()).values():
                pass
        assert dead not in after.values()
        # What another server had stays there.
        assert {name: place for name, place in before.items() if place is not dead}.items() <= after.items()
        await dead.start()
        await site.servers.caught_up()
        assert await site.places() == after
        await submitted(client, range(2 * COUNT, 3 * COUNT))
        await until(lambda: len(handled) == 3 * COUNT, seconds=WITHIN)
        assert (await floors.read(TASKS, "bank")).moves >= 1
    # The floor was stored before the server died: nothing before it was delivered again.
    assert {number for number, times in handled.items() if times > 1 and number < COUNT} == set()


async def emitted(client: Client, name: str, numbers: range) -> None:
    """Emit events, each until it is acknowledged."""
    for number in numbers:
        async with asyncio.timeout(WITHIN):
            while True:
                try:
                    await client.emit(name, Work(number=number))
                except BusUnavailable:
                    continue
                break


def listener(handled: Counter[tuple[str, int]], *names: str) -> Agent:
    """Return a version of `bank` that listens to these events of `shop`."""
    agent = Agent("bank")

    def listen(name: str) -> None:
        @agent.on(f"event.shop.{name}")
        async def heard(work: Work, ctx: Context) -> None:
            handled[name, work.number] += 1

    for name in names:
        listen(name)
    return agent


@pytest.mark.slow
async def test_a_version_moves_the_consumer_of_events_with_the_subjects_of_another_version(site: Site) -> None:
    """The former version never heard of the later version's event, and handles its own while that one is away."""
    handled = Counter[tuple[str, int]]()
    async with AsyncExitStack() as stack:
        client = Client.on(await stack.enter_async_context(open_node("shop", site.settings)))
        node = await stack.enter_async_context(working(site.settings, listener(handled, "low")))
        async with working(site.settings, listener(handled, "low", "out")):
            await emitted(client, "out", range(COUNT))
            await until(lambda: sum(handled.values()) >= COUNT, seconds=WITHIN)
        floors = StoredFloors(node.site)
        async with asyncio.timeout(WITHIN):
            while (await floors.read(EVENTS, "bank")).floor < COUNT:
                await asyncio.sleep(0.1)  # an agent may read its values, and not follow them
        dead = await site.place(EVENTS, "bank")
        assert dead is not None
        await dead.kill()
        await emitted(client, "out", range(COUNT, 2 * COUNT))
        await emitted(client, "low", range(COUNT))
        await until(lambda: len([name for name, _ in handled if name == "low"]) == COUNT, seconds=WITHIN)
        assert (await floors.read(EVENTS, "bank")).moves == 1
        assert len(handled) == 2 * COUNT
        async with working(site.settings, listener(handled, "low", "out")):
            await until(lambda: len(handled) == 3 * COUNT, seconds=WITHIN)
    assert {number for (_, number), times in handled.items() if times > 1 and number < COUNT} == set()
