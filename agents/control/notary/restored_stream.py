"""A stream that was restored from a backup: the operator's note about it, and how the log continues over it.

A restored stream was created anew, so a notary refuses it as another stream. `record_restoration` puts a note into the log's
folder, signed by the log's key. The note names the operator, both times of creation and the last sequence. If the notes lead
from the log's stream to the present one, the notary adds each as an entry once the log has reached its sequence. Messages
that were logged after that sequence stay in the log, and are missing from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sealbus.agents.control.notary.log.folder_store import FolderStore, write_durably
from sealbus.agents.control.notary.log.ledger import entry_rows, last_place, stored_checkpoint
from sealbus.bus.nats.api import StreamState
from sealbus.envelopes.errors import Code, ConfigurationError, LogError
from sealbus.envelopes.log.entries import Entry, EntryKind
from sealbus.envelopes.log.note import NoteSigner, NoteVerifier, parse_note
from sealbus.envelopes.log.places import Place
from sealbus.envelopes.log.restoration import (
    FOLDER,
    Restoration,
    open_restoration,
    parse_restoration,
    restoration_entry,
    restoration_path,
    sign_restoration,
)
from sealbus.envelopes.log.tiles import TILE_WIDTH
from sealbus.envelopes.message.restored import RestoredStream
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class StoredRestoration:
    """A restoration and its note, as the folder has it."""

    restoration: Restoration
    note: bytes = field(repr=False)

    @property
    def entry(self) -> Entry:
        """Its entry of the log."""
        return restoration_entry(self.note, self.restoration)


@dataclass(frozen=True, slots=True)
class Restorations:
    """The restorations of a log's stream. `logged` has, for each that the log holds, its entry number and last sequence."""

    created: int
    """When the log's first stream was created."""
    logged: tuple[tuple[int, int], ...] = ()
    pending: tuple[StoredRestoration, ...] = ()
    streams: tuple[RestoredStream, ...] = ()
    """Other streams that were restored with it, oldest first; also those of pending restorations."""

    @classmethod
    def read(
        cls, store: FolderStore, *, size: int, created: int, origin: str, verifiers: Sequence[NoteVerifier]
    ) -> Restorations:
        """Return the restorations in the folder, which must lead to the stream that was created at `created`.

        The log of `size` entries must hold the same restorations; those after its end must be signed by `verifiers`. Raises
        `LogError`: `log_mismatch` if they do not follow one another or differ from the log's, and as `open_restoration` does.
        """
        stored = _stored(store)
        at = created
        for former in reversed(stored):
            if former.restoration.created != at:
                raise LogError(Code.LOG_MISMATCH, "the restorations in the folder do not lead to this stream")
            at = former.restoration.before
        logged = _logged(store, size) if stored or _was_restored(store, size) else []
        for (_, place, entry), known in zip(logged, stored, strict=False):
            if known.entry.hash != entry or known.restoration.last != place.sequence:
                raise LogError(Code.LOG_MISMATCH, "the folder and the log hold different restorations")
        if len(logged) > len(stored):
            raise LogError(Code.LOG_MISMATCH, "a restoration that the log holds is not in the folder")
        pending = stored[len(logged) :]
        for waiting in pending:
            open_restoration(waiting.note, origin=origin, verifiers=verifiers)
        places = tuple((number, place.sequence) for number, place, _ in logged)
        streams = tuple(stream for known in stored for stream in known.restoration.streams)
        return cls(at, places, tuple(pending), streams)

    def is_gone(self, number: int, size: int, sequence: int) -> bool:
        """Return whether the message of entry `number`, in a log of `size` entries, is missing from the restored stream."""
        later = (*self.logged, *((size, waiting.restoration.last) for waiting in self.pending))
        return any(number < at and last < sequence for at, last in later)


def _stored(store: FolderStore) -> list[StoredRestoration]:
    stored = []
    for path in store.names(FOLDER):
        note = store.get(path) or b""
        restoration = parse_restoration(parse_note(note).text)
        if restoration_path(restoration.time) != path:
            raise LogError(Code.LOG_MISMATCH, f"{path} is not the restoration of its name")
        stored.append(StoredRestoration(restoration, note))
    return stored


def _was_restored(store: FolderStore, size: int) -> bool:
    """Return whether the last tile has a restoration: then its note must be in the folder."""
    if not size:
        return False
    places, _ = entry_rows(store, (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1)
    return any(place.kind is EntryKind.RESTORED for place in places)


def _logged(store: FolderStore, size: int) -> list[tuple[int, Place, bytes]]:
    logged = []
    for index in range(-(-size // TILE_WIDTH)):
        places, entries = entry_rows(store, index, min(TILE_WIDTH, size - index * TILE_WIDTH))
        for row, (place, entry) in enumerate(zip(places, entries, strict=True)):
            if place.kind is EntryKind.RESTORED:
                logged.append((index * TILE_WIDTH + row, place, entry))
    return logged


@dataclass(frozen=True, slots=True)
class RestoredBackup:
    """The signed backup that a stream was restored from: the hash of its manifest, and its other streams."""

    manifest: str
    streams: tuple[RestoredStream, ...]


def record_restoration(
    store: FolderStore,
    stream: StreamState,
    *,
    origin: str,
    signers: Sequence[NoteSigner],
    last: int,
    by: SpiffeId,
    now: int,
    backup: RestoredBackup | None = None,
) -> Restoration:
    """Write a note that the operator `by` restored `stream` up to the sequence `last`; return its content.

    `backup` is the backup if its manifest is signed and its other streams count as restored. Raises `ConfigurationError` if
    there is no log, if nothing was restored, or if the stream does not hold `last`; `LogError` for a log that is not in
    order; `StateUnavailable` if a notary runs on this folder.
    """
    verifiers = [signer.verifier for signer in signers]
    store.enter()
    try:
        signed = stored_checkpoint(store, origin, verifiers)
        if signed is None:
            raise ConfigurationError("there is no log here yet: a new one begins with the stream as it is")
        size, stored = signed.checkpoint.size, _stored(store)
        first, _ = entry_rows(store, 0, min(TILE_WIDTH, size))
        before = stored[-1].restoration.created if stored else first[0].time
        if not 0 <= last <= stream.last:
            raise ConfigurationError(f"stream {stream.name} ends at {stream.last}: it does not hold {last}")
        if before == stream.created and last_place(store, size).sequence <= last:
            raise ConfigurationError(
                f"stream {stream.name} is the one that the log is of, and nothing of it is missing"
            )
        restoration = Restoration(
            origin=origin,
            before=before,
            created=stream.created,
            last=last,
            by=by,
            time=max(now, stored[-1].restoration.time + 1 if stored else 0),
            manifest=backup.manifest if backup is not None else "",
            streams=tuple(sorted(backup.streams, key=lambda other: other.stream)) if backup is not None else (),
        )
        note = sign_restoration(restoration, signers)
        write_durably(store.folder, {restoration_path(restoration.time): note}, store.folder / "under-way")
        return restoration
    finally:
        store.leave()
