"""The bounds of SECURITY.md's table that an edge keeps, flooded on a real server by who may: others go on.

As `test_bounds`, which has all others.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from a2a.client.errors import A2AClientError
from a2a.types import TaskPushNotificationConfig
from support.a2a import Lines, card_url, client_of, submitted, written_schemas
from support.edge import ENDS_SOON, edge_table
from support.egress import ScriptedApi
from support.engines import ScriptedEngine
from support.floods import GROUNDS, ROOM, Ground, flooded_bus
from support.issuer import AUDIENCE, TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until
from support.payments import Pay, Payments
from support.ports import held_port

from sealbus import Agent, Client, Context, TaskHandle
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import DEFAULT_EDGE_LIMITS
from sealbus.agents.edge.oauth.private_file import write_key
from sealbus.agents.edge.v1.approvals import PAGE_LIMITS, PageLimits, ParkedTaskReader
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.reply_policy import MOST, Received
from sealbus.bus.sending.status import State
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE
from sealbus.envelopes.errors import SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import UserContext, parse_payload

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]

AGENTS = ("payments", "shop", "writer", "edge")
OF_USER = 64
"""Tasks of one user with webhooks, as SECURITY.md says."""


@pytest.fixture(params=GROUNDS)
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    async with flooded_bus(tmp_path, request.param, *AGENTS) as made:
        yield made


def boss(ground: Ground) -> UserContext:
    return parse_payload(ground.bus.user("boss", "edge").payload)


async def asked(ground: Ground, invoice: str) -> TaskHandle:
    """Submit a payment, and return once it waits for an approval."""
    shop = await ground.client()
    handle = await shop.submit("payments.pay", Pay(invoice=invoice), user=ground.bus.user("alice", "shop"))
    async for status in handle.statuses():
        if status.state is State.INPUT_REQUIRED:
            break
    return handle


async def shown(edge: ParkedTaskReader, person: UserContext) -> list[bytes]:
    """Return what is on the first page."""
    return [one.parked.digest for one in (await edge.page("managers", person)).tasks]


def made_up(owner: str, number: int) -> list[str]:
    return [f"held.{owner}.task.managers.{secrets.token_hex(32)}" for _ in range(number)]


# What waits for approvals


@pytest.mark.parametrize("form", ["junk", "signed"])
async def test_what_agents_store_among_approvals_takes_no_place_on_a_page(ground: Ground, form: str) -> None:
    """Under its own token junk, or values of HELD that it has signed and that are no task; by detour junk."""
    payments, number = Payments(), PAGE_LIMITS.tasks + 100
    async with ground.workers(payments.agent, engine=payments.engine):
        own = made_up("rogue", number)
        if form == "junk":
            assert not await ground.send(own)
        for place in own if form == "signed" else ():
            assert not await ground.send([place], ground.forged(place, "rogue", PARKED_TYPE))
        await ground.plant(made_up("payments", number))
        handle = await asked(ground, "42")
        edge = ParkedTaskReader(await ground.bus.node("edge", payments.engine))
        page = await edge.page("managers", boss(ground))
        assert ([one.parked.digest for one in page.tasks], page.after) == ([handle.digest], 0)


async def test_places_of_stops_beyond_what_an_edge_remembers_hide_no_task_and_undo_no_cancel(ground: Ground) -> None:
    """A task is canceled with the one that it follows from, while its agent is away: the edge alone can tell."""
    payments, writer, most = Payments(), Agent("writer"), 1_000

    @writer.task("pay")
    async def pay(body: Pay, ctx: Context) -> str:
        return await (await ctx.submit("payments.pay", body)).result(str)

    person, user = boss(ground), ground.bus.user("alice", "shop")
    async with ground.workers(writer, engine=payments.engine):
        edge = ParkedTaskReader(await ground.bus.node("edge", payments.engine), limits=PageLimits(stop_places=most))
        async with ground.workers(payments.agent, engine=payments.engine):
            kept = await asked(ground, "42")
            first = await (await ground.client()).submit("writer.pay", Pay(invoice="43"), user=user)
            async with asyncio.timeout(60):
                while len(await shown(edge, person)) < 2:  # noqa: ASYNC110  two other processes are at work
                    await asyncio.sleep(0.05)
        # Under its own token, as any agent may, and by detour.
        assert not await ground.send([f"held.rogue.stop.{secrets.token_hex(32)}.shop" for _ in range(most)])
        await ground.plant([f"held.payments.stop.{secrets.token_hex(32)}.shop" for _ in range(most)])
        assert len(await shown(edge, person)) == 2
        await first.cancel("a mistake")
        assert await shown(edge, person) == [kept.digest]
        later = ParkedTaskReader(await ground.bus.node("edge", payments.engine), limits=PageLimits(stop_places=most))
        assert await shown(later, person) == [kept.digest]


async def test_a_full_held_keeps_what_needs_an_approval_until_there_is_room(ground: Ground) -> None:
    payments = Payments()
    await ground.fill("HELD", "held.rogue.{number}")
    async with ground.workers(payments.agent, engine=payments.engine) as [worker]:
        asking = asyncio.create_task(asked(ground, "42"))
        await until(lambda: worker.node.counters.value("sealbus_put_off_total", cause="passing") > 0)
        await ground.resize(HELD=ROOM)
        handle = await asking
        edge = ParkedTaskReader(await ground.bus.node("edge", payments.engine))
        assert await shown(edge, boss(ground)) == [handle.digest]


# What is read


@pytest.mark.slow
async def test_more_decisions_about_answers_than_an_edge_remembers_refuse_nobody(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The users of an edge read as many answers as it remembers; the one read long ago is decided and recorded again."""
    await ground.resize(AUDIT=1 << 29)
    payments = Payments(enough=0)
    async with ground.workers(payments.agent, engine=payments.engine):
        node = await ground.bus.node("edge", ScriptedEngine())
        true, seen = node.answers.decide, list[Received]()

        async def decide(received: Sequence[Received], *, now: int) -> list[SealbusError | None]:
            seen.extend(received)
            return await true(received, now=now)

        monkeypatch.setattr(node.answers, "decide", decide)
        user = ground.bus.user("alice", "edge")
        handle = await Client.on(node).submit("payments.pay", Pay(), user=user)
        assert await handle.result(str) == "paid"
        [mine] = seen
        assert mine.context is not None

        async def counted(*received: Received) -> int:
            """Return how many of these reads were counted, because their decision has a record; all are allowed."""
            before = node.counters.value("sealbus_reads_counted_total")
            assert not any(await true(received, now=wall_clock()))
            return int(node.counters.value("sealbus_reads_counted_total") - before)

        assert await counted(mine) == 1
        others = [replace(mine, context=replace(mine.context, sub=f"user-{number}")) for number in range(MOST)]
        for start in range(0, MOST, 512):
            assert await counted(*others[start : start + 512]) == 0
        assert await counted(mine) == 0
        assert await counted(mine, others[-1]) == 2


# What users ask an edge for


@asynccontextmanager
async def edge_of(ground: Ground, **table: Any) -> AsyncIterator[tuple[str, LoopbackIssuer]]:
    """Run an edge with these settings on the bus, and yield its origin and who issues its users' tokens."""
    port = held_port()
    origin = f"http://127.0.0.1:{port}"
    async with LoopbackIssuer() as issuer:
        row = {"audiences": (AUDIENCE,)}
        settings = edge_table(issuer, row=row, address=f"127.0.0.1:{port}", resource=origin, **table)
        limits = replace(DEFAULT_EDGE_LIMITS, fetch_seconds=60.0, user_burst=1_000)
        node = await ground.bus.node("edge", ScriptedEngine())
        async with serve_edge(settings, node, limits=limits, connections=ENDS_SOON, issuer_tls=TRUSTS_NOBODY):
            yield origin, issuer


async def test_a_users_standing_grants_leave_room_to_others(ground: Ground) -> None:
    async with (
        edge_of(ground, actions=("writer.*",), schedules=True) as (origin, issuer),
        httpx2.AsyncClient(base_url=origin, trust_env=False, timeout=60, verify=TRUSTS_NOBODY) as http,
    ):

        async def granted(user: str, number: int) -> tuple[int, str]:
            now = wall_clock() // SECOND
            token = issuer.token(sub=user, scope="sealbus:schedule", auth_time=now)
            body = {"name": f"n{number}", "action": "writer.write", "body": 1, "when": {"every": 80_000}, "grants": []}
            answer = await http.post("/v1/schedules", json=body, headers={"Authorization": f"Bearer {token}"})
            return answer.status_code, answer.json().get("code", "")

        assert [await granted("mallory", number) for number in range(32)] == [(201, "")] * 32
        assert await granted("mallory", 32) == (422, "too_many_schedules")
        assert await granted("bob", 32) == (201, "")


async def test_a_users_webhooks_leave_room_to_others(ground: Ground, tmp_path: Path) -> None:
    lines, key = Lines(), tmp_path / "push.key"
    write_key(key)
    a2a = {
        "grpc": f"127.0.0.1:{held_port()}",
        "agents": ("writer",),
        "push_key": key,
        "push_networks": ("127.0.0.0/8",),
    }
    schemas = written_schemas(tmp_path, [lines.agent])
    async with (
        ScriptedApi() as receiver,
        ground.workers(lines.agent),
        edge_of(ground, actions=("writer.*",), schemas=schemas, a2a=a2a) as (origin, issuer),
        client_of(card_url(origin, "writer"), "JSONRPC", issuer.token(sub="mallory")) as mallory,
        client_of(card_url(origin, "writer"), "JSONRPC", issuer.token(sub="bob")) as bob,
    ):
        url = receiver.url.replace("localhost", "127.0.0.1")
        # What others store there is no webhook.
        await ground.plant([f"state.edge.a2a.push.{number:032x}" for number in range(1_000)])
        for _ in range(OF_USER):
            task = await submitted(mallory, "writer.write", {"value": 1})
            await mallory.create_task_push_notification_config(TaskPushNotificationConfig(task_id=task.id, url=url))
        task = await submitted(mallory, "writer.write", {"value": 1})
        with pytest.raises(A2AClientError, match="429"):
            await mallory.create_task_push_notification_config(TaskPushNotificationConfig(task_id=task.id, url=url))
        mine = await submitted(bob, "writer.write", {"value": 1})
        await bob.create_task_push_notification_config(TaskPushNotificationConfig(task_id=mine.id, url=url))
        lines.go_on.set()
        await until(lambda: any(mine.id.encode() in one.body and b"COMPLETED" in one.body for one in receiver.asked))
