"""Tiles: their names and paths, which ones a tree has, and their bytes; the numbers of C2SP tlog-tiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.tiles import (
    Level,
    TileName,
    encode_entries,
    grown_tiles,
    parse_entries,
    parse_hashes,
    tile_for,
    tile_reader,
)

MAX = 2**53 - 1


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (TileName(0, 0), "tile/0/000"),
        (TileName(0, 1_234_067), "tile/0/x001/x234/067"),
        (TileName(0, 1_234_067, 5), "tile/0/x001/x234/067.p/5"),
        (TileName("entries", 255, 255), "tile/entries/255.p/255"),
        (TileName("places", 1_000), "tile/places/x001/000"),
        (TileName(63, 999, 1), "tile/63/999.p/1"),
    ],
)
def test_a_tile_has_one_path(name: TileName, path: str) -> None:
    assert name.path == path
    assert TileName.parse(path) == name


def code_of_path(path: str) -> Code:
    with pytest.raises(LogError) as caught:
        TileName.parse(path)
    return caught.value.code


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/100/000",
        "tile/-1/000",
        "tile/data/000",
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/x000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/05",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/",
        "tile/0/000\n",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/\u0660\u0660\u0660",
        "tile/0/" + "x999/" * 6 + "999",
        "tile/0/" + "x001/" * 1_000 + "000",
        "tile/../checkpoint",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    assert code_of_path(path) is Code.BAD_TILE


@pytest.mark.parametrize(("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_what_no_tile_can_be(level: Level, index: int, width: int) -> None:
    with pytest.raises(LogError, match="bad_tile"):
        TileName(level, index, width)


def test_the_last_tile_that_may_be() -> None:
    assert TileName.parse("tile/0/x009/x007/x199/x254/x740/991") == TileName(0, MAX)
    assert code_of_path("tile/0/x009/x007/x199/x254/x740/992") is Code.BAD_TILE


def test_a_partial_tile_becomes_a_full_one() -> None:
    assert TileName(1, 4, 17).full == TileName(1, 4)


def test_the_tree_of_70000_has_the_tiles_that_c2sp_says() -> None:
    tiles = list(grown_tiles(0, 70_000, beside=False))
    assert [tile for tile in tiles if tile.level == 0] == [
        *(TileName(0, index) for index in range(273)),
        TileName(0, 273, 112),
    ]
    assert [tile for tile in tiles if tile.level == 1] == [TileName(1, 0), TileName(1, 1, 17)]
    assert [tile for tile in tiles if tile.level == 2] == [TileName(2, 0, 1)]
    assert len(tiles) == 273 + 1 + 2 + 1


def test_the_tree_of_256_has_a_full_tile_and_one_of_width_1() -> None:
    assert list(grown_tiles(0, 256)) == [
        TileName("entries", 0),
        TileName("places", 0),
        TileName(0, 0),
        TileName(1, 0, 1),
    ]


def test_only_what_has_changed_is_written_anew() -> None:
    assert list(grown_tiles(300, 301, beside=False)) == [TileName(0, 1, 45)]
    assert list(grown_tiles(255, 257, beside=False)) == [TileName(0, 0), TileName(0, 1, 1), TileName(1, 0, 1)]
    assert list(grown_tiles(256, 256)) == list(grown_tiles(0, 0)) == []


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_growing_in_steps_writes_every_tile_that_the_whole_has(size: int, more: int) -> None:
    stepped = {*grown_tiles(0, size), *grown_tiles(size, size + more)}
    assert stepped >= set(grown_tiles(0, size + more))


def test_where_a_hash_is() -> None:
    assert tile_for(0, 0, 1) == (TileName(0, 0, 1), 0)
    assert tile_for(0, 300, 70_000) == (TileName(0, 1), 44)
    assert tile_for(0, 69_999, 70_000) == (TileName(0, 273, 112), 111)
    assert tile_for(1, 272, 70_000) == (TileName(1, 1, 17), 16)


@pytest.mark.parametrize(("level", "index", "size"), [(0, 0, 0), (0, 5, 5), (0, -1, 5), (1, 0, 255)])
def test_where_no_hash_is(level: int, index: int, size: int) -> None:
    with pytest.raises(LogError, match="bad_tile"):
        tile_for(level, index, size)


def test_hashes_and_entries() -> None:
    hashes = [bytes([number]) * 32 for number in range(3)]
    assert parse_hashes(b"".join(hashes), 3) == tuple(hashes)
    assert encode_entries(hashes[1:2]).hex() == "0020" + "01" * 32
    assert parse_entries(encode_entries(hashes), 3) == tuple(hashes)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), bytes(64)])
def test_hashes_of_another_length_are_refused(data: bytes) -> None:
    with pytest.raises(LogError, match="hashes"):
        parse_hashes(data, 1)


@pytest.mark.parametrize("data", [b"", bytes(34), bytes(33), b"\x00\x20" + bytes(31), b"\x00\x1f" + bytes(32)])
def test_entries_of_another_length_are_refused(data: bytes) -> None:
    with pytest.raises(LogError, match="entries"):
        parse_entries(data, 1)


@pytest.mark.parametrize("place", range(3))
def test_every_entry_is_of_32_bytes(place: int) -> None:
    rows = [encode_entries([bytes(32)])] * 3
    rows[place] = b"\x00\x1f" + bytes(32)
    with pytest.raises(LogError, match="entries: length of an entry"):
        parse_entries(b"".join(rows), 3)


@given(
    st.integers(0, 63) | st.sampled_from(("entries", "places")),
    st.integers(0, MAX),
    st.integers(1, 256),
)
def test_every_name_is_read_back(level: Level, index: int, width: int) -> None:
    name = TileName(level, index, width)
    assert TileName.parse(name.path) == name


@given(st.text(max_size=40) | st.from_regex(r"tile/[0-9a-z]{1,3}/(x[0-9]{3}/)*[0-9]{3}(\.p/[0-9]+)?", fullmatch=True))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        name = TileName.parse(text)
    except LogError:
        return
    assert name.path == text


def test_how_many_bytes_a_tile_has() -> None:
    assert (TileName(0, 0).bytes, TileName(2, 0, 3).bytes) == (8_192, 96)
    assert (TileName("entries", 0, 2).bytes, TileName("places", 0, 2).bytes) == (68, 34)


def test_a_partial_tile_that_is_gone_is_the_beginning_of_the_full_one() -> None:
    full = bytes(range(256)) * 32
    read = tile_reader({"tile/0/000": full, "tile/0/001.p/2": bytes(64)}.get)
    assert read(TileName(0, 0)) == full
    assert read(TileName(0, 0, 3)) == full[:96]
    assert read(TileName(0, 1, 2)) == bytes(64)
    for name in (TileName(0, 1), TileName(0, 1, 3), TileName(1, 0, 1)):
        with pytest.raises(LogError, match="is not there"):
            read(name)


def test_a_full_tile_is_asked_for_once() -> None:
    asked: list[str] = []
    with pytest.raises(LogError, match="is not there"):
        tile_reader(asked.append)(TileName(0, 0))
    assert asked == ["tile/0/000"]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        (TileName("entries", 0, 1), 1),
        (TileName("places", 1, 7), 263),
        (TileName(0, 0), 256),
        (TileName(0, 2, 3), 515),
        (TileName(1, 0, 2), 512),
        (TileName(2, 0, 1), 65_536),
    ],
)
def test_the_least_tree_that_has_all_of_a_tile(name: TileName, least: int) -> None:
    assert name.is_of(least)
    assert name.is_of(least + 1)
    assert not name.is_of(least - 1)
