"""A growing tree as tiles: the same tiles and roots as of a tree that is made whole, also when it is taken up again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.tiles import TileName, grown_tiles
from sealbus.envelopes.log.tree_builder import TreeBuilder
from sealbus.envelopes.trust.merkle import leaf_hash, root

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(66_100)]


def grown(size: int, tiling: TreeBuilder | None = None) -> tuple[TreeBuilder, dict[TileName, bytes]]:
    """Return a tiling grown to `size`, and all tiles that it gave on the way and has at its end."""
    tiling = tiling or TreeBuilder()
    tiles: dict[TileName, bytes] = {}
    for leaf in LEAVES[tiling.size : size]:
        tiles.update(tiling.append(leaf))
    tiles.update(tiling.partial())
    return tiling, tiles


def reader(tiles: dict[TileName, bytes]) -> Callable[[TileName], bytes]:
    return lambda name: tiles[name]


def whole_tile(name: TileName) -> bytes:
    """What a tile is by definition: roots of subtrees, each over all of its leaves."""
    assert isinstance(name.level, int)
    span = 256**name.level
    first = name.index * 256
    return b"".join(root(LEAVES[span * at : span * (at + 1)]) for at in range(first, first + name.width))


def test_the_root_and_tiles_at_every_size_up_to_600() -> None:
    tiling, stored = TreeBuilder(), dict[TileName, bytes]()
    for size in range(1, 601):
        stored.update(tiling.append(LEAVES[size - 1]))
        assert tiling.size == size
        assert tiling.root() == root(LEAVES[:size])
        now = {**stored, **dict(tiling.partial())}
        assert set(now) >= set(grown_tiles(0, size, beside=False))
        if size in {1, 2, 255, 256, 257, 511, 512, 513, 600}:
            assert set(now) == set(grown_tiles(0, size, beside=False))
            assert all(data == whole_tile(name) for name, data in now.items())


def test_three_levels() -> None:
    tiling, tiles = grown(66_000)
    assert set(tiles) == set(grown_tiles(0, 66_000, beside=False))
    assert max(name.level for name in tiles if isinstance(name.level, int)) == 2
    assert all(data == whole_tile(name) for name, data in tiles.items() if name.level != 0)
    assert tiling.root() == root(LEAVES[:66_000])


@pytest.mark.parametrize("size", [0, 1, 2, 100, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_000])
def test_it_is_taken_up_from_its_right_edge(size: int) -> None:
    tiling, tiles = grown(size)
    again = TreeBuilder.resume(size, tiling.root(), reader(tiles))
    assert (again.size, again.root(), dict(again.partial())) == (size, tiling.root(), dict(tiling.partial()))
    assert grown(size + 60, again)[1] == grown(size + 60, tiling)[1]
    assert again.root() == root(LEAVES[: size + 60])


def test_a_full_tile_stands_for_a_partial_one() -> None:
    tiling, tiles = grown(300)
    more = {**grown(512)[1], **{name: data for name, data in tiles.items() if name.level == 1}}
    again = TreeBuilder.resume(300, tiling.root(), lambda name: more.get(name, b"") or more[name.full])
    assert again.root() == root(LEAVES[:300])


@pytest.mark.parametrize("size", [5, 300])
def test_it_is_not_taken_up_from_other_tiles(size: int) -> None:
    tiling, tiles = grown(size)
    for name in dict(tiling.partial()):
        for at in (0, len(tiles[name]) - 1):
            flipped = bytearray(tiles[name])
            flipped[at] ^= 1
            with pytest.raises(LogError) as caught:
                TreeBuilder.resume(size, tiling.root(), reader({**tiles, name: bytes(flipped)}))
            assert caught.value.code is Code.LOG_MISMATCH
        with pytest.raises(LogError) as caught:
            TreeBuilder.resume(size, tiling.root(), reader({**tiles, name: tiles[name][:-1]}))
        assert caught.value.code is Code.BAD_TILE
    with pytest.raises(LogError, match="log_mismatch"):
        TreeBuilder.resume(size, root(LEAVES[:4]), reader(tiles))
