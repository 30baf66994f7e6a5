"""A whole log against its checkpoint: no byte of its tiles can be another."""

from __future__ import annotations

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import Entry, creation_entry, unverified_entry
from sealbus.envelopes.log.places import encode_places, place_of
from sealbus.envelopes.log.tiles import TileName, encode_entries
from sealbus.envelopes.log.tree_builder import TreeBuilder, check_tiles

SIZE = 300
ENTRIES: list[Entry] = [
    creation_entry("AUDIT", created=1),
    *(unverified_entry(number, time=number, payload=b"") for number in range(1, SIZE)),
]


def whole() -> tuple[TreeBuilder, dict[TileName, bytes]]:
    tiling, tiles = TreeBuilder(), dict[TileName, bytes]()
    for entry in ENTRIES:
        tiles.update(tiling.append(entry.leaf))
    tiles.update(tiling.partial())
    for index, width in ((0, 256), (1, SIZE - 256)):
        part = ENTRIES[256 * index : 256 * index + width]
        tiles[TileName("entries", index, width)] = encode_entries([entry.hash for entry in part])
        tiles[TileName("places", index, width)] = encode_places([place_of(entry) for entry in part])
    return tiling, tiles


def test_it_grows_from_where_it_was_checked() -> None:
    tiling, tiles = whole()
    checked = check_tiles(SIZE, tiling.root(), tiles.__getitem__)
    for number in range(SIZE, SIZE + 300):
        leaf = unverified_entry(number, time=1, payload=b"").leaf
        assert checked.append(leaf) == tiling.append(leaf)
    assert checked.root() == tiling.root()


def test_of_nothing() -> None:
    assert check_tiles(0, TreeBuilder().root(), dict[TileName, bytes]().__getitem__).size == 0


def test_every_changed_tile_is_found() -> None:
    tiling, tiles = whole()
    for name, data in tiles.items():
        for at in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[at] ^= 0x80
            places = name.level == "places" and at != 0 and at != len(data) // 2
            if places:
                continue
            with pytest.raises(LogError) as caught:
                check_tiles(SIZE, tiling.root(), {**tiles, name: bytes(changed)}.__getitem__)
            assert caught.value.code in {Code.LOG_MISMATCH, Code.BAD_TILE}
        with pytest.raises(LogError) as caught:
            check_tiles(SIZE, tiling.root(), {**tiles, name: data[:-1]}.__getitem__)
        assert caught.value.code in {Code.LOG_MISMATCH, Code.BAD_TILE}


def test_entries_of_another_log_are_found() -> None:
    tiling, tiles = whole()
    with pytest.raises(LogError) as caught:
        check_tiles(SIZE, bytes(32), tiles.__getitem__)
    assert (caught.value.code, tiling.size) == (Code.LOG_MISMATCH, SIZE)
