"""Takes a backup of a running deployment: the log first, then the streams, some at a time, AUDIT last.

The order keeps a backup consistent. The log is never ahead of its stream. Work (TASKS, EVENTS) is taken before the claims on
it (STATE, HELD), so the backup holds the claims of work that is handled meanwhile. AUDIT holds the records of all handled
work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Final, TypeVar

from sealbus.agents.backup.files import FileWriter, copy_log, key_files, log_end, log_signers, write_copy
from sealbus.agents.backup.manifest import (
    KEYS,
    LOG,
    MANIFEST,
    STREAMS,
    BackedUpFile,
    BackedUpStream,
    Manifest,
    is_audit,
)
from sealbus.agents.runtime.settings.settings import Settings
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import StreamState, takes_records
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.ports import Clock
from sealbus.bus.stream_names import EVENTS, HELD, STATE, TASKS
from sealbus.bus.streams.snapshot import Snapshot, list_streams, take_snapshot
from sealbus.envelopes.errors import BusUnavailable, ConfigurationError
from sealbus.envelopes.trust.names import is_token

_logger = logging.getLogger(__name__)

SNAPSHOT_TRIES: Final = 3
"""Snapshots that are begun of one stream, before a backup fails."""
AT_A_TIME: Final = 4
"""Streams that are copied out of the server, or into it, at a time."""

_FIRST: Final = (TASKS, EVENTS)
_LATER: Final = (STATE, HELD)
_Item = TypeVar("_Item")
_Given = TypeVar("_Given")


def in_order(streams: list[StreamState]) -> list[StreamState]:
    """Return the streams in the order in which a backup takes them."""
    return sorted(streams, key=lambda stream: (_turn(stream), stream.name))


def _turn(stream: StreamState) -> tuple[bool, bool, bool, bool]:
    """Return the turn of a stream: streams of one turn may be taken together."""
    name, audit = stream.name, is_audit(dict(stream.config))
    return takes_records(stream), audit, name in _LATER, name not in _FIRST


async def together(work: Callable[[_Item], Coroutine[None, None, _Given]], items: Iterable[_Item]) -> list[_Given]:
    """Return the result of `work` for each of `items`, in their order, `AT_A_TIME` at once.

    The first failure ends the others, and is raised.
    """
    room = asyncio.Semaphore(AT_A_TIME)

    async def run(item: _Item) -> _Given:
        async with room:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run(item)) for item in items]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


async def take_backup(
    folder: Path,
    connection: Connection,
    settings: Settings,
    *,
    log: Path | None,
    keys: bool = False,
    clock: Clock = wall_clock,
) -> Manifest:
    """Write a backup into the new `folder`; `log` is the folder of the notary's log, `keys` adds the settings' key files.

    The log's keys sign the manifest if they are on this machine. Without a signature, agents refuse waiting messages after a
    restore. The manifest is written last: without it a folder is no backup. Raises `ConfigurationError` if the folder is not
    empty, or a key or the log cannot be read; `BusUnavailable`.
    """
    await asyncio.to_thread(_begin, folder)
    signers = await asyncio.to_thread(log_signers, settings)
    began, files = clock(), list[BackedUpFile]()
    if log is not None:
        files += await asyncio.to_thread(copy_log, log, folder, LOG)
    if keys:
        files += await asyncio.to_thread(_copy_keys, folder, settings)
    listed = in_order(await list_streams(connection.jetstream))
    if strange := [stream.name for stream in listed if not is_token(stream.name)]:
        raise ConfigurationError(f"stream {strange[0][:255]!r} is not one that sealbus can make")
    streams: list[BackedUpStream] = []
    for _, group in groupby(listed, key=_turn):
        for stream, file in await together(partial(_take_stream, folder, connection), group):
            streams.append(stream)
            files.append(file)
    unsigned = Manifest(
        version=version("sealbus"),
        taken=began,
        trust_domain=settings.trust_domain.name,
        origin=settings.control.notary.origin or "",
        streams=tuple(streams),
        files=tuple(files),
        log_last=await asyncio.to_thread(log_end, folder / LOG) if log is not None else 0,
    )
    manifest = unsigned.signed(signers)
    with FileWriter(folder, MANIFEST) as writer:
        writer.write(manifest.encode())
    return manifest


async def _take_stream(folder: Path, connection: Connection, state: StreamState) -> tuple[BackedUpStream, BackedUpFile]:
    snapshot, file = await _snapshot(folder, connection, state.name)
    stream = BackedUpStream(
        name=state.name,
        config=snapshot.config,
        state=snapshot.state,
        created=state.created,
        messages=snapshot.messages,
        first=snapshot.first,
        last=snapshot.last,
    )
    return stream, file


async def _snapshot(folder: Path, connection: Connection, stream: str) -> tuple[Snapshot, BackedUpFile]:
    """Write a snapshot of `stream`, again if it is cut off: a server ends it if a reader's consumer goes away meanwhile."""
    path, tries = f"{STREAMS}/{stream}.snapshot", SNAPSHOT_TRIES
    while True:
        tries -= 1
        try:
            with FileWriter(folder, path) as writer:
                snapshot = await take_snapshot(connection, stream, writer.write)
        except BusUnavailable as error:
            if not tries:
                raise
            _logger.warning("%s is copied again: %s", stream, error.detail)
            await asyncio.to_thread((folder / path).unlink)
        else:
            return snapshot, writer.written


def _begin(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: a backup is written into a new folder")


def _copy_keys(folder: Path, settings: Settings) -> list[BackedUpFile]:
    return [
        write_copy(folder, f"{KEYS}/{number:02d}-{file.name}", file.read_bytes(), keeps=str(file))
        for number, file in enumerate(key_files(settings))
    ]
