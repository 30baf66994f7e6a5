"""What was restored of a backup, as the notary is told of it, and whether what waits is handled.

A restored stream is younger than its messages, so that agents refuse them as replays. `restored_streams` tells which streams
are those of a signed backup. A notary puts that into its log and its key book. `check_waiting` reads the book as agents do.
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
"""Seconds that a notary has to compare a restored stream with its log, and to say so."""
_PAUSE: Final = 0.5


async def restored_streams(request: Request, manifest: Manifest) -> list[RestoredStream]:
    """Return the streams of a backup, but those of records, as they are on the server since it was restored.

    Raises `BackupRefused` if a stream ends before the backup did, `ConfigurationError` if one is not there or is not younger
    than the one that it was restored from, `BusUnavailable`.
    """
    found: list[RestoredStream] = []
    for one in manifest.streams:
        if one.audit:
            continue
        state = await existing_stream(request, one.name)
        if state.created == one.created:
            # A cold copy: the stream is the one that it was.
            continue
        last = await last_restored(request, state)
        if last < one.last:
            raise BackupRefused(f"stream {one.name} ends at {last} instead of {one.last}")
        try:
            found.append(RestoredStream(stream=one.name, before=one.created, created=state.created, last=last))
        except LogError as error:
            raise ConfigurationError(
                f"stream {one.name} was created before the backup's: the server's clock is wrong"
            ) from error
    return found


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
    """A stream of work that holds messages from before it was restored. `counts` is whether agents take them."""

    stream: str
    last: int
    counts: bool


async def check_waiting(request: Request, known: RestoredStreams, *, within: float = WITHIN) -> list[WaitingPart]:
    """Return the restored streams of work, and whether agents take what they hold.

    A notary that has just started has `within` seconds to write its key book. Raises `BusUnavailable`.
    """
    found, end = list[WaitingPart](), asyncio.get_running_loop().time() + within
    for state in await list_streams(request):
        if state.name not in (TASKS, EVENTS):
            continue
        first = await stored_from(request, state.name, state.first)
        if first is None or first.stored >= state.created:
            continue
        restored = await _known_by(known, state.created, end)
        counts = any((one.stream, one.created) == (state.name, state.created) for one in restored)
        found.append(WaitingPart(stream=state.name, last=await last_restored(request, state), counts=counts))
    return found


async def _known_by(known: RestoredStreams, created: int, end: float) -> Sequence[RestoredStream]:
    """Return what is known of restored streams once it is known, nothing if it is not at `end` of the loop's clock."""
    while True:
        try:
            return await known.restored(created)
        except StateUnavailable:
            if asyncio.get_running_loop().time() >= end:
                return ()
        await asyncio.sleep(_PAUSE)
