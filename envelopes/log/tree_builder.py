"""A growing tree and its tiles, in memory of O(log n): the notary writes them, and `check_tiles` checks them."""

from __future__ import annotations

from collections.abc import Iterator

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.places import parse_places
from sealbus.envelopes.log.tiles import (
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    ReadTile,
    TileName,
    parse_entries,
    parse_hashes,
)
from sealbus.envelopes.log.tree_proofs import Frontier, node_hash
from sealbus.envelopes.trust.merkle import leaf_hash


class TreeBuilder:
    """The right edge of a tree: for each level, the hashes of its last tile, unless the tile is full."""

    __slots__ = ("_frontier", "_rows")

    def __init__(self) -> None:
        """Start without leaves."""
        self._frontier = Frontier()
        self._rows: list[list[bytes]] = []

    @classmethod
    def resume(cls, size: int, root: bytes, read: ReadTile) -> TreeBuilder:
        """Return a builder for a tree of `size` leaves, with its right edge read from tiles.

        Raises `LogError`: `log_mismatch` unless the tiles lead to `root`, `bad_tile` for a malformed tile. Errors of `read`
        pass through. Tiles to the left of the edge are not read.
        """
        tree, level, nodes = cls(), 0, list[bytes]()
        while held := size >> (TILE_HEIGHT * level):
            width = held % TILE_WIDTH
            row: list[bytes] = []
            if width:
                name = TileName(level, held // TILE_WIDTH, width)
                data = read(name)
                whole = len(data) == TILE_WIDTH * HASH_BYTES
                row = [*parse_hashes(data[: width * HASH_BYTES] if whole else data, width)]
            tree._rows.append(row)
            nodes[:0] = _complete(row)
            level += 1
        tree._frontier = Frontier(size, nodes)
        if tree.root() != root:
            raise LogError(Code.LOG_MISMATCH, "the tiles do not lead to the checkpoint's root")
        return tree

    @property
    def size(self) -> int:
        """Number of leaves."""
        return self._frontier.size

    def root(self) -> bytes:
        """Return the root of all leaves so far."""
        return self._frontier.root()

    def append(self, leaf: bytes) -> list[tuple[TileName, bytes]]:
        """Add the hash of a leaf; return the tiles that it filled, lowest first."""
        self._frontier.append(leaf)
        filled: list[tuple[TileName, bytes]] = []
        level, node = 0, leaf
        while True:
            if level == len(self._rows):
                self._rows.append([])
            row = self._rows[level]
            row.append(node)
            if len(row) < TILE_WIDTH:
                return filled
            held = self.size >> (TILE_HEIGHT * level)
            filled.append((TileName(level, held // TILE_WIDTH - 1), b"".join(row)))
            [node] = _folded(row, TILE_HEIGHT)
            row.clear()
            level += 1

    def partial(self) -> Iterator[tuple[TileName, bytes]]:
        """Yield the partial tiles of the tree."""
        for level, row in enumerate(self._rows):
            if row:
                held = self.size >> (TILE_HEIGHT * level)
                yield TileName(level, held // TILE_WIDTH, len(row)), b"".join(row)


def _folded(hashes: list[bytes], times: int) -> list[bytes]:
    for _ in range(times):
        hashes = [node_hash(hashes[left], hashes[left + 1]) for left in range(0, len(hashes), 2)]
    return hashes


def _complete(row: list[bytes]) -> list[bytes]:
    """Return the roots of the complete subtrees over the hashes of a partial tile, largest first."""
    nodes, start = list[bytes](), 0
    while start < len(row):
        height = (len(row) - start).bit_length() - 1
        nodes += _folded(row[start : start + (1 << height)], height)
        start += 1 << height
    return nodes


def check_tiles(size: int, root: bytes, read: ReadTile) -> TreeBuilder:
    """Check the tiles of the first `size` entries and return their tree, from which the log can grow.

    Raises `LogError`: `log_mismatch` for a tile that does not follow from the entries, or entries that do not lead to
    `root`; `bad_tile` for a malformed tile. Errors of `read` pass through. Only the form of places is checked.
    """
    tree = TreeBuilder()
    for index in range(-(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        parse_places(read(TileName("places", index, width)), width)
        for entry in parse_entries(read(TileName("entries", index, width)), width):
            for name, data in tree.append(leaf_hash(entry)):
                _compare(name, data, read)
    for name, data in tree.partial():
        _compare(name, data, read)
    if tree.root() != root:
        raise LogError(Code.LOG_MISMATCH, "the entries do not lead to the checkpoint's root")
    return tree


def _compare(name: TileName, data: bytes, read: ReadTile) -> None:
    if read(name) != data:
        raise LogError(Code.LOG_MISMATCH, f"{name.path} does not follow from the entries")
