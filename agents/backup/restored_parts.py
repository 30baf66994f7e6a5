"""The streams that were restored from a backup, for the notary's log, and whether agents handle their waiting messages.

A restored stream is younger than its messages, so agents refuse them as replays. `restored_streams` returns the streams of a
signed backup, which a notary names in its log and its key book. `check_waiting` reads the book as agents do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sealbus.agents.backup.manifest import Manifest
from sealbus.bus.nats.api import StreamState, existing_stream
from sealbus.bus.ports import Request
from sealbus.bus.stream_names import EVENTS, TASKS
from sealbus.bus.streams.key_book import RestoredStreams
from sealbus.bus.streams.snapshot import list_streams, stored_from
from sealbus.envelopes.errors import BackupRefused, ConfigurationError, LogError, StateUnavailable
from sealbus.envelopes.message.restored import RestoredStream

WITHIN: Final = 30.0
"""Seconds that a notary has to compare a restored stream with its log, and to write its key book."""
_PAUSE: Final = 0.5


async def restored_streams(request: Request, manifest: Manifest) -> list[RestoredStream]:
    """Return the restored streams of a backup, as they are on the server, without those of records.

    Raises `BackupRefused` if a stream ends before the backup's end, `ConfigurationError` if a stream is missing or is not
    younger than its original, `BusUnavailable`.
    """
    restored: list[RestoredStream] = []
    for stream in manifest.streams:
        if stream.audit:
            continue
        state = await existing_stream(request, stream.name)
        if state.created == stream.created:
            # A cold copy: the stream is still the original.
            continue
        last = await last_restored(request, state)
        if last < stream.last:
            raise BackupRefused(f"stream {stream.name} ends at {last} instead of {stream.last}")
        try:
            restored.append(RestoredStream(stream=stream.name, before=stream.created, created=state.created, last=last))
        except LogError as error:
            raise ConfigurationError(
                f"stream {stream.name} was created before the backup's: the server's clock is wrong"
            ) from error
    return restored


async def last_restored(request: Request, state: StreamState) -> int:
    """Return the last sequence that was stored before the stream was created. Raises `BusUnavailable`."""
    low, high = state.first, state.last + 1
    while low < high:
        middle = (low + high) // 2
        following = await stored_from(request, state.name, middle)
        if following is None or following.stored >= state.created:
            high = middle
        else:
            low = following.sequence + 1
    return low - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPart:
    """A stream of work with messages from before it was restored. `counts` is whether agents accept them."""

    stream: str
    last: int
    counts: bool


async def check_waiting(request: Request, known: RestoredStreams, *, within: float = WITHIN) -> list[WaitingPart]:
    """Return the restored streams of work, and whether agents accept their messages.

    A notary that has just started has `within` seconds to write its key book. Raises `BusUnavailable`.
    """
    parts, end = list[WaitingPart](), asyncio.get_running_loop().time() + within
    for state in await list_streams(request):
        if state.name not in (TASKS, EVENTS):
            continue
        first = await stored_from(request, state.name, state.first)
        if first is None or first.stored >= state.created:
            continue
        restored = await _known_by(known, state.created, end)
        counts = any((stream.stream, stream.created) == (state.name, state.created) for stream in restored)
        parts.append(WaitingPart(stream=state.name, last=await last_restored(request, state), counts=counts))
    return parts


async def _known_by(known: RestoredStreams, created: int, end: float) -> Sequence[RestoredStream]:
    """Wait for the restored streams that the key book names, until `end` of the loop's clock; then return none."""
    while True:
        try:
            return await known.restored(created)
        except StateUnavailable:
            if asyncio.get_running_loop().time() >= end:
                return ()
        await asyncio.sleep(_PAUSE)
