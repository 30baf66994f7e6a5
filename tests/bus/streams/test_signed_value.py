"""What an identity wrote is told from what others did, whatever they do with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import INVENTORY, ISSUER, PLANNER, TRUST
from support.envelopes import HOUR, NOW

from sealbus.bus.streams.signed_value import is_own, signed
from sealbus.envelopes.trust.caches import Caches

TYPE = "application/vnd.sealbus.test.v1"
OWN = ISSUER.sealer(INVENTORY)
PARTS = signed(b"words", TYPE, OWN)


def own(parts: tuple[bytes, ...], payload_type: str = TYPE, at: int = NOW) -> bool:
    return is_own(parts, payload_type, own=INVENTORY, at=at, trust=TRUST, caches=Caches())


def test_what_it_wrote_is_its_own() -> None:
    assert own(PARTS)
    assert PARTS[0] == b"words"


def test_what_another_wrote_is_not() -> None:
    assert not own(signed(b"words", TYPE, PLANNER))


def test_words_of_one_type_are_not_of_another() -> None:
    assert not own(PARTS, TYPE + "x")


@pytest.mark.parametrize("at", [0, NOW - 24 * HOUR, NOW + 24 * HOUR])
def test_its_credential_must_have_been_valid_then(at: int) -> None:
    assert not own(PARTS, at=at)


@pytest.mark.parametrize("parts", [(), PARTS[:1], PARTS[:3], (*PARTS, b"")])
def test_nothing_is_left_out_and_nothing_added(parts: tuple[bytes, ...]) -> None:
    assert not own(parts)


@given(place=st.integers(0, 3), other=st.binary(max_size=80))
def test_no_part_can_be_exchanged(place: int, other: bytes) -> None:
    parts = (*PARTS[:place], other, *PARTS[place + 1 :])
    assert own(parts) is (other == PARTS[place])
