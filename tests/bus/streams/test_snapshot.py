"""Snapshots of streams, on a real server: what comes back, what does not, and what a damaged one leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
from support.lab import Lab, running

from sealbus.bus.nats.api import StreamState, existing_stream
from sealbus.bus.nats.connection.connection import Answer, Connection, NoResponder, ask
from sealbus.bus.nats.connection.link import Link
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, Request, StreamRefused
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.streams.snapshot import (
    Snapshot,
    delete_stream,
    last_id,
    list_streams,
    put_snapshot,
    refuses_copies,
    take_snapshot,
)
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats

STREAMS = declared_streams({"TASKS": 1 << 24, "AUDIT": 1 << 20})
MESSAGES = 300


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path) as made:
        yield made


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection() as made:
        await apply(STREAMS, made.jetstream)
        messages = [
            Outgoing(subject="task.a.b", payload=bytes([number % 256]) * 2_000, message_id=f"{number:032x}")
            for number in range(MESSAGES)
        ]
        await NatsTransport(made).publish(messages, deadline=60.0)
        yield made


async def taken(connection: Connection, stream: str = "TASKS") -> tuple[Snapshot, bytes]:
    into = BytesIO()
    return await take_snapshot(connection, stream, into.write), into.getvalue()


async def test_a_stream_comes_back_and_forgets_its_ids(connection: Connection) -> None:
    snapshot, data = await taken(connection)
    assert (snapshot.messages, snapshot.first, snapshot.last) == (MESSAGES, 1, MESSAGES)
    known = await last_id(connection.jetstream, "TASKS", "task.>")
    assert known is not None
    assert known.id == f"{MESSAGES - 1:032x}"
    assert await refuses_copies(connection, known)
    await delete_stream(connection.jetstream, "TASKS")
    await delete_stream(connection.jetstream, "TASKS")
    assert len(await list_streams(connection.jetstream)) == len(STREAMS) - 1
    found = await put_snapshot(connection, "TASKS", snapshot, BytesIO(data).read)
    assert (found.messages, found.last) == (MESSAGES, MESSAGES)
    # This is why the server is started again before clients come back.
    assert not await refuses_copies(connection, known)
    assert (await list_streams(connection.jetstream))[-1].messages == MESSAGES


async def test_a_stream_that_is_there_is_not_written_over(connection: Connection) -> None:
    snapshot, data = await taken(connection, "DEAD")
    with pytest.raises(StreamRefused):
        await put_snapshot(connection, "DEAD", snapshot, BytesIO(data).read)
    assert await last_id(connection.jetstream, "DEAD", "dead.>") is None


async def test_a_chunk_that_nobody_hears_yet_is_sent_again(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cluster, where the server that restores is another than ours: its subscription may be known later."""
    snapshot, data = await taken(connection)
    await delete_stream(connection.jetstream, "TASKS")
    tried: list[bytes] = []

    async def ask_too_early(link: Link, subject: str, payload: bytes, *, deadline: float) -> Answer:
        tried.append(payload)
        return await ask(link, subject if len(tried) > 3 else "nobody.hears", payload, deadline=deadline)

    monkeypatch.setattr("sealbus.bus.streams.snapshot.ask", ask_too_early)
    found = await put_snapshot(connection, "TASKS", snapshot, BytesIO(data).read)
    assert found.messages == MESSAGES
    assert len(set(tried[:4])) == 1
    assert len(set(tried[:5])) == 2


async def test_a_restored_stream_is_waited_for_until_a_leader_answers(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, data = await taken(connection)
    await delete_stream(connection.jetstream, "TASKS")
    looks: list[str] = []

    async def find_later(request: Request, name: str) -> StreamState:
        looks.append(name)
        if len(looks) < 3:
            raise BusUnavailable(f"stream {name}: none of its servers answers")
        return await existing_stream(request, name)

    monkeypatch.setattr("sealbus.bus.streams.snapshot.existing_stream", find_later)
    assert (await put_snapshot(connection, "TASKS", snapshot, BytesIO(data).read)).messages == MESSAGES
    looks.clear()
    monkeypatch.setattr("sealbus.bus.streams.snapshot.LED", 0.0)
    await delete_stream(connection.jetstream, "TASKS")
    with pytest.raises(BusUnavailable, match="none of its servers"):
        await put_snapshot(connection, "TASKS", snapshot, BytesIO(data).read)


async def test_a_restore_that_nobody_hears_any_more_is_given_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot, data = await taken(connection)
    await delete_stream(connection.jetstream, "TASKS")

    async def ask_nobody(link: Link, subject: str, payload: bytes, *, deadline: float) -> Answer:
        del subject
        return await ask(link, "nobody.hears", payload, deadline=deadline)

    monkeypatch.setattr("sealbus.bus.streams.snapshot.ask", ask_nobody)
    monkeypatch.setattr("sealbus.bus.streams.snapshot.HEARD", 0.2)
    with pytest.raises(NoResponder):
        await put_snapshot(connection, "TASKS", snapshot, BytesIO(data).read)


@pytest.mark.parametrize("damage", ["flipped", "cut"])
async def test_a_damaged_one_is_refused_by_the_server(connection: Connection, damage: str) -> None:
    snapshot, data = await taken(connection)
    await delete_stream(connection.jetstream, "TASKS")
    half = len(data) // 2
    wrong = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :] if damage == "flipped" else data[:half]
    with pytest.raises(ConfigurationError, match="refused the snapshot"):
        await put_snapshot(connection, "TASKS", snapshot, BytesIO(wrong).read)


async def test_of_a_stream_that_is_not_there_there_is_none(connection: Connection) -> None:
    with pytest.raises(StreamRefused):
        await take_snapshot(connection, "NONE", BytesIO().write)
    with pytest.raises(BusUnavailable, match="messages"):
        _ = Snapshot(config={}, state={"messages": -1}).messages
