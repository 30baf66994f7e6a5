"""Tiles, which store and serve a log's tree: names, paths and bytes (C2SP tlog-tiles; SPEC.md section 13).

A tile of level L has up to 256 hashes, each the root of 256**L leaves. Beside every tile of level 0 there is a tile of
entries and a tile of places. Roots, frontiers and proofs of any size need only a few tiles at a time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.log.entries import ENTRY_BYTES
from sealbus.envelopes.log.places import PLACE_BYTES
from sealbus.envelopes.log.tree_proofs import (
    Frontier,
    consistency_path,
    inclusion_path,
    node_hash,
    range_root,
    subtrees,
)
from sealbus.envelopes.trust.caches import BoundedMap

TILE_WIDTH: Final = 256
HASH_BYTES: Final = 32
Level: TypeAlias = int | Literal["entries", "places"]
"""A level of the tree, from 0, or the tiles parallel to level 0. C2SP does not have `places`."""

TILE_HEIGHT: Final = 8
_MOST_LEVEL: Final = 63
_MAX: Final = DEFAULT_LIMITS.max_integer
_PATH: Final = re.compile(
    r"tile/(0|[1-9][0-9]?|entries|places)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)
_ENTRY_HEAD: Final = ENTRY_BYTES.to_bytes(2, "big")
_ENTRY_ROW: Final = len(_ENTRY_HEAD) + ENTRY_BYTES

_KEPT: Final = 64
"""Number of cached tiles: several times the tiles for all proofs of one place in a tree of 2^53 leaves."""


def number_path(number: int) -> str:
    """Return the digits of `number` in threes, as folders: `x001/x234/067` for 1234067 (C2SP tlog-tiles)."""
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    return "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])


@dataclass(frozen=True, slots=True)
class TileName:
    """The name of a tile, which is partial if `width` is under 256. Raises `LogError` (`bad_tile`) for invalid parts."""

    level: Level
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if isinstance(self.level, int) and not 0 <= self.level <= _MOST_LEVEL:
            raise LogError(Code.BAD_TILE, "level")
        if not 0 <= self.index <= _MAX or not 1 <= self.width <= TILE_WIDTH:
            raise LogError(Code.BAD_TILE, "index or width")

    @property
    def path(self) -> str:
        """The path under a log's prefix, for instance `tile/0/x001/x234/067.p/5`."""
        partial = f".p/{self.width}" if self.width < TILE_WIDTH else ""
        return f"tile/{self.level}/{number_path(self.index)}{partial}"

    @property
    def bytes(self) -> int:
        """The length of the tile in bytes."""
        row = _ENTRY_ROW if self.level == "entries" else PLACE_BYTES if self.level == "places" else HASH_BYTES
        return self.width * row

    def is_of(self, size: int) -> bool:
        """Return whether a tree of `size` leaves has all of this tile."""
        level = self.level if isinstance(self.level, int) else 0
        return self.index * TILE_WIDTH + self.width <= size >> (TILE_HEIGHT * level)

    @property
    def full(self) -> TileName:
        """The full tile that this tile is or will become."""
        return TileName(self.level, self.index)

    @classmethod
    def parse(cls, path: str) -> TileName:
        """Parse a tile's path; raise `LogError` (`bad_tile`) for any text but the one spelling of a path."""
        matched = _PATH.fullmatch(path) if len(path) <= DEFAULT_LIMITS.text_bytes else None
        if matched is None:
            raise LogError(Code.BAD_TILE, "path")
        level, number, width = matched.groups()
        named: Level = "entries" if level == "entries" else "places" if level == "places" else int(level)
        name = cls(named, int(number.replace("x", "").replace("/", "")), int(width or TILE_WIDTH))
        if name.path != path:
            raise LogError(Code.BAD_TILE, "path")
        return name


def tile_for(level: int, index: int, size: int) -> tuple[TileName, int]:
    """Return the tile with hash number `index` of tile level `level` in a tree of `size` leaves, and its place there.

    Raises `LogError` (`bad_tile`) if a tree of this size has no such complete subtree.
    """
    held = size >> (TILE_HEIGHT * level)
    if not 0 <= index < held:
        raise LogError(Code.BAD_TILE, "no such tile in a tree of this size")
    number = index // TILE_WIDTH
    return TileName(level, number, min(TILE_WIDTH, held - number * TILE_WIDTH)), index % TILE_WIDTH


def grown_tiles(old: int, new: int, *, beside: bool = True) -> Iterator[TileName]:
    """Yield the tiles of a tree of `new` leaves that a tree of `old` leaves does not have.

    If `old` is 0, these are all tiles. `beside` includes the tiles of entries and places, each before its tile of hashes.
    """
    level = 0
    while new >> (TILE_HEIGHT * level):
        before, now = old >> (TILE_HEIGHT * level), new >> (TILE_HEIGHT * level)
        if before < now:
            for index in range(before // TILE_WIDTH, (now - 1) // TILE_WIDTH + 1):
                width = min(TILE_WIDTH, now - index * TILE_WIDTH)
                if level == 0 and beside:
                    yield TileName("entries", index, width)
                    yield TileName("places", index, width)
                yield TileName(level, index, width)
        level += 1


def tile_reader(get: Callable[[str], bytes | None]) -> Callable[[TileName], bytes]:
    """Return a function that reads tiles; `get` returns the bytes at a path, or None.

    Instead of a missing partial tile, the function returns the beginning of the full tile. It raises `LogError` (`bad_tile`)
    if both are missing.
    """

    def read(name: TileName) -> bytes:
        data = get(name.path)
        if data is None and name.width < TILE_WIDTH:
            full = get(name.full.path)
            data = full[: name.bytes] if full is not None else None
        if data is None:
            raise LogError(Code.BAD_TILE, f"{name.path} is not there")
        return data

    return read


def parse_hashes(data: bytes, width: int) -> tuple[bytes, ...]:
    """Parse the `width` hashes of a tile; raise `LogError` (`bad_tile`) for any other length."""
    if len(data) != width * HASH_BYTES:
        raise LogError(Code.BAD_TILE, "hashes: length")
    return tuple(data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES))


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """Encode a tile of entries: each of 32 bytes, after its length as a big-endian uint16."""
    return b"".join(_ENTRY_HEAD + entry for entry in entries)


def parse_entries(data: bytes, width: int) -> tuple[bytes, ...]:
    """Parse the `width` entries of a tile; raise `LogError` (`bad_tile`) for entries that are not 32 bytes."""
    if len(data) != width * _ENTRY_ROW:
        raise LogError(Code.BAD_TILE, "entries: length")
    rows = [data[start : start + _ENTRY_ROW] for start in range(0, len(data), _ENTRY_ROW)]
    if any(row[:2] != _ENTRY_HEAD for row in rows):
        raise LogError(Code.BAD_TILE, "entries: length of an entry")
    return tuple(row[2:] for row in rows)


ReadTile: TypeAlias = Callable[[TileName], bytes]
"""Returns the bytes of a tile. Instead of a missing partial tile, it may return the full tile, which begins alike."""


class TiledTree:
    """The tree of the first `size` leaves. Only the form of tiles is checked.

    A tile with a wrong hash leads to a wrong root or to a proof that does not verify: compare `root` with a checkpoint
    first. Exceptions of `read` pass through; malformed tiles raise `LogError` (`bad_tile`).
    """

    def __init__(self, size: int, read: ReadTile) -> None:
        self.size = size
        self._read = read
        self._kept: BoundedMap[TileName, tuple[bytes, ...]] = BoundedMap(_KEPT)

    def node(self, level: int, index: int) -> bytes:
        """Return the root of the complete subtree number `index` of height `level`."""
        tile_level, height = divmod(level, TILE_HEIGHT)
        name, offset = tile_for(tile_level, ((index + 1) << height) - 1, self.size)
        hashes: Sequence[bytes] = self._hashes(name)[offset + 1 - (1 << height) : offset + 1]
        while len(hashes) > 1:
            hashes = [node_hash(hashes[left], hashes[left + 1]) for left in range(0, len(hashes), 2)]
        return hashes[0]

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first `size` leaves, of all leaves by default."""
        return range_root([self.node(*place) for place in subtrees(0, self.size if size is None else size)])

    def frontier(self) -> Frontier:
        """Return the frontier of the whole tree, from which the tree can grow."""
        return Frontier(self.size, [self.node(*place) for place in subtrees(0, self.size)])

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the inclusion path of entry `index` in the tree of the first `size` leaves, of all leaves by default."""
        return inclusion_path(index, self.size if size is None else size, self.node)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the tree of `new` leaves, of all leaves by default, begins with that of `old`."""
        return consistency_path(old, self.size if new is None else new, self.node)

    def _hashes(self, name: TileName) -> tuple[bytes, ...]:
        hashes = self._kept.get(name)
        if hashes is None:
            data = self._read(name)
            hashes = parse_hashes(data[: name.width * 32] if len(data) == 8_192 else data, name.width)
            self._kept.put(name, hashes)
        return hashes
