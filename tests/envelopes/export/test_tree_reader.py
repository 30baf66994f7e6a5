"""The tree over the tiles: roots of any size, and the tiles above."""

from __future__ import annotations

from hashlib import sha256

import pytest
from support.log_world import Frame, LogKey, entry_of, files_of, tree_root

from sealbus.envelopes.export.tally import Tally
from sealbus.envelopes.export.tiles import TileResult, TreeReader, tasks_of
from sealbus.envelopes.trust.merkle import leaf_hash, root

FRAMES = [Frame(0, number + 1, number, b"") for number in range(1_300)]
LEAVES = [leaf_hash(entry_of(frame)) for frame in FRAMES]


def read(size: int, sizes: list[int], files: dict[str, bytes]) -> TreeReader:
    tree = TreeReader(lambda name: files.get(name.path), sizes)
    for task in tasks_of(size, sizes):
        leaves = LEAVES[task.index * 256 : task.index * 256 + task.width]
        prefixes = {width: root(leaves[:width]) for width in task.prefixes}
        tree.take_tile(TileResult(task, root(leaves), prefixes, [], Tally()))
    tree.end()
    return tree


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 1_024, 1_300])
def test_roots_of_all_sizes_asked_for(size: int) -> None:
    sizes = [one for one in (0, 1, 2, 255, 256, 257, 500, 512, 513, 1_024, 1_300) if one <= size]
    tree = read(size, sizes, files_of(FRAMES[:size], [LogKey("k")]))
    assert tree.findings == []
    for one in sizes:
        assert tree.root_at(one) == (tree_root(LEAVES[:one]) if one else sha256().digest())
    with pytest.raises(KeyError):
        tree.root_at(100_000)


@pytest.mark.parametrize("size", [256, 1_300])
def test_a_tile_above_that_is_another(size: int) -> None:
    files = files_of(FRAMES[:size], [LogKey("k")])
    [name] = [one for one in files if one.startswith("tile/1/")]
    tree = read(size, [], files | {name: files[name][:-1] + b"\x00"})
    assert [(finding.file, finding.code) for finding in tree.findings] == [(name, "bad_tile")]
    del files[name]
    assert read(size, [], files).findings == []


def test_a_full_tile_above_is_compared_as_soon_as_it_is_full() -> None:
    tree = TreeReader(lambda name: b"another" if name.path == "tile/1/000" else None, [])
    leaf = bytes(32)
    tile = root([leaf] * 256)
    for task in tasks_of(256 * 256, ()):
        tree.take_tile(TileResult(task, tile, {}, [], Tally()))
    assert [finding.file for finding in tree.findings] == ["tile/1/000"]
