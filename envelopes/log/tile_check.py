"""A whole log's tiles against its checkpoint: every hash computed again from the entries, memory O(log n)."""

from __future__ import annotations

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.places import parse_places
from sealbus.envelopes.log.tiled_tree import ReadTile
from sealbus.envelopes.log.tiles import TILE_WIDTH, TileName, parse_entries
from sealbus.envelopes.log.tiling import Tiling
from sealbus.envelopes.merkle import leaf_hash

__all__ = ["check_tiles"]


def check_tiles(size: int, root: bytes, read: ReadTile) -> Tiling:
    """Return the tiling of the first `size` entries, which `read` gives, from which the log can grow.

    Raises `LogError`: `log_mismatch` for a tile that does not follow from the entries, or entries that do not lead to
    `root`; `bad_tile` for one of the wrong form; and what `read` raises. Places are checked for their form only: what
    they say is compared with messages.
    """
    tiling = Tiling()
    for index in range(-(-size // TILE_WIDTH)):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        parse_places(read(TileName("places", index, width)), width)
        for entry in parse_entries(read(TileName("entries", index, width)), width):
            for name, data in tiling.append(leaf_hash(entry)):
                _compare(name, data, read)
    for name, data in tiling.partial():
        _compare(name, data, read)
    if tiling.root() != root:
        raise LogError(Code.LOG_MISMATCH, "the entries do not lead to the checkpoint's root")
    return tiling


def _compare(name: TileName, data: bytes, read: ReadTile) -> None:
    if read(name) != data:
        raise LogError(Code.LOG_MISMATCH, f"{name.path} does not follow from the entries")
