"""Restores a backup into an empty server: it is checked first, compared afterwards, and removed on failure.

::

    validate: manifest and its signature, every file's size and hash, the deployment, what runs here
    streams:  restored some at a time, AUDIT last, each compared with the manifest
    log:      restored if there is no log here; otherwise the log here is kept
    then:     nats-server is restarted; the operator tells the notary (`restored_parts`) and starts it; `check_copies`
              offers the server a known id, `check_waiting` reads the notary's key book; clients come back
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealbus.agents.backup.backup import together
from sealbus.agents.backup.files import FileWriter, key_files, log_end, log_signers
from sealbus.agents.backup.manifest import KEYS, LOG, BackedUpStream, Manifest
from sealbus.agents.files import PRIVATE, create_file
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
    """The result. `records` is the last restored sequence of AUDIT; `lost` is the number of logged records after it."""

    manifest: Manifest
    streams: tuple[StreamState, ...]
    log: str
    """`restored`, `kept` if there was a log here, or empty."""
    lost: int
    keys: int

    @property
    def records(self) -> int:
        """The last sequence of the stream that takes records; 0 if the backup has none."""
        current = self.manifest.current_audit
        return next((stream.last for stream in self.streams if current is not None and stream.name == current.name), 0)


def validate(folder: Path, settings: Settings, *, log: Path | None, lose: int = 0) -> Manifest:
    """Return the manifest of a backup that is whole, of this deployment, and not older than the log here.

    A log with more records than the backup is accepted only if `lose` is exactly the number of further records. Raises
    `BackupRefused`, one line.
    """
    manifest = Manifest.read(folder)
    manifest.check_of(settings.trust_domain.name, settings.control.notary.origin or "")
    listed = {file.path for file in manifest.files}
    if missing := [stream.path for stream in manifest.streams if stream.path not in listed]:
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
    """Validate the backup in `folder`, and restore its streams, its log into the folder `log`, and with `keys` its keys.

    Nothing is overwritten: no stream of the backup or of sealbus may exist, and a key file must be missing or equal. A log
    that is here is kept. Raises `BackupRefused`, `ConfigurationError`, `BusUnavailable`, after removing restored streams.
    """
    manifest = await asyncio.to_thread(lambda: validate(folder, settings, log=log, lose=lose))
    missing_keys = await asyncio.to_thread(_missing_keys, folder, manifest, key_files(settings)) if keys else []
    # Without the log's key on this machine, `sealbus notary restored` checks the signature later.
    if manifest.note and (signers := await asyncio.to_thread(log_signers, settings)):
        manifest.check_signed([signer.verifier for signer in signers])
    here = {stream.name for stream in await list_streams(connection.jetstream)}
    if running := sorted(here & {*SUBJECTS, *(stream.name for stream in manifest.streams)}):
        raise BackupRefused(
            f"streams are here already ({', '.join(running)}): a backup is restored into an empty server"
        )
    begun: list[str] = []

    async def restored(stream: BackedUpStream) -> StreamState:
        try:
            state = await _restore_stream(folder, connection, stream)
        except StreamRefused:
            # The server refused before it began, because the stream was made meanwhile: it is not ours to remove.
            raise
        except BaseException:
            begun.append(stream.name)
            raise
        begun.append(stream.name)
        return state

    # AUDIT comes last, because agents handle no message without it.
    work = [stream for stream in manifest.streams if not stream.current]
    records = [stream for stream in manifest.streams if stream.current]
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
        state = await put_snapshot(
            connection, stream.name, Snapshot(config=stream.config, state=stream.state), file.read
        )
    if state.last < stream.last:
        raise BackupRefused(f"stream {stream.name} ends at {state.last} instead of {stream.last}: it was removed")
    # Other streams drop messages that are too old, or replace them by newer messages of their subject.
    if stream.audit and state.messages - (state.last - stream.last) != stream.messages:
        raise BackupRefused(f"stream {stream.name} has {state.messages} messages instead of {stream.messages}: removed")
    return state


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
        for file in files:
            with FileWriter(under_way, file.path) as writer:
                writer.write((folder / file.path).read_bytes())
        if log.exists():
            log.rmdir()
        log.parent.mkdir(parents=True, exist_ok=True)
        (under_way / LOG).rename(log)
    finally:
        shutil.rmtree(under_way, ignore_errors=True)
    return "restored"


def _missing_keys(folder: Path, manifest: Manifest, named: Sequence[Path]) -> list[tuple[str, Path]]:
    """Return the keys whose files are missing here; raise `BackupRefused` if a file holds another key.

    Only files that the settings name as keys are written, because a manifest could name any file.
    """
    missing = []
    for file in manifest.under(KEYS):
        target = Path(file.keeps)
        if target not in named:
            raise BackupRefused(f"{file.path} is not a key that these settings name")
        if not target.exists():
            missing.append((file.path, target))
        elif target.read_bytes() != (folder / file.path).read_bytes():
            raise BackupRefused(f"{target} and the backup hold different keys: move it away, or leave out --keys")
    return missing


def _write_key(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    create_file(target, source.read_bytes(), mode=PRIVATE)


async def check_copies(connection: Connection) -> list[StoredId]:
    """Check that the server refuses copies of its messages; return the messages whose copies it refused.

    A server remembers only ids younger than a stream's duplicate window. An older backup has none of these, and its messages
    are too old to be accepted again. Raises `BackupRefused` if a copy would be stored, `BusUnavailable`.
    """
    refused: list[StoredId] = []
    for stream in await list_streams(connection.jetstream):
        subject = SUBJECTS[TASKS] if stream.name == TASKS else SUBJECTS[AUDIT]
        subjects = stream.config.get("subjects")
        if not isinstance(subjects, list) or subject not in subjects:
            continue
        known, window = await last_id(connection.jetstream, stream.name, subject), stream.config.get("duplicate_window")
        seconds = window // NANOSECONDS if isinstance(window, int) else 0
        if known is None or not known.id or stream.answered - known.stored >= seconds * SECOND:
            continue
        if not await refuses_copies(connection, known):
            raise BackupRefused(
                f"stream {stream.name} would store a copy of its last message: start nats-server again, then check again"
            )
        refused.append(known)
    return refused
