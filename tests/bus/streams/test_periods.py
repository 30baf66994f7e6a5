"""Periods of the audit stream, on a real server: one takes the records, the former ones keep theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.lab import Lab, running

from sealbus.bus.nats.api import audit_stream, closed_subject, stream_names, stream_state
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.bus.streams.check import check_streams
from sealbus.bus.streams.declared import declared_streams, stream_named
from sealbus.bus.streams.periods import in_period, roll
from sealbus.bus.streams.plan import apply, plan, read_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError

pytestmark = pytest.mark.nats

STREAMS = declared_streams({"TASKS": 1 << 20, "AUDIT": 1 << 20})
AUDIT = stream_named(STREAMS, "AUDIT")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path) as made:
        yield made


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection() as made:
        await apply(STREAMS, made.jetstream)
        yield made


async def stored(connection: Connection, payload: bytes) -> str:
    """Return the name of the stream that took a record."""
    message = Outgoing("audit.inventory", payload, payload.hex().zfill(32))
    (ack,) = await NatsTransport(connection).publish([message], deadline=60.0)
    assert isinstance(ack, PubAck)
    return ack.stream


async def contents(connection: Connection, stream: str) -> list[bytes]:
    read = NatsTransport(connection).read(stream, ["audit.>"])
    return [one.payload async for batch in read for one in batch]


async def test_the_next_period_takes_over_and_the_former_keeps_what_it_has(connection: Connection) -> None:
    assert await stored(connection, b"1") == "AUDIT"
    rolled = await roll(AUDIT, "AUDIT-2", connection.jetstream)
    assert (rolled.former, rolled.current) == ("AUDIT", "AUDIT-2")
    assert await stored(connection, b"2") == "AUDIT-2"
    assert await contents(connection, "AUDIT") == [b"1"]
    assert await contents(connection, "AUDIT-2") == [b"2"]
    former = await stream_state(connection.jetstream, "AUDIT")
    assert former is not None
    assert (former.config["deny_delete"], former.config["deny_purge"]) == (True, True)


async def test_everybody_finds_the_current_period_whatever_became_of_the_first(connection: Connection) -> None:
    for name in ("AUDIT-2", "AUDIT-3"):
        await roll(AUDIT, name, connection.jetstream)
        assert (await audit_stream(connection.jetstream)).name == name
        assert (await NatsTransport(connection).audit_stream())[0] == name
        assert (await check_streams(STREAMS, connection.jetstream))["AUDIT"].name == name
    await connection.jetstream("$JS.API.STREAM.DELETE.AUDIT", b"")
    assert (await check_streams(STREAMS, connection.jetstream))["AUDIT"].name == "AUDIT-3"
    declared = await in_period(STREAMS, connection.jetstream)
    names = [one.name for one in declared]
    assert names == ["TASKS", "EVENTS", "RESULTS", "DEAD", "AUDIT-3", "REFUSALS", "STATE", "HELD"]
    assert plan(declared, await read_streams([one.name for one in declared], connection.jetstream)) == []


async def test_a_period_that_protects_less_is_refused_by_its_own_name(connection: Connection) -> None:
    await roll(AUDIT, "AUDIT-2", connection.jetstream)
    state = await stream_state(connection.jetstream, "AUDIT-2")
    assert state is not None
    config = {key: value for key, value in state.config.items() if key != "metadata"} | {"duplicate_window": 10**9}
    await connection.jetstream("$JS.API.STREAM.UPDATE.AUDIT-2", json.dumps(config).encode())
    with pytest.raises(ConfigurationError, match="stream AUDIT-2: duplicate_window"):
        await check_streams(STREAMS, connection.jetstream)


async def test_where_the_next_cannot_be_made_the_former_takes_records_again(connection: Connection) -> None:
    too_large = stream_named(declared_streams({"TASKS": 1, "AUDIT": 1 << 40}), "AUDIT")
    with pytest.raises(ConfigurationError, match="the server refused"):
        await roll(too_large, "AUDIT-2", connection.jetstream)
    assert await stored(connection, b"1") == "AUDIT"


async def test_what_was_cut_off_in_between_goes_on(connection: Connection) -> None:
    state = await stream_state(connection.jetstream, "AUDIT")
    assert state is not None
    config = {key: value for key, value in state.config.items() if key != "metadata"}
    config["subjects"] = [closed_subject("AUDIT")]
    await connection.jetstream("$JS.API.STREAM.UPDATE.AUDIT", json.dumps(config).encode())
    assert await stream_names(connection.jetstream, "audit.>") == []
    with pytest.raises(BusUnavailable, match="being closed"):
        await check_streams(STREAMS, connection.jetstream)
    with pytest.raises(ConfigurationError, match="--from"):
        await roll(AUDIT, "AUDIT-2", connection.jetstream)
    with pytest.raises(ConfigurationError, match="TASKS was not closed"):
        await roll(AUDIT, "AUDIT-2", connection.jetstream, since="TASKS")
    await roll(AUDIT, "AUDIT-2", connection.jetstream, since="AUDIT")
    assert await stored(connection, b"1") == "AUDIT-2"


@pytest.mark.parametrize(
    ("to", "since", "told"),
    [
        ("AUDIT", None, "takes the records already"),
        ("TASKS", None, "a new stream"),
        ("a.b", None, "cannot be the name"),
        ("AUDIT-2", "EVENTS", "not EVENTS"),
    ],
)
async def test_what_is_no_next_period_is_refused(connection: Connection, to: str, since: str | None, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        await roll(AUDIT, to, connection.jetstream, since=since)
    assert await stored(connection, b"1") == "AUDIT"
