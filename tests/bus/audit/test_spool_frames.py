"""Frames of the spool: what was written comes back, and nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.spooled import batch_of

from sealbus.bus.audit.spool_files import HEAD_BYTES, BadFrame, Frame, encode_frame, parse_frame, parse_head
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.records.batch import ClosedBatch


def parsed(data: bytes, expected: int | None = None) -> Frame:
    return parse_frame(parse_head(data[:HEAD_BYTES]), data[HEAD_BYTES:], expected)


@given(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=200), st.binary(min_size=32, max_size=32))
def test_a_frame_comes_back(number: int, body: bytes, dig: bytes) -> None:
    data = encode_frame(number, ClosedBatch(body, dig))
    assert parsed(data, number) == Frame(number, ClosedBatch(body, dig), len(data))


@given(st.data())
def test_no_single_alteration_is_taken(data: st.DataObject) -> None:
    frame = bytearray(encode_frame(7, batch_of(1)))
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadFrame):
        parsed(bytes(frame), 7)


def test_another_number_is_another_frame() -> None:
    with pytest.raises(BadFrame, match="frame 8 where 7"):
        parsed(encode_frame(8, batch_of(1)), 7)


@pytest.mark.parametrize("length", [0, 40, 40 + DEFAULT_LIMITS.body_bytes + 1, 2**32 - 1])
def test_a_length_that_no_frame_has_is_refused_before_anything_is_read(length: int) -> None:
    with pytest.raises(BadFrame, match="length"):
        parse_head(length.to_bytes(4, "big") + bytes(32))
