"""Two cells on one server: each with accounts and streams of its own, and each reached from the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from support.lab import Lab, agent_id, outgoing, running
from support.nats_server import User

from sealbus.agents.dev.nats.accounts import CellAccounts, accounts_of_cells
from sealbus.bus.cells import Cells, CellTransport
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Delivery, Outgoing, PubAck
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.policies.decision.placement import Placement

pytestmark = pytest.mark.nats

CELLS = (CellAccounts("default"), CellAccounts("east", "EAST", "EAST_AGENTS"))
EAST = Cells(own="east", of={"b": Placement("east")})
DEFAULT = Cells(of={"b": Placement("east")})


def accounts() -> dict[str, object]:
    made = accounts_of_cells(CELLS)
    for account, user in (("APP", "op"), ("APP_AGENTS", "a"), ("EAST", "op-east"), ("EAST_AGENTS", "b")):
        made[account]["users"] = [User(id=agent_id(user)).config()]
    return {"SYS": {}, **made}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats", accounts=accounts()) as started:
        for operator in ("op", "op-east"):
            async with started.connection(operator) as connection:
                await apply(declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20}), connection.jetstream)
        yield started


def transport(connection: Connection, cells: Cells) -> CellTransport:
    return CellTransport(
        NatsTransport(connection),
        lambda: cells,
        reach=lambda cell: NatsTransport(connection, cell),
        owners={},
    )


async def test_a_task_is_stored_in_the_cell_of_its_agent(lab: Lab) -> None:
    async with lab.connection("a") as a, lab.connection("b") as b:
        sender, worker = transport(a, DEFAULT), transport(b, EAST)
        messages = [outgoing(1, "task.b.pay"), outgoing(2, "task.a.pay"), outgoing(3, "task.b.pay")]
        answers = await sender.publish(messages, deadline=5)
        assert [isinstance(answer, PubAck) and (answer.stream, answer.sequence) for answer in answers] == [
            ("TASKS", 1),
            ("TASKS", 1),
            ("TASKS", 2),
        ]
        [again] = await sender.publish(messages[:1], deadline=5)
        assert isinstance(again, PubAck)
        assert again.duplicate
        pull = worker.pull("TASKS", "b", ["task.b.>"], batch=10, ack_wait=30, max_ack_pending=100)
        async with aclosing(pull.batches()) as batches:
            taken: list[Delivery] = []
            async for batch in batches:
                taken += batch
                if len(taken) == 2:
                    break
        assert [(one.subject, one.sequence) for one in taken] == [("task.b.pay", 1), ("task.b.pay", 2)]


async def test_another_cell_is_read_and_its_deliveries_settled(lab: Lab) -> None:
    async with lab.connection("a") as a, lab.connection("b") as b:
        mine, other = transport(a, DEFAULT), transport(b, EAST)
        await other.publish([outgoing(1, "event.b.made"), outgoing(2, "state.b.x")], deadline=5)
        stored = await mine.last("STATE", "state.b.x", within=5)
        assert stored is not None
        async with aclosing(mine.cells_of("*.*")["east"].values("STATE", "state.*.x")) as batches:
            assert [subject for batch in [one async for one in batches] for subject, _ in batch] == ["state.b.x"]
        async with aclosing(mine.cells_of("*.*")["east"].read("STATE", ["state.*.x"])) as batches:
            assert [one.subject for batch in [one async for one in batches] for one in batch] == ["state.b.x"]
        pull = mine.cells_of("*.*")["east"].pull(
            "EVENTS", "a", ["event.b.made"], batch=10, ack_wait=1, max_ack_pending=100
        )
        async with aclosing(pull.batches()) as batches:
            batch = await anext(batches)
            assert [one.subject for one in batch] == ["event.b.made"]
            pull.ack(batch)
            async with asyncio.timeout(10):
                while (await pull.load()).unsettled:  # noqa: ASYNC110  the server tells only who asks
                    await asyncio.sleep(0.05)


async def test_a_call_and_its_answer_cross(lab: Lab) -> None:
    async with lab.connection("a") as a, lab.connection("b") as b:
        caller, callee = transport(a, DEFAULT), transport(b, EAST)
        heard, answered = asyncio.Event(), asyncio.Event()
        calls, answers = (
            callee.listen("call.b.*", queue="b", live=heard),
            caller.listen("_INBOX.a.reply.*", live=answered),
        )
        unheard = asyncio.Event()
        nobody = caller.listen("_INBOX.a.unheard.*", live=unheard)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            call, answer = group.create_task(anext(calls)), group.create_task(anext(answers))
            silence = group.create_task(anext(nobody))
            for event in (heard, answered, unheard):
                await event.wait()
            caller.send([Outgoing(subject="call.b.price", payload=b"?", reply="_INBOX.a.unheard.1")])
            assert [one.payload for one in await call] == [b"?"]
            callee.send([Outgoing(subject="_INBOX.a.reply.1", payload=b"7")])
            assert [one.payload for one in await answer] == [b"7"]
            caller.send([Outgoing(subject="call.c.price", payload=b"?", reply="_INBOX.a.unheard.2")])
            caller.cells_of("*.*")["east"].send(
                [Outgoing(subject="call.c.x", payload=b"?", reply="_INBOX.a.unheard.3")]
            )
            found = list(await silence)
            while len(found) < 2:
                found += await anext(nobody)
            assert [one.subject for one in found] == ["_INBOX.a.unheard.2", "_INBOX.a.unheard.3"]
        for listening in (calls, answers, nobody):
            await listening.aclose()
