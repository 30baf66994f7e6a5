"""What a restore is said to have brought back, on a real server; and whether what waits in it is handled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.kept_log import log_settings
from support.lab import Lab, outgoing, running, until
from support.notary import SIGNER

from sealbus.agents.backup.backup import take_backup
from sealbus.agents.backup.manifest import Manifest
from sealbus.agents.backup.restore import restore_backup
from sealbus.agents.backup.restored_parts import check_waiting, last_restored, restored_streams
from sealbus.bus.nats.api import existing_stream
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.key_book import RestoredStreams, nothing_restored
from sealbus.bus.streams.plan import apply
from sealbus.bus.streams.snapshot import delete_stream, list_streams
from sealbus.envelopes.errors import BackupRefused, ConfigurationError, StateUnavailable
from sealbus.envelopes.message.restored import RestoredStream

pytestmark = pytest.mark.nats

STREAMS = declared_streams({"TASKS": 1 << 22, "AUDIT": 1 << 22})
STORED = 20


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats") as made:
        yield made


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection() as made:
        await apply(STREAMS, made.jetstream)
        yield made


async def store(connection: Connection, *numbers: int, subject: str = "task.a.run") -> None:
    await NatsTransport(connection).publish([outgoing(number, subject) for number in numbers], deadline=20)


@pytest.fixture
async def manifest(lab: Lab, connection: Connection, tmp_path: Path) -> Manifest:
    """A backup, which has been restored."""
    await store(connection, *range(STORED))
    settings = log_settings(tmp_path, f'origin = "{SIGNER.verifier.name}"')
    found = await take_backup(tmp_path / "backup", connection, settings, log=None)
    for one in STREAMS:
        await delete_stream(connection.jetstream, one.name)
    # The server removes their folders in its own time, and refuses to make them anew meanwhile.
    names = {one.name for one in STREAMS}
    folder = lab.server.folder / "store"
    await until(lambda: not any(path.name in names for path in folder.glob("jetstream/*/streams/*")))
    await restore_backup(tmp_path / "backup", connection, settings, log=None)
    return found


async def test_each_stream_but_that_of_records_is_younger_than_it_was_and_ends_where_it_did(
    connection: Connection, manifest: Manifest
) -> None:
    rows = {one.stream: one for one in await restored_streams(connection.jetstream, manifest)}
    assert set(rows) == {one.name for one in STREAMS} - {"AUDIT"}
    for one in await list_streams(connection.jetstream):
        if one.name in rows:
            assert rows[one.name].created == one.created
    assert {name: row.before for name, row in rows.items()} == {
        one.name: one.created for one in manifest.streams if one.name in rows
    }
    assert rows["TASKS"].last == STORED
    assert rows["STATE"].last == 0


@pytest.mark.parametrize("more", [1, 2, STORED])
async def test_what_is_stored_since_is_no_part_of_it(connection: Connection, manifest: Manifest, more: int) -> None:
    # The same messages: the server does not know their ids.
    await store(connection, *range(more))
    rows = {one.stream: one for one in await restored_streams(connection.jetstream, manifest)}
    assert (await existing_stream(connection.jetstream, "TASKS")).last == STORED + more
    assert rows["TASKS"].last == STORED


async def test_into_an_empty_stream_as_well(connection: Connection, manifest: Manifest) -> None:
    await store(connection, 1, 2, subject="event.a.b")
    state = await existing_stream(connection.jetstream, "EVENTS")
    assert await last_restored(connection.jetstream, state) == 0
    assert manifest.note == ""


async def test_what_cannot_be_said(connection: Connection, manifest: Manifest) -> None:
    def changed(**other: int) -> Manifest:
        return replace(manifest, streams=tuple(replace(one, **other) for one in manifest.streams))  # type: ignore[arg-type]

    request = connection.jetstream
    with pytest.raises(BackupRefused, match="ends at"):
        await restored_streams(request, changed(last=STORED + 1))
    with pytest.raises(ConfigurationError, match="clock is wrong"):
        await restored_streams(request, changed(created=2**53 - 1))
    # The stream is the one that it was, as a cold copy's is.
    state = await existing_stream(request, "TASKS")
    same = replace(
        manifest, streams=tuple(replace(one, created=state.created) for one in manifest.streams if one.name == "TASKS")
    )
    assert await restored_streams(request, same) == []
    await delete_stream(request, "TASKS")
    with pytest.raises(ConfigurationError, match="does not exist"):
        await restored_streams(request, manifest)


class Known:
    """What a notary says; `StateUnavailable` for the first questions."""

    def __init__(self, rows: Sequence[RestoredStream], unknown: int = 0) -> None:
        self._rows, self._unknown = rows, unknown

    async def restored(self, created: int) -> Sequence[RestoredStream]:
        self._unknown -= 1
        if self._unknown >= 0:
            raise StateUnavailable("not known yet")
        return self._rows


async def test_whether_what_waits_is_handled(connection: Connection, manifest: Manifest) -> None:
    rows = await restored_streams(connection.jetstream, manifest)
    others = [replace(one, created=one.created + 1) for one in rows]

    async def counts(known: RestoredStreams, within: float = 0.0) -> list[tuple[str, int, bool]]:
        found = await check_waiting(connection.jetstream, known, within=within)
        return [(one.stream, one.last, one.counts) for one in found]

    refused, taken = [("TASKS", STORED, False)], [("TASKS", STORED, True)]
    # Of EVENTS nothing waits.
    assert await counts(nothing_restored) == refused
    assert await counts(Known(rows)) == taken
    assert await counts(Known(others)) == refused
    assert await counts(Known([one for one in rows if one.stream != "TASKS"])) == refused
    assert await counts(Known(rows, unknown=1)) == refused
    assert await counts(Known(rows, unknown=1), within=10.0) == taken


async def test_of_streams_that_nobody_restored_nothing_is_said(connection: Connection) -> None:
    await store(connection, 1)
    assert await check_waiting(connection.jetstream, nothing_restored, within=0.0) == []
