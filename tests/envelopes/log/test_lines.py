"""Base64, numbers and key names: one spelling each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.log.note import base64_text, check_key_name, parse_base64, parse_number


@given(st.binary(max_size=80))
def test_base64_is_read_as_it_was_written(data: bytes) -> None:
    assert parse_base64(base64_text(data), "x") == data


@pytest.mark.parametrize(
    "text", ["YQ", "YR==", "YQ===", "Y Q==", "YQ==\n", "_w==", "-w==", "\u00e9", "YQ==YQ==", "=", "Y"]
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(LogError) as caught:
        parse_base64(text, "x")
    assert caught.value.code is Code.BAD_NOTE


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("9007199254740991", 2**53 - 1)])
def test_numbers(text: str, number: int) -> None:
    assert parse_number(text, "x") == number


@pytest.mark.parametrize(
    "text", ["", "00", "01", "-1", "+1", " 1", "1 ", "1_0", "\u0661", "\u00b2", "0x1", "9" * 5_000, "9007199254740992"]
)
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(LogError) as caught:
        parse_number(text, "x")
    assert caught.value.code is Code.BAD_NOTE


@given(st.text(max_size=18))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        number = parse_number(text, "x")
    except LogError:
        return
    assert str(number) == text


@pytest.mark.parametrize("name", ["a", "log.example.org/audit", "\u00e9", "a" * 256])
def test_names(name: str) -> None:
    check_key_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a+b", "a\tb", "a\nb", "a\u00a0b", "a\u2028b", "a\u3000", "a\x00", "\ud800", "a" * 257, "\u00e9" * 129],
)
def test_names_that_no_key_has(name: str) -> None:
    with pytest.raises(LogError, match="key name"):
        check_key_name(name)


def test_surrogates_from_the_first_to_the_last_name_no_key() -> None:
    for name in ("\ud800", "\udfff", "a\ud800"):
        with pytest.raises(LogError):
            check_key_name(name)
    check_key_name("\ud7ff\ue000")
