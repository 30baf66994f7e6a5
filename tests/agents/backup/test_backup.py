"""Backups and bad backups, on a real server: each of these is refused in one line, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.kept_log import log_settings
from support.lab import Lab, running, until
from support.notary import SIGNER, Bench

from sealbus.agents.backup import backup as backup_module
from sealbus.agents.backup import restore
from sealbus.agents.backup.backup import in_order, take_backup
from sealbus.agents.backup.files import copy_log, key_files, log_end
from sealbus.agents.backup.manifest import MANIFEST, BackedUpFile, BackedUpStream, Manifest
from sealbus.agents.backup.restore import check_copies, restore_backup, validate
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.nats.api import StreamState
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, StreamRefused
from sealbus.bus.streams.declared import declared_streams
from sealbus.bus.streams.plan import apply
from sealbus.bus.streams.snapshot import Snapshot, delete_stream, list_streams, take_snapshot
from sealbus.envelopes.errors import BackupRefused, BusUnavailable, Code, ConfigurationError
from sealbus.envelopes.log.note import NoteSigner

STREAMS = declared_streams({"TASKS": 1 << 22, "AUDIT": 1 << 22})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with running(tmp_path / "nats") as made:
        yield made


@pytest.fixture
async def connection(lab: Lab) -> AsyncIterator[Connection]:
    async with lab.connection() as made:
        await apply(STREAMS, made.jetstream)
        messages = [
            Outgoing(subject=subject, payload=b"x" * 900, message_id=f"{number:032x}")
            for number, subject in enumerate(["task.a.b", "audit.a", "held.a.b", "state.a.b"] * 10)
        ]
        await NatsTransport(made).publish(messages, deadline=60.0)
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    key = tmp_path / "log.key"
    key.write_text(SIGNER.secret_text() + "\n")
    key.chmod(0o600)
    return log_settings(tmp_path, f'origin = "{SIGNER.verifier.name}"', f'keys = ["{key}"]')


@pytest.fixture
async def backup(lab: Lab, connection: Connection, settings: Settings, tmp_path: Path) -> Path:
    await take_backup(tmp_path / "backup", connection, settings, log=None, keys=True)
    for one in STREAMS:
        await delete_stream(connection.jetstream, one.name)
    # The server removes their folders in its own time, and refuses to make them anew meanwhile.
    names = {one.name for one in STREAMS}
    store = lab.server.folder / "store"
    await until(lambda: not any(path.name in names for path in store.glob("jetstream/*/streams/*")))
    return tmp_path / "backup"


def rewritten(folder: Path, change: Callable[[Manifest], Manifest], *, signer: NoteSigner = SIGNER) -> None:
    """Write another manifest, which the log's key has signed as well."""
    (folder / MANIFEST).write_bytes(change(Manifest.read(folder)).signed([signer]).encode())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.nats
async def test_it_comes_back_as_it_was(
    backup: Path, connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    manifest = Manifest.read(backup)
    names = [one.name for one in manifest.streams]
    assert names.index("TASKS") < names.index("EVENTS") + 2 < names.index("STATE") + 2
    assert names[-1] == "AUDIT"
    (tmp_path / "log.key").unlink()
    done = await restore_backup(backup, connection, settings, log=None, keys=True)
    assert (done.records, done.lost, done.log, done.keys) == (10, 0, "", 1)
    assert {one.name: one.messages for one in await list_streams(connection.jetstream)} == {
        one.name: one.messages for one in manifest.streams
    }
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600
    assert [path for path in backup.rglob("*") if path.stat().st_mode & 0o077] == []  # noqa: ASYNC240
    with pytest.raises(BackupRefused, match="start nats-server again"):
        await check_copies(connection)
    with pytest.raises(BackupRefused, match="streams are here already"):
        await restore_backup(backup, connection, settings, log=None)


@pytest.mark.nats
async def test_where_nothing_was_restored_copies_are_refused(connection: Connection) -> None:
    assert [one.stream for one in await check_copies(connection)] == ["AUDIT", "TASKS"]


@pytest.mark.nats
async def test_a_stream_whose_snapshot_is_cut_off_is_copied_again(
    connection: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server cuts a snapshot off if a consumer ends in the middle of it, which no test can time.
    began: list[str] = []

    async def cut_off(connection: Connection, stream: str, write: Callable[[bytes], object]) -> Snapshot:
        began.append(stream)
        if began.count(stream) < tries:
            write(b"the first bytes")
            raise BusUnavailable(f"the snapshot of {stream} was cut off")
        return await take_snapshot(connection, stream, write)

    monkeypatch.setattr(backup_module, "take_snapshot", cut_off)
    tries = backup_module.SNAPSHOT_TRIES
    taken = await take_backup(tmp_path / "again", connection, settings, log=None)
    assert {began.count(stream.name) for stream in taken.streams} == {tries}
    assert validate(tmp_path / "again", settings, log=None) == taken
    tries += 1
    began.clear()
    with pytest.raises(BusUnavailable, match="cut off"):
        await take_backup(tmp_path / "never", connection, settings, log=None)
    assert not (tmp_path / "never" / MANIFEST).exists()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off": (lambda folder: (folder / MANIFEST).unlink(), "was cut off"),
    "the manifest cut": (
        lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-9]),
        "damaged",
    ),
    "a byte of the manifest": (
        lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace("AUDIT", "AUDIS", 1)),
        "damaged",
    ),
    "a flipped byte": (lambda folder: flip(folder / "streams" / "TASKS.snapshot"), "its hash is another"),
    "a file cut": (
        lambda folder: (folder / "streams" / "AUDIT.snapshot").write_bytes(b"cut"),
        "has 3 bytes instead of",
    ),
    "a file gone": (lambda folder: (folder / "streams" / "AUDIT.snapshot").unlink(), "is missing"),
    "of another deployment": (
        lambda folder: rewritten(folder, lambda one: replace(one, trust_domain="other.example")),
        "it is of other.example",
    ),
    "changed by somebody without the log's key": (
        lambda folder: (folder / MANIFEST).write_bytes(replace(Manifest.read(folder), taken=7).encode()),
        "not the one that was signed",
    ),
    "signed by another key": (
        lambda folder: rewritten(folder, lambda one: one, signer=NoteSigner(SIGNER.verifier.name, bytes(32))),
        "not signed by a key of this log",
    ),
    "of another log": (lambda folder: rewritten(folder, lambda one: replace(one, origin="other")), "its log is other"),
    "a stream without its file": (
        lambda folder: rewritten(folder, lambda one: replace(one, files=one.files[1:2])),
        "names no streams/",
    ),
    "a key that is no key": (
        lambda folder: rewritten(
            folder,
            lambda one: replace(
                one, files=tuple(replace(file, keeps="/etc/passwd") if file.keeps else file for file in one.files)
            ),
        ),
        "not a key that these settings name",
    ),
    "a stream that the server does not take": (
        lambda folder: rewritten(
            folder,
            lambda one: replace(
                one,
                streams=(*one.streams[:-1], replace(one.streams[-1], last=99)),
            ),
        ),
        "ends at 10 instead of 99",
    ),
}


@pytest.mark.nats
@pytest.mark.parametrize("what", DAMAGE)
async def test_a_bad_one_is_refused_and_leaves_nothing(
    backup: Path, connection: Connection, settings: Settings, what: str
) -> None:
    damage, why = DAMAGE[what]
    damage(backup)
    with pytest.raises(BackupRefused, match=why) as caught:
        await restore_backup(backup, connection, settings, log=None, keys=True)
    assert caught.value.code is Code.BAD_BACKUP
    assert "\n" not in str(caught.value)
    assert await list_streams(connection.jetstream) == []


@pytest.mark.nats
async def test_a_stream_that_somebody_makes_meanwhile_is_not_removed(
    backup: Path, connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(request: object) -> list[StreamState]:
        return []

    await apply([one for one in STREAMS if one.name == "STATE"], connection.jetstream)
    monkeypatch.setattr(restore, "list_streams", nothing)
    with pytest.raises(StreamRefused):
        await restore_backup(backup, connection, settings, log=None)
    assert [one.name for one in await list_streams(connection.jetstream)] == ["STATE"]


@pytest.mark.nats
async def test_another_key_is_not_written_over(
    backup: Path, connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "log.key").write_text("another")
    with pytest.raises(BackupRefused, match="hold different keys"):
        await restore_backup(backup, connection, settings, log=None, keys=True)
    assert await list_streams(connection.jetstream) == []
    with pytest.raises(ConfigurationError, match="not empty"):
        await take_backup(backup, connection, settings, log=None)


async def test_a_log_is_copied_while_it_grows_and_older_backups_are_refused(settings: Settings, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "log")
    bench.record(3)
    async with bench.running():
        await bench.sealed(3)
        files = copy_log(bench.folder, tmp_path / "copy", "log")
    assert files[-1].path == "log/checkpoint"
    assert not any("notary." in one.path or "under-way" in one.path for one in files)
    end = log_end(tmp_path / "copy" / "log")
    assert 3 <= end <= log_end(bench.folder)
    stream = BackedUpStream(
        name="AUDIT", config={"subjects": ["audit.>"]}, state={}, created=1, messages=end, first=1, last=end - 2
    )
    snapshot = tmp_path / "copy" / "streams" / "AUDIT.snapshot"
    snapshot.parent.mkdir()
    snapshot.write_bytes(b"")
    empty = BackedUpFile(
        path=stream.path, size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    manifest = Manifest(
        version="0", taken=1, trust_domain="example.org", origin=SIGNER.verifier.name, streams=(stream,),
        files=(*files, empty), log_last=end,
    )  # fmt: skip
    (tmp_path / "copy" / MANIFEST).write_bytes(manifest.encode())
    lost = log_end(bench.folder) - stream.last
    with pytest.raises(BackupRefused, match=f"--lose {lost}"):
        validate(tmp_path / "copy", settings, log=bench.folder)
    assert validate(tmp_path / "copy", settings, log=bench.folder, lose=lost) == manifest
    with pytest.raises(BackupRefused, match="no records would be lost"):
        validate(tmp_path / "copy", settings, log=tmp_path / "none", lose=1)
    with pytest.raises(ConfigurationError, match="holds no log"):
        copy_log(tmp_path / "none", tmp_path / "other", "log")


def test_work_is_taken_before_the_claims_on_it_and_records_last() -> None:
    streams = [
        StreamState(name=name, config={"subjects": [subject]}, created=1, messages=0, bytes=0)
        for name, subject in [
            ("AUDIT", "closed.AUDIT"), ("AUDIT-2", "audit.>"), ("HELD", "held.>"), ("OBJ_policies", "$O.policies.C.>"),
            ("STATE", "state.>"), ("TASKS", "task.>"), ("EVENTS", "event.>"),
        ]
    ]  # fmt: skip
    assert [one.name for one in in_order(streams)] == [
        "EVENTS", "TASKS", "OBJ_policies", "HELD", "STATE", "AUDIT", "AUDIT-2",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/etc/passwd", "streams/../../x", "other/x", "streams//x", "log/./x"])
def test_a_manifest_names_only_files_of_the_backup(path: str) -> None:
    with pytest.raises(BackupRefused):
        BackedUpFile(path=path, size=1, sha256="")
    with pytest.raises(BackupRefused):
        BackedUpStream(name="A.>", config={}, state={}, created=1, messages=1, first=1, last=1)
    assert json.dumps(path)


def test_the_keys_of_the_settings(settings: Settings, tmp_path: Path) -> None:
    assert key_files(settings) == [tmp_path / "log.key"]
