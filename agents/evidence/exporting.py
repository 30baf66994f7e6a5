"""Exports a log out of a running deployment: the notary's folder, and the stream that it is a log of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from sealbus.agents.evidence.export_writer import ExportWriter, Written
from sealbus.bus.ports import Transport
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.layout import CHECKPOINT
from sealbus.envelopes.export.policy_files import POLICY_FILE_BYTES, policy_digest
from sealbus.envelopes.export.root import Root
from sealbus.envelopes.export.strict_note import open_strictly
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["export_log", "log_files"]

SUBJECTS: Final = ("audit.>",)


async def export_log(
    folder: Path,
    *,
    get: Callable[[str], bytes | None],
    transport: Transport,
    root: Root,
    stream: str = "AUDIT",
    previous: bytes = b"",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Written:
    """Write the log that `get` gives by path, with the messages of `stream` and its policies, into the new `folder`.

    As far as its last checkpoint, which must be one that `root` leads to (`LogError`); the rest is for verification.
    `previous` is the checkpoint that the log begins with, where it does. `progress` is told entries, of how many.
    Raises `ConfigurationError` for a folder that is not empty and for a log without a checkpoint, `BusUnavailable`.
    """
    note = await asyncio.to_thread(get, CHECKPOINT)
    if note is None:
        raise ConfigurationError("the log has no checkpoint yet")
    size = open_strictly(note, root.origin, root.keys).checkpoint.size
    writer = await asyncio.to_thread(
        lambda: ExportWriter(folder, size, get, stream=stream, previous=previous, notaries=root.notaries)
    )
    try:
        if (first := writer.next) is not None:
            async with aclosing(transport.read(stream, SUBJECTS, start=first)) as batches:
                async for batch in batches:
                    messages = [
                        (one.position.sequence, one.position.stored, one.payload)
                        for one in batch
                        if one.position is not None
                    ]
                    await asyncio.to_thread(writer.take, messages)
                    progress(writer.written.entries, size)
                    if writer.next is None:
                        break
        return await asyncio.to_thread(writer.end, note)
    finally:
        writer.close()


def log_files(folder: Path) -> Callable[[str], bytes | None]:
    """Return what gives the files of a log that a notary keeps in `folder`; raise `ConfigurationError` without one."""
    if not (folder / CHECKPOINT).is_file():
        raise ConfigurationError(f"{folder} holds no log with a checkpoint")

    def get(path: str) -> bytes | None:
        try:
            with (folder / path).open("rb") as file:
                most = DEFAULT_LIMITS.envelope_bytes if policy_digest(path) is None else POLICY_FILE_BYTES
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ConfigurationError(f"{folder / path} cannot be read: {error.strerror}") from error

    return get
