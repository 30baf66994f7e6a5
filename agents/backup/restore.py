"""Restores a backup where nothing is yet: all is checked first, compared afterwards, and removed on failure.

::

    validate: manifest and its signature, every file's size and hash, the deployment, what runs here
    streams:  restored some at a time, AUDIT last, each compared with the manifest
    log:      put in place if there is none; one that reaches further is kept
    then:     nats-server is started again, the notary is told (`restored_parts`) and started; `check_copies` asks the
              server for a known id, `check_waiting` reads the notary's key book; clients come back
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.backup.backup import together
from sealbus.agents.backup.files import FileWriter, key_files, log_end, log_signers
from sealbus.agents.backup.manifest import KEYS, LOG, BackedUpStream, Manifest
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.nats.api import NANOSECONDS, StreamState
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Request, StreamRefused
from sealbus.bus.stream_names import AUDIT, SUBJECTS, TASKS
from sealbus.bus.streams.snapshot import (
    Snapshot,
    StoredId,
    delete_stream,
    last_id,
    list_streams,
    put_snapshot,
    refuses_copies,
)
from sealbus.envelopes.errors import BackupRefused, ConfigurationError
from sealbus.envelopes.limits import SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored. `records` is the last sequence of AUDIT; `lost` how many logged ones are after it."""

    manifest: Manifest
    streams: tuple[StreamState, ...]
    log: str
    """`restored`, `kept` if there is one here, or empty."""
    lost: int
    keys: int

    @property
    def records(self) -> int:
        """The last sequence of the stream that takes records; 0 if the backup has none."""
        current = self.manifest.current_audit
        return next((one.last for one in self.streams if current is not None and one.name == current.name), 0)


def validate(folder: Path, settings: Settings, *, log: Path | None, lose: int = 0) -> Manifest:
    """Return the manifest of a backup that is whole, of this deployment, and not older than the log here.

    A log here that has more records than the backup is accepted only if `lose` says exactly how many. Raises
    `BackupRefused`, which says in one line what is wrong.
    """
    manifest = Manifest.read(folder)
    manifest.check_of(settings.trust_domain.name, settings.control.notary.origin or "")
    listed = {one.path for one in manifest.files}
    if missing := [one.path for one in manifest.streams if one.path not in listed]:
        raise BackupRefused(f"its manifest names no {missing[0]}")
    for file in manifest.files:
        file.check(folder)
    if (lost := _lost(manifest, log)) != lose:
        raise BackupRefused(
            f"the log here has {lost} records after the backup's last: give `--lose {lost}` to go on without them"
            if lost
            else f"no records would be lost, not {lose}: leave out --lose"
        )
    return manifest


def _lost(manifest: Manifest, log: Path | None) -> int:
    current = manifest.current_audit
    return max(0, log_end(log) - (current.last if current is not None else 0)) if log is not None else 0


async def restore_backup(
    folder: Path, connection: Connection, settings: Settings, *, log: Path | None, keys: bool = False, lose: int = 0
) -> Restored:
    """Validate the backup in `folder`, and restore its streams, its log into the folder `log`, and its keys if asked for.

    Nothing is written over: no stream of the backup, or of sealbus, may exist, and a key file must be missing or the same. A
    log that is here is kept. Raises `BackupRefused`, `ConfigurationError`, `BusUnavailable`; what was restored is removed.
    """
    manifest = await asyncio.to_thread(lambda: validate(folder, settings, log=log, lose=lose))
    missing_keys = await asyncio.to_thread(_missing_keys, folder, manifest, key_files(settings)) if keys else []
    # Elsewhere than beside the log's key, `sealbus notary restored` checks it.
    if manifest.note and (signers := await asyncio.to_thread(log_signers, settings)):
        manifest.check_signed([one.verifier for one in signers])
    here = {one.name for one in await list_streams(connection.jetstream)}
    if running := sorted(here & {*SUBJECTS, *(one.name for one in manifest.streams)}):
        raise BackupRefused(
            f"streams are here already ({', '.join(running)}): a backup is restored into an empty server"
        )
    begun: list[str] = []

    async def restored(stream: BackedUpStream) -> StreamState:
        try:
            found = await _restore_stream(folder, connection, stream)
        except StreamRefused:
            # The server did not even begin: somebody else has made the stream meanwhile.
            raise
        except BaseException:
            begun.append(stream.name)
            raise
        begun.append(stream.name)
        return found

    # AUDIT comes last: without it nothing is handled.
    work = [one for one in manifest.streams if not one.current]
    records = [one for one in manifest.streams if one.current]
    try:
        streams = await together(restored, work)
        streams += await together(restored, records)
        kept = await asyncio.to_thread(_restore_log, folder, manifest, log) if log is not None else ""
        for path, target in missing_keys:
            await asyncio.to_thread(_write_key, folder / path, target)
    except BaseException:
        await asyncio.shield(_remove(connection.jetstream, begun))
        raise
    return Restored(manifest=manifest, streams=tuple(streams), log=kept, lost=lose, keys=len(missing_keys))


async def _restore_stream(folder: Path, connection: Connection, stream: BackedUpStream) -> StreamState:
    with (folder / stream.path).open("rb") as file:
        found = await put_snapshot(
            connection, stream.name, Snapshot(config=stream.config, state=stream.state), file.read
        )
    if found.last < stream.last:
        raise BackupRefused(f"stream {stream.name} ends at {found.last} instead of {stream.last}: it was removed")
    # Elsewhere messages have become too old, or give way to newer ones of their subject.
    if stream.audit and found.messages - (found.last - stream.last) != stream.messages:
        raise BackupRefused(f"stream {stream.name} has {found.messages} messages instead of {stream.messages}: removed")
    return found


async def _remove(request: Request, names: Sequence[str]) -> None:
    for name in names:
        await delete_stream(request, name)


def _restore_log(folder: Path, manifest: Manifest, log: Path) -> str:
    if log_end(log):
        return "kept"
    files = list(manifest.under(LOG))
    if not files:
        return ""
    if log.exists() and any(log.iterdir()):
        raise ConfigurationError(f"{log} is neither a log nor empty: move it away")
    under_way = log.with_name(f"{log.name}.restoring")
    shutil.rmtree(under_way, ignore_errors=True)
    try:
        for one in files:
            with FileWriter(under_way, one.path) as writer:
                writer.write((folder / one.path).read_bytes())
        if log.exists():
            log.rmdir()
        log.parent.mkdir(parents=True, exist_ok=True)
        (under_way / LOG).rename(log)
    finally:
        shutil.rmtree(under_way, ignore_errors=True)
    return "restored"


def _missing_keys(folder: Path, manifest: Manifest, named: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return the keys that are not here; raise `BackupRefused` if another one is in the place of one.

    Only files that the settings name as keys are written: the manifest could name any.
    """
    found = []
    for one in manifest.under(KEYS):
        target = Path(one.keeps)
        if target not in named:
            raise BackupRefused(f"{one.path} is of no key that these settings name")
        if not target.exists():
            found.append((one.path, target))
        elif target.read_bytes() != (folder / one.path).read_bytes():
            raise BackupRefused(f"{target} is another key than the backup's: move it away, or leave out --keys")
    return found


def _write_key(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(source.read_bytes())


async def check_copies(connection: Connection) -> list[StoredId]:
    """Prove that the server refuses copies of what it holds; return the messages whose ids were asked for.

    Only ids younger than a stream's duplicate window are remembered by any server: of an older backup there is none, and its
    messages are too old to be accepted again. Raises `BackupRefused` if a copy would be stored, `BusUnavailable`.
    """
    asked: list[StoredId] = []
    for stream in await list_streams(connection.jetstream):
        subject = SUBJECTS[TASKS] if stream.name == TASKS else SUBJECTS[AUDIT]
        subjects = stream.config.get("subjects")
        if not isinstance(subjects, list) or subject not in subjects:
            continue
        known, window = await last_id(connection.jetstream, stream.name, subject), stream.config.get("duplicate_window")
        seconds = window // NANOSECONDS if isinstance(window, int) else 0
        if known is None or not known.id or stream.told - known.stored >= seconds * SECOND:
            continue
        if not await refuses_copies(connection, known):
            raise BackupRefused(
                f"stream {stream.name} would store a copy of its last message: start nats-server again, then check again"
            )
        asked.append(known)
    return asked
