"""Records that stand in more than one tile: told once, by the later tile."""

from __future__ import annotations

from hashlib import sha256

from sealbus.envelopes.export.tally import NAME_BYTES, RepeatedRecords


def names(*numbers: int) -> bytes:
    return b"".join(sha256(bytes([number])).digest()[:NAME_BYTES] for number in numbers)


def test_the_first_tile_counts() -> None:
    repeated = RepeatedRecords()
    repeated.take_names(0, names(1, 2, 3))
    repeated.take_names(1, names(4, 2))
    repeated.take_names(2, b"")
    repeated.take_names(2**45, names(2, 3, 5))
    assert repeated.repeated_by_tile() == {1: {names(2)}, 2**45: {names(2), names(3)}}


def test_many() -> None:
    repeated = RepeatedRecords()
    for tile in range(20):
        repeated.take_names(tile, names(*range(tile * 5, tile * 5 + 10)))
    assert repeated.repeated_by_tile() == {
        tile: {names(tile * 5 + number) for number in range(5)} for tile in range(1, 20)
    }


def test_none() -> None:
    repeated = RepeatedRecords()
    repeated.take_names(0, names(*range(200)))
    assert repeated.repeated_by_tile() == {}
