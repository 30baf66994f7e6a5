"""Roots and proofs from tiles: of every size that the tiles hold, against whole trees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import LogError
from sealbus.envelopes.log.tiles import TiledTree, TileName
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.log.tree_proofs import verify_consistency, verify_inclusion
from sealbus.envelopes.trust.merkle import leaf_hash, path, root

SIZE = 66_000
LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(SIZE)]


def tiles_of(size: int) -> dict[TileName, bytes]:
    tiling, tiles = TreeBuilder(), dict[TileName, bytes]()
    for leaf in LEAVES[:size]:
        tiles.update(tiling.append(leaf))
    return {**tiles, **dict(tiling.partial())}


TILES = tiles_of(SIZE)


def reading(tiles: dict[TileName, bytes]) -> Callable[[TileName], bytes]:
    return lambda name: tiles[name]


def test_proofs_of_every_tree_up_to_300() -> None:
    """From the tiles of one tree those of all smaller ones: tiles of a log are read under a later checkpoint, too."""
    tree = TiledTree(300, reading(tiles_of(300)))
    for size in range(1, 301):
        top = tree.root(size)
        assert top == root(LEAVES[:size])
        for index in {0, size // 2, size - 1}:
            assert tree.inclusion(index, size) == path(LEAVES[:size], index)
        verify_consistency(size, top, 300, tree.root(), tree.consistency(size))
    assert tree.root(0) == root([])


def test_every_leaf_of_300() -> None:
    tree, top = TiledTree(300, reading(tiles_of(300))), root(LEAVES[:300])
    for index in range(300):
        verify_inclusion(LEAVES[index], index, 300, tree.inclusion(index), top)


def test_a_tree_of_three_levels_needs_few_tiles() -> None:
    asked: list[TileName] = []

    def read(name: TileName) -> bytes:
        asked.append(name)
        return TILES[name]

    tree, top = TiledTree(SIZE, read), root(LEAVES)
    assert tree.root() == top
    assert tree.frontier().root() == top
    for index in (0, 255, 256, 65_535, 65_536, SIZE - 1):
        verify_inclusion(LEAVES[index], index, SIZE, tree.inclusion(index), top)
    assert len(asked) == len(set(asked)) < 16


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_two_sizes_are_consistent(one: int, other: int) -> None:
    tree, old, new = TiledTree(SIZE, reading(TILES)), min(one, other), max(one, other)
    verify_consistency(old, tree.root(old), new, tree.root(new), tree.consistency(old, new))


def test_tiles_that_were_kept_make_room() -> None:
    asked: list[TileName] = []

    def read(name: TileName) -> bytes:
        asked.append(name)
        return TILES[name]

    tree, first = TiledTree(SIZE, read), TileName(0, 0)
    for index in range(0, SIZE, 256):
        tree.inclusion(index)
    assert len(asked) > 64 + 1
    tree.inclusion(SIZE - 1)
    assert asked.count(first) == 1
    tree.inclusion(0)
    assert asked.count(first) == 2


def test_a_full_tile_stands_for_a_partial_one() -> None:
    small = tiles_of(300)
    mixed = TiledTree(300, lambda name: TILES[name.full] if name.level == 0 else small[name])
    assert mixed.root() == root(LEAVES[:300])


def test_tiles_of_another_form_and_places_outside_are_refused() -> None:
    with pytest.raises(LogError, match="bad_tile"):
        TiledTree(300, lambda name: TILES[TileName(0, 0)][:-1]).root()
    with pytest.raises(LogError, match="bad_tile"):
        TiledTree(300, reading(tiles_of(300))).root(301)
    with pytest.raises(LogError, match="bad_proof"):
        TiledTree(300, reading(tiles_of(300))).inclusion(300)
