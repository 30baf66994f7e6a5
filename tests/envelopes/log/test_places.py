"""Places: rows of 17 bytes, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.entries import EntryKind, gap_entry
from sealbus.envelopes.log.places import Place, encode_places, parse_places, place_of

MAX = 2**53 - 1
KINDS = st.sampled_from([one for one in EntryKind if one is not EntryKind.LOST])


def test_a_row_is_kind_sequence_time() -> None:
    place = place_of(gap_entry(3, 2, time=258))
    assert place == Place(EntryKind.GAP, 3, 258)
    assert encode_places([place]).hex() == "02" + "0000000000000003" + "0000000000000102"
    assert parse_places(encode_places([place, place]), 2) == (place, place)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(16),
        bytes(18),
        b"\x06" + bytes(16),
        b"\x01" + (MAX + 1).to_bytes(8, "big") + bytes(8),
        b"\x01" + bytes(8) + b"\xff" * 8,
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(LogError) as caught:
        parse_places(data, 1)
    assert caught.value.code is Code.BAD_TILE


@given(
    st.lists(
        st.builds(
            Place,
            KINDS,
            st.integers(0, MAX),
            st.integers(0, MAX),
        ),
        max_size=9,
    )
)
def test_places_are_read_as_they_were_written(places: list[Place]) -> None:
    assert parse_places(encode_places(places), len(places)) == tuple(places)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_any_bytes_are_places_or_refused(data: bytes, width: int) -> None:
    try:
        places = parse_places(data, width)
    except LogError:
        return
    assert encode_places(places) == data
