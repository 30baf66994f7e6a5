"""Sealing between two curve keys: for one reader, from one sender, and nothing else opens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.agents.control.callout.nkeys import CurveKey, NkeyError, Prefix, SigningKey


@given(st.binary(max_size=300))
def test_what_is_sealed_is_opened_by_its_reader(data: bytes) -> None:
    server, responder = CurveKey.generate(), CurveKey.generate()
    sealed = server.seal(data, responder.public)
    assert sealed.startswith(b"xkv1")
    assert data not in sealed or len(data) < 8
    assert responder.open(sealed, server.public) == data


def test_nobody_else_opens_it_and_no_change_goes_unnoticed() -> None:
    server, responder, other = CurveKey.generate(), CurveKey.generate(), CurveKey.generate()
    sealed = server.seal(b"data", responder.public)
    for reader, found, sender in (
        (other, sealed, server.public),
        (responder, sealed, other.public),
        (responder, sealed[:-1], server.public),
        (responder, sealed[:-1] + bytes([sealed[-1] ^ 1]), server.public),
        (responder, b"xkv2" + sealed[4:], server.public),
        (responder, b"", server.public),
        (responder, b"xkv1", server.public),
        (responder, sealed, ""),
        (responder, sealed, SigningKey.generate(Prefix.USER).public),
    ):
        with pytest.raises(NkeyError):
            reader.open(found, sender)


def test_two_seals_of_one_text_differ() -> None:
    one, two = CurveKey.generate(), CurveKey.generate()
    assert one.seal(b"data", two.public) != one.seal(b"data", two.public)


def test_a_key_is_its_seed_and_is_never_shown() -> None:
    key = CurveKey.generate()
    seed = key.seed()
    assert seed.startswith("SX")
    assert key.public.startswith("X")
    assert CurveKey.from_seed(seed).public == key.public
    assert seed not in repr(key)
    with pytest.raises(NkeyError):
        CurveKey.from_seed(SigningKey.generate(Prefix.USER).seed())
