"""The log as it grows in memory: its entries, and the files that are new since the last checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sealbus.agents.control.notary.log.folder_store import CHECKPOINT, FolderStore
from sealbus.envelopes.log.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from sealbus.envelopes.log.entries import Entry, EntryOrder
from sealbus.envelopes.log.note import NoteVerifier
from sealbus.envelopes.log.places import Place, encode_places, parse_places, place_of
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName, encode_entries, parse_entries, tile_reader
from sealbus.envelopes.log.tree_builder import TreeBuilder, check_tiles


def stored_checkpoint(store: FolderStore, origin: str, verifiers: Sequence[NoteVerifier]) -> SignedCheckpoint | None:
    """Return the last checkpoint of `store`, or `None`; raise `LogError` unless one of `verifiers` signed it."""
    note = store.get(CHECKPOINT)
    return open_checkpoint(note, origin=origin, verifiers=verifiers) if note is not None else None


def entry_rows(store: FolderStore, index: int, width: int) -> tuple[tuple[Place, ...], tuple[bytes, ...]]:
    """Return places and entries of tile `index`, of which `width` count; raise `LogError` (`bad_tile`)."""
    read = tile_reader(store.get)
    places = parse_places(read(TileName("places", index, width)), width)
    return places, parse_entries(read(TileName("entries", index, width)), width)


def last_place(store: FolderStore, size: int) -> Place:
    """Return the place of the last entry of a log of `size` entries; raise `LogError` (`bad_tile`)."""
    places, _ = entry_rows(store, (size - 1) // TILE_WIDTH, (size - 1) % TILE_WIDTH + 1)
    return places[-1]


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
        self._order.take(entry)
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
