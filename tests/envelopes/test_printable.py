from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sealbus.envelopes.printable import printable


def test_what_is_seen_as_itself_stays_as_it_is() -> None:
    assert printable("ålice <a@b> [x]") == "ålice <a@b> [x]"


def test_what_would_be_obeyed_or_not_seen_is_escaped() -> None:
    assert printable("a\r\n\x00\U000e0001b\ud800") == r"a\r\n\x00\U000e0001b\ud800"
    assert printable("\u202egnp.exe\u2066\u200f\x1b[2J\x9b") == r"\u202egnp.exe\u2066\u200f\x1b[2J\x9b"


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=40))
def test_the_result_is_one_line_of_what_is_seen(text: str) -> None:
    assert printable(text).isprintable()
