"""A tree read from its tiles: roots, frontier and proofs of any size, a few tiles at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from sealbus.envelopes.log.frontier import Frontier, node_hash, range_root
from sealbus.envelopes.log.proofs import consistency_path, inclusion_path, subtrees
from sealbus.envelopes.log.tiles import TileName, parse_hashes, tile_for

__all__ = ["ReadTile", "TiledTree"]

ReadTile: TypeAlias = Callable[[TileName], bytes]
"""Gives the bytes of a tile. Where a partial tile is gone, the full one may be given: its first hashes are the same."""

_HEIGHT: Final = 8
_KEPT: Final = 64
"""Tiles kept: as many as all proofs of one place need in a tree of 2^53 leaves, several times over."""


class TiledTree:
    """The tree of the first `size` leaves. Tiles are checked for their form only.

    A tile with a wrong hash gives a wrong root or a proof that does not verify: compare `root` with a checkpoint first.
    What `read` raises comes through; misshapen tiles raise `LogError` (`bad_tile`).
    """

    def __init__(self, size: int, read: ReadTile) -> None:
        self.size = size
        self._read = read
        self._kept: OrderedDict[TileName, tuple[bytes, ...]] = OrderedDict()

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the complete subtree number `index` of height `level`."""
        tile_level, height = divmod(level, _HEIGHT)
        name, offset = tile_for(tile_level, ((index + 1) << height) - 1, self.size)
        hashes: Sequence[bytes] = self._hashes(name)[offset + 1 - (1 << height) : offset + 1]
        while len(hashes) > 1:
            hashes = [node_hash(hashes[left], hashes[left + 1]) for left in range(0, len(hashes), 2)]
        return hashes[0]

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves, of all unless given."""
        return range_root([self.node(*place) for place in subtrees(0, self.size if size is None else size)])

    def frontier(self) -> Frontier:
        """Return the frontier of the whole tree, from which it can grow."""
        return Frontier(self.size, [self.node(*place) for place in subtrees(0, self.size)])

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the inclusion path of entry `index` in the tree of the first `size` leaves, of all unless given."""
        return inclusion_path(index, self.size if size is None else size, self.node)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the tree of `new` leaves, of all unless given, begins with the one of `old`."""
        return consistency_path(old, self.size if new is None else new, self.node)

    def _hashes(self, name: TileName) -> tuple[bytes, ...]:
        hashes = self._kept.get(name)
        if hashes is None:
            data = self._read(name)
            hashes = parse_hashes(data[: name.width * 32] if len(data) == 8_192 else data, name.width)
            self._kept[name] = hashes
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return hashes
