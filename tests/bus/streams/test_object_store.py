"""The object store on a real server: written whole or not at all, and read by nats-py's own client."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import nats
import pytest
from support.lab import Lab, agent_id

from sealbus.bus.nats.api import api
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.tls import client_context
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing
from sealbus.bus.streams.declared import Stream
from sealbus.bus.streams.object_store import CHUNK_BYTES, ONE_MESSAGE, ObjectInfo, ObjectStore, bucket_stream
from sealbus.bus.streams.plan import apply, plan, read_streams
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.spiffe_id import SpiffeId

pytestmark = pytest.mark.nats

LARGE = bytes(range(256)) * 1_200  # three chunks


@pytest.fixture
async def store(connection: Connection) -> ObjectStore:
    await apply([bucket("policies")], connection.jetstream)
    assert await apply([bucket("policies")], connection.jetstream) == []
    return ObjectStore(connection, "policies")


def bucket(name: str) -> Stream:
    return bucket_stream(name, description="a test's", max_bytes=4_194_304, replicas=1)


async def put(store: ObjectStore, name: str, content: bytes, last: int = 0) -> ObjectInfo:
    found = await store.put(name, content, last=last)
    assert found is not None
    return found


async def test_a_bucket_is_declared_as_streams_are(connection: Connection, store: ObjectStore) -> None:
    """What was chosen elsewhere is planned, and what holds an object that nobody can read again."""
    declared = bucket("policies")

    async def differing(**changes: object) -> list[str]:
        config = {**declared.config(), **changes}
        await api(connection.jetstream, "STREAM.UPDATE.OBJ_policies", config)
        found = [str(one) for one in plan([declared], await read_streams([declared.name], connection.jetstream))]
        assert [str(one) for one in await apply([declared], connection.jetstream)] == found
        assert plan([declared], await read_streams([declared.name], connection.jetstream)) == []
        return found

    assert await differing() == []
    assert await differing(max_consumers=-1) == ["update OBJ_policies: max_consumers -1 -> 10000"]
    assert await differing(max_consumers=20_000) == []
    assert await differing(allow_rollup_hdrs=False) == ["update OBJ_policies: allow_rollup_hdrs false -> true"]
    assert await differing(allow_direct=False) == ["update OBJ_policies: allow_direct false -> true"]
    assert await differing(max_age=10**9 * 86_400) == ["update OBJ_policies: max_age 86400 s -> 0 s"]
    assert await differing(republish={"src": ">", "dest": "open.>"}) == ["update OBJ_policies: republish set -> absent"]
    await put(store, "one", b"1")
    assert await store.get(await put(store, "two", b"2")) == b"2"


async def messages(connection: Connection) -> object:
    state = (await api(connection.jetstream, "STREAM.INFO.OBJ_policies"))["state"]
    assert isinstance(state, dict)
    return state["messages"]


async def test_objects_come_back_whole(store: ObjectStore, connection: Connection) -> None:
    for name, content in (("large/ü", LARGE), ("empty", b""), ("one", b"x" * CHUNK_BYTES)):
        written = await put(store, name, content)
        found = await store.info(name)
        assert found == written
        assert await store.get(written) == content
    assert [one.name for one in await store.objects()] == ["empty", "large/ü", "one"]
    assert await store.info("none") is None
    assert await messages(connection) == 3 + 3 + 1


async def test_what_is_replaced_leaves_nothing_behind(store: ObjectStore, connection: Connection) -> None:
    first = await put(store, "a", LARGE)
    second = await put(store, "a", b"new", first.sequence)
    assert await store.info("a") == second
    assert await store.get(first) is None
    assert await messages(connection) == 2
    await store.remove(second)
    assert await store.info("a") is None
    assert await messages(connection) == 0


async def test_of_two_writers_one_is_told(store: ObjectStore) -> None:
    first = await put(store, "a", b"1")
    assert await store.put("a", b"2", last=0) is None
    assert await store.put("a", b"2", last=first.sequence + 1) is None
    answers = await asyncio.gather(*(store.put("a", b"%d" % one, last=first.sequence) for one in range(4)))
    [written] = [one for one in answers if one is not None]
    assert await store.info("a") == written
    assert await store.get(written) == b"%d" % answers.index(written)


async def test_a_replica_that_is_behind_is_read_again(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await store.put("platform", b"1", last=0)
    assert first is not None
    second = await store.put("platform", b"2", last=first.sequence)
    assert second is not None
    readings, present = [[first], [first], [second]], store._infos

    async def behind(*, follow: bool) -> AsyncGenerator[list[ObjectInfo], None]:
        yield readings.pop(0)

    monkeypatch.setattr(store, "_infos", behind)
    assert await store.objects() == [second]
    monkeypatch.setattr(store, "_infos", present)
    # The last message was removed: that no replica is behind cannot be told, and what is there is returned.
    monkeypatch.setattr("sealbus.bus.streams.object_store.CAUGHT_UP", 0.3)
    kept = await store.put("other", b"3", last=0)
    assert kept is not None
    await store.remove(kept)
    assert [one.name for one in await store.objects()] == ["platform"]


async def test_watching_begins_with_what_is_there(store: ObjectStore) -> None:
    await put(store, "a", b"1")
    b = await put(store, "b", b"1")
    watching = store.watch()
    seen: list[tuple[str, int]] = []

    async def until(name: str, sequence: int) -> None:
        async with asyncio.timeout(60):
            while (name, sequence) not in seen:
                seen.extend((one.name, one.sequence) for one in await anext(watching))

    try:
        await until("b", b.sequence)
        assert [name for name, _ in seen] == ["a", "b"]
        again = await put(store, "b", b"2", b.sequence)
        await until("b", again.sequence)
    finally:
        await watching.aclose()


async def test_content_that_is_not_what_was_described(store: ObjectStore, connection: Connection) -> None:
    written = await put(store, "a", b"content")
    transport = NatsTransport(connection)
    await transport.publish([Outgoing(subject=f"$O.policies.C.{written.nuid}", payload=b"more")], deadline=60.0)
    assert await store.get(written) is None
    await transport.publish([Outgoing(subject="$O.policies.M.bm9uZQ==", payload=b"junk")], deadline=60.0)
    assert await store.info("none") is None
    assert [one.name for one in await store.objects()] == ["a"]


async def test_a_full_bucket_refuses_and_keeps_what_it_has(store: ObjectStore) -> None:
    first = await put(store, "a", LARGE)
    with pytest.raises(BusUnavailable, match="not stored"):
        await store.put("b", LARGE * 14, last=0)
    assert await store.get(first) == LARGE


async def replaced(store: ObjectStore, content: bytes, last: int = 0) -> ObjectInfo:
    found = await store.replace("a", content, last=last)
    assert found is not None
    return found


async def test_a_small_object_takes_turns_between_two_chunks(store: ObjectStore, connection: Connection) -> None:
    before, last = await put(store, "b", LARGE), 0
    for turn, content in enumerate((b"1", b"", b"x" * ONE_MESSAGE, b"4")):
        written = await replaced(store, content, last)
        assert (written.nuid, written.chunks) == (f"a{turn % 2}", 1)
        assert await store.info("a") == written
        assert await store.get(written) == content
        last = written.sequence
    assert await store.get(before) == LARGE
    # One description and two chunks, for good; and the other object with its three.
    assert await messages(connection) == 3 + 4
    # One that was put before, in chunks of its own, is followed as well, and follows.
    again = await put(store, "a", b"5", last)
    assert await store.get(await replaced(store, b"6", again.sequence)) == b"6"


async def test_what_does_not_fit_a_message_or_a_name_is_not_replaced(
    store: ObjectStore, connection: Connection
) -> None:
    with pytest.raises(ConfigurationError, match="one message"):
        await store.replace("a", b"x" * (ONE_MESSAGE + 1), last=0)
    with pytest.raises(ConfigurationError, match="letters and digits"):
        await store.replace("a.b", b"x", last=0)
    assert await messages(connection) == 0


async def test_of_two_who_replace_one_is_told_and_nothing_described_is_lost(store: ObjectStore, lab: Lab) -> None:
    first = await replaced(store, b"first")
    assert await store.replace("a", b"2", last=0) is None
    assert await store.replace("a", b"2", last=first.sequence + 1) is None
    assert await store.get(first) == b"first"
    writing = True

    async def write(number: int) -> int:
        won = 0
        async with lab.connection("a") as connection:
            own = ObjectStore(connection, "policies")
            while won < 20:
                info = await own.info("a")
                assert info is not None
                won += await own.replace("a", b"%d %d" % (number, won), last=info.sequence) is not None
        return won

    async def watch() -> None:
        """Look at what the store says, again and again: what is described, and still is afterwards, is whole."""
        while writing:
            info = await store.info("a")
            assert info is not None
            content = await store.get(info)
            assert content is not None or await store.info("a") != info

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        assert await asyncio.gather(*(write(number) for number in range(4))) == [20] * 4
        writing = False
        await watching


async def test_a_writer_that_stops_between_its_two_writes_leaves_the_old_object(
    store: ObjectStore, connection: Connection
) -> None:
    first = await replaced(store, b"first")
    transport = NatsTransport(connection)
    await transport.publish(
        [Outgoing(subject="$O.policies.C.a1", payload=b"never described", headers={"Nats-Rollup": "sub"})], deadline=5
    )
    assert await store.get(first) == b"first"
    second = await replaced(store, b"second", first.sequence)
    assert (await store.info("a"), await store.get(second)) == (second, b"second")


async def test_nothing_is_described_once_another_has_written(
    store: ObjectStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await replaced(store, b"first")
    point, transport = store._point, NatsTransport(connection)

    async def later(info: ObjectInfo, last: int, *, after: int | None = None) -> int | None:
        # Somebody else meets us in the chunk that we are about to describe.
        other = Outgoing(subject=f"$O.policies.C.{info.nuid}", payload=b"theirs", headers={"Nats-Rollup": "sub"})
        await transport.publish([other], deadline=60.0)
        return await point(info, last, after=after)

    monkeypatch.setattr(store, "_point", later)
    assert await store.replace("a", b"ours", last=first.sequence) is None
    assert (await store.info("a"), await store.get(first)) == (first, b"first")


def test_the_name_of_a_bucket() -> None:
    with pytest.raises(ConfigurationError, match="name of a bucket"):
        ObjectStore(None, "a.b")  # type: ignore[arg-type]  # it is not asked


async def test_too_large(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealbus.bus.streams.object_store.OBJECT_BYTES", 10)
    with pytest.raises(ConfigurationError, match="over 10 bytes"):
        await store.put("a", b"x" * 11, last=0)


async def test_a_bucket_that_is_not_there(connection: Connection) -> None:
    store = ObjectStore(connection, "none")
    with pytest.raises(ConfigurationError, match="does not exist"):
        await store.objects()


async def test_nats_own_client_reads_and_writes_the_same_objects(store: ObjectStore, lab: Lab) -> None:
    identity = lab.identity("a")
    context: ssl.SSLContext = client_context(
        identity.x509(), expected=frozenset({SpiffeId.parse(lab.server.spiffe_id)})
    )
    client = await nats.connect(
        lab.server.url, tls=context, tls_handshake_first=True, inbox_prefix=b"_INBOX.a", allow_reconnect=False
    )
    try:
        bucket: Any = await client.jetstream().object_store("policies")
        written = await put(store, "large/ü", LARGE)
        result = await bucket.get("large/ü")
        assert result.data == LARGE
        assert result.info.digest == written.digest
        await bucket.put("theirs", LARGE)
        theirs = await store.info("theirs")
        assert theirs is not None
        assert await store.get(theirs) == LARGE
        small = await store.replace("small", b"in one message", last=0)
        assert small is not None
        assert (await bucket.get("small")).data == b"in one message"
        await bucket.delete("theirs")
        assert await store.info("theirs") is None
        assert agent_id("a") == str(identity.spiffe_id)
    finally:
        await client.close()
