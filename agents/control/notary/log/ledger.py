"""The log as it grows in memory: its entries, and the files that are new since the last checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.log.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from sealbus.envelopes.log.entries import Entry, EntryOrder
from sealbus.envelopes.log.note import NoteVerifier, keep_signatures
from sealbus.envelopes.log.places import Place, encode_places, parse_places, place_of
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName, encode_entries, parse_entries, tile_reader
from sealbus.envelopes.log.tree_builder import TreeBuilder, check_tiles
from sealbus.envelopes.records.notary import BundleRecord, PolicyRecord
from sealbus.envelopes.records.record import parse_record

R = TypeVar("R", BundleRecord, PolicyRecord)


def stored_checkpoint(store: FolderStore, origin: str, verifiers: Sequence[NoteVerifier]) -> SignedCheckpoint | None:
    """Return the last checkpoint of `store` without cosignatures, or `None`; raise `LogError` if no verifier signed it."""
    note = store.get(CHECKPOINT)
    if note is None:
        return None
    return open_checkpoint(keep_signatures(note, verifiers), origin=origin, verifiers=verifiers)


def entry_rows(store: FolderStore, index: int, width: int) -> tuple[tuple[Place, ...], tuple[bytes, ...]]:
    """Return places and entries of tile `index`, of which `width` count; raise `LogError` (`bad_tile`)."""
    read = tile_reader(store.get)
    places = parse_places(read(TileName("places", index, width)), width)
    return places, parse_entries(read(TileName("entries", index, width)), width)


def last_place(store: FolderStore, size: int) -> Place:
    """Return the place of the last entry of a log of `size` entries; raise `LogError` (`bad_tile`)."""
    places, _ = entry_rows(store, (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1)
    return places[-1]


def stored_record(store: FolderStore, path: str, kind: type[R], path_of: Callable[[R], str]) -> R:
    """Return the record of `kind` in the file `path` of `store`, the path that `path_of` gives the record.

    Raises `LogError` (`log_mismatch`) for a file without such a record.
    """
    try:
        record = parse_record(store.get(path) or b"")
    except EnvelopeError as error:
        raise LogError(Code.LOG_MISMATCH, f"{path} is not a record") from error
    if not isinstance(record, kind) or path_of(record) != path:
        raise LogError(Code.LOG_MISMATCH, f"{path} is not the {kind.__name__} of its name")
    return record


class Ledger:
    """The entries of a log, and the files to store for them. It stores nothing; an entry counts once its files are stored."""

    def __init__(self) -> None:
        self._tree = TreeBuilder()
        self._order = EntryOrder()
        self._entries: list[bytes] = []
        self._places: list[Place] = []
        self._filled: dict[str, bytes] = {}
        self.latest = 0
        """The latest stored time of the entries so far; in a resumed log, of those from the last tile on."""

    @classmethod
    def resume(cls, store: FolderStore, checkpoint: Checkpoint) -> Ledger:
        """Return the ledger that continues after `checkpoint`, whose tiles are all checked against it.

        Raises `LogError`: `log_mismatch` if they do not lead to its root, `bad_tile`, `bad_entry`.
        """
        ledger, size = cls(), checkpoint.size
        ledger._tree = check_tiles(size, checkpoint.root, tile_reader(store.get))
        last = 0
        if size:
            index, width = (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1
            places, entries = entry_rows(store, index, width)
            last, ledger.latest = places[-1].sequence, max(place.time for place in places)
            if width < TILE_WIDTH:
                ledger._entries, ledger._places = [*entries], [*places]
        ledger._order = EntryOrder(size, last)
        return ledger

    @property
    def size(self) -> int:
        """Number of entries."""
        return self._tree.size

    @property
    def next(self) -> int:
        """Sequence of the next message."""
        return self._order.next

    @property
    def settled(self) -> bool:
        """Whether the log may have a checkpoint at its present size."""
        return self._order.settled

    def root(self) -> bytes:
        """Return the root of all entries so far."""
        return self._tree.root()

    def append(self, entry: Entry) -> None:
        """Add one entry; raise `LogError` (`bad_entry`) if it may not come next."""
        self._order.take_entry(entry)
        self._entries.append(entry.hash)
        self._places.append(place_of(entry))
        self.latest = max(self.latest, entry.time)
        if len(self._entries) == TILE_WIDTH:
            self._add_beside(self._filled, self._tree.size // TILE_WIDTH)
            self._entries, self._places = [], []
        for name, data in self._tree.append(entry.leaf):
            self._filled[name.path] = data

    def files(self) -> Mapping[str, bytes]:
        """Return the files that are new or changed since `stored`: entries and places before the hashes over them."""
        files = dict(self._filled)
        if self._entries:
            self._add_beside(files, self._tree.size // TILE_WIDTH)
        for name, data in self._tree.partial():
            files[name.path] = data
        return files

    def stored(self) -> None:
        """Forget the returned files: they are stored."""
        self._filled.clear()

    def _add_beside(self, files: dict[str, bytes], index: int) -> None:
        width = len(self._entries)
        files[TileName("entries", index, width).path] = encode_entries(self._entries)
        files[TileName("places", index, width).path] = encode_places(self._places)
