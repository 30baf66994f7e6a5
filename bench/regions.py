"""What is lost, and for how long, when one of two regions is: as gateways join them, and as deploy/regions does.

With gateways all servers elect one leader of JetStream, and a third place has a server without streams that keeps the
majority. In deploy/regions each region is a JetStream domain of its own. The servers are on loopback: what a distance between
regions adds is not in these figures.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx2
from nats.aio.client import Client
from support.plain_servers import PlainServer, connected, plain_server
from support.ports import held_port
from support.two_regions import MIRROR, WITHIN, TwoRegions, two_regions

from bench.report import Figure
from sealbus.agents.runtime.open import open_connection
from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import API_SECONDS, Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck, Request
from sealbus.bus.stream_names import AUDIT, SUBJECTS
from sealbus.envelopes.errors import SealbusError

__all__ = ["figures"]

ROUNDS = 3
RECORDS = 300
CUT = 10.0
"""Seconds for which nothing passes between the regions."""
AGAIN = 0.05
ASKED = ("a consumer is made", "streams are listed", "a stream is made")


async def figures() -> AsyncIterator[Figure]:
    """Measure the loss of the region without streams in both layouts, then what passes between the regions of ours."""
    rounds: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        for layout, measure in (("gateways and a third place", _by_gateways), ("domains", _by_domains)):
            for name, seconds in (await measure(number)).items():
                rounds.setdefault(f"{layout}: {name}", []).append(seconds)
    for name, seconds in rounds.items():
        yield Figure.of(seconds, name=name, unit="s")


async def _by_gateways(number: int) -> dict[str, float]:
    async with _super_cluster() as (client, system, lost):

        async def request(subject: str, payload: bytes) -> bytes:
            return (await client.request(subject, payload, timeout=API_SECONDS)).data

        async with asyncio.timeout(WITHIN):
            while not await _is_made(request, "TASKS", "east"):  # noqa: ASYNC110  the servers have no event for it
                await asyncio.sleep(AGAIN)
            while not await _is_made(request, "MIRROR", "west"):  # noqa: ASYNC110  the servers have no event for it
                await asyncio.sleep(AGAIN)
            # The worst case: the leader is in the region that is lost.
            wanted = b'{"placement": {"cluster": "west"}}'
            while True:
                answer = await system.request("$JS.API.META.LEADER.STEPDOWN", wanted, timeout=10.0)
                if json.loads(answer.data).get("success"):
                    break
                await asyncio.sleep(AGAIN)
            while await _leader(lost[0]) not in {server.name for server in lost}:  # noqa: ASYNC110  the servers have no event for it
                await asyncio.sleep(AGAIN)
        for server in lost:
            server.process.kill()
        return await _asked(request, number)


async def _by_domains(number: int) -> dict[str, float]:
    async with two_regions() as regions:
        await regions.prepare()
        home, other = regions.home, regions.other
        async with open_connection("operator", home.settings) as (_, connection):
            found = {"a record is in the mirror": await _lag(regions, connection)}
            regions.cut()
            await asyncio.sleep(CUT)
            last = await _record(connection)
            began = time.monotonic()
            await regions.mend()
            await regions.mirrored(last)
            found[f"cut for {CUT:g} s, the mirror is level again"] = time.monotonic() - began
            await other.kill()
            found |= await _asked(connection.jetstream, number)
            last = await _record(connection)
            began = time.monotonic()
            await other.start()
            await regions.mirrored(last)
            found["the other region is back, the mirror is level again"] = time.monotonic() - began
        await home.kill()
        began = time.monotonic()
        await regions.mirrored(last)
        found["the home is lost, the mirror is read"] = time.monotonic() - began
        began = time.monotonic()
        await home.start()
        async with open_connection("shop", other.settings) as (_, connection):
            await _record(connection, "shop")
        found["the home is back, a record of the other region is stored"] = time.monotonic() - began
    return found


async def _lag(regions: TwoRegions, connection: Connection) -> float:
    """Return the longest of so many records' ways from AUDIT to a reader of the mirror; both take the time of one machine."""
    longest, first = 0.0, await regions.home.last(AUDIT) + 1
    async with open_connection("operator", regions.other.settings) as (_, away):
        reading = NatsTransport(away).read(MIRROR, [SUBJECTS[AUDIT]], start=first, follow=True)
        async with aclosing(reading) as batches, asyncio.TaskGroup() as group:
            group.create_task(_records(connection))
            async for batch in batches:
                now = time.time()
                stored = [delivery.arrival for delivery in batch if delivery.arrival is not None]
                longest = max([longest, *(now - arrival.stored / 1e6 for arrival in stored)])
                if stored[-1].sequence >= first + RECORDS - 1:
                    return longest
    raise AssertionError("the mirror ended")


async def _records(connection: Connection) -> None:
    for _ in range(RECORDS):
        await _record(connection)


async def _record(connection: Connection, agent: str = "operator") -> int:
    """Have a record stored, and return its sequence."""
    transport = NatsTransport(connection)
    async with asyncio.timeout(WITHIN):
        while True:
            [answer] = await transport.publish([Outgoing(subject=f"audit.{agent}", payload=b"record")], deadline=5.0)
            if isinstance(answer, PubAck):
                return answer.sequence
            await asyncio.sleep(AGAIN)


async def _asked(request: Request, number: int) -> dict[str, float]:
    """Return after how many seconds each is done, all tried at once."""
    consumer = {"stream_name": "TASKS", "config": {"durable_name": f"c{number}", "ack_policy": "explicit"}}

    async def seconds(attempt: Callable[[], Awaitable[object]]) -> float:
        began = time.monotonic()
        async with asyncio.timeout(WITHIN):
            while True:
                with suppress(SealbusError, Exception):
                    await attempt()
                    return time.monotonic() - began
                await asyncio.sleep(AGAIN)

    done = await asyncio.gather(
        seconds(lambda: api(request, f"CONSUMER.CREATE.TASKS.c{number}", consumer)),
        seconds(lambda: api(request, "STREAM.LIST")),
        seconds(lambda: api(request, f"STREAM.CREATE.X{number}", {"name": f"X{number}", "num_replicas": 3})),
    )
    return dict(zip((f"the other region is lost, {what}" for what in ASKED), done, strict=True))


async def _leader(server: PlainServer) -> str:
    """Return the name of the leader of JetStream as this server knows it."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        found = (await http.get(f"{server.monitor}/jsz", timeout=WITHIN)).json()
    return str(found["meta_cluster"].get("leader"))


async def _is_made(request: Request, name: str, cluster: str) -> bool:
    config = {"name": name, "num_replicas": 3, "placement": {"cluster": cluster}}
    with suppress(SealbusError, Exception):
        await api(request, f"STREAM.CREATE.{name}", config)
        return True
    return False


@asynccontextmanager
async def _super_cluster() -> AsyncIterator[tuple[Client, Client, list[PlainServer]]]:
    """Run two regions of three servers and one in a third place; yield two clients of east, and the servers of west.

    The second client is one of the system.
    """
    places = {"east": 3, "west": 3, "third": 1}
    ports = {place: [[held_port() for _ in range(4)] for _ in range(count)] for place, count in places.items()}
    running: dict[str, list[PlainServer]] = {place: [] for place in places}
    gateways = [
        {"name": place, "urls": [f"nats://127.0.0.1:{gateway}" for *_, gateway in at]} for place, at in ports.items()
    ]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-")))
        for place, at in ports.items():
            for number, (port, monitor, route, gateway) in enumerate(at, 1):
                store: dict[str, object] = {"store_dir": str(folder / f"{place}{number}"), "sync_interval": "always"}
                document = {
                    "listen": f"127.0.0.1:{port}",
                    "http": f"127.0.0.1:{monitor}",
                    "server_name": f"{place}{number}",
                    # A place with room for one byte gets no stream.
                    "jetstream": store | ({"max_file_store": 1, "max_memory_store": 1} if place == "third" else {}),
                    "cluster": {
                        "name": place,
                        "listen": f"127.0.0.1:{route}",
                        "routes": [f"nats-route://127.0.0.1:{other}" for *_, other, _ in at],
                    },
                    "gateway": {"name": place, "listen": f"127.0.0.1:{gateway}", "gateways": gateways},
                    "accounts": {
                        "APP": {"jetstream": "enabled", "users": [{"user": "app", "password": "app"}]},
                        "SYS": {"users": [{"user": "system", "password": "system"}]},
                    },
                    "system_account": "SYS",
                    "no_auth_user": "app",
                }
                server = await stack.enter_async_context(plain_server(folder, document, port=port, monitor=monitor))
                running[place].append(server)
        clients = [await connected(ports["east"][0][0], user) for user in ("app", "system")]
        for client in clients:
            stack.push_async_callback(client.close)
        yield clients[0], clients[1], running["west"]
