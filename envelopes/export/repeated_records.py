"""Finds the records that a log holds more than once: a record is named by its leaf, and counts where it stands first.

A recorder that was not sure whether the stream had a record stores it again; and whoever captured an audit message may
have it stored again. 22 bytes for each record are all that is kept.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NAME_BYTES", "RepeatedRecords"]

NAME_BYTES: Final = 16
"""How much of a leaf tells records apart: two leaves that begin alike are found by nobody in 2^64 tries."""
_TILE_BYTES: Final = 6
"""Tiles of a log of 2^53 entries have numbers below 2^45."""
_ROW: Final = NAME_BYTES + _TILE_BYTES


class RepeatedRecords:
    """Takes the names of the records of each tile, in the order of tiles."""

    def __init__(self) -> None:
        # In parts by the first byte of the name, so that names become objects of one part at a time only.
        self._parts = [bytearray() for _ in range(256)]

    def take(self, tile: int, names: bytes) -> None:
        """Take the `names` of a tile's records, joined: the first `NAME_BYTES` of each leaf."""
        place = tile.to_bytes(_TILE_BYTES, "big")
        for at in range(0, len(names), NAME_BYTES):
            self._parts[names[at]] += names[at : at + NAME_BYTES] + place

    def again(self) -> dict[int, frozenset[bytes]]:
        """Return by tile the names of those of its records that stand in an earlier tile, too."""
        found: dict[int, set[bytes]] = {}
        for part in self._parts:
            seen: set[bytes] = set()
            for at in range(0, len(part), _ROW):
                name = bytes(part[at : at + NAME_BYTES])
                if name in seen:
                    found.setdefault(int.from_bytes(part[at + NAME_BYTES : at + _ROW], "big"), set()).add(name)
                seen.add(name)
        return {tile: frozenset(names) for tile, names in sorted(found.items())}
