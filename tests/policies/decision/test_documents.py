"""JSON that both engines read alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.decision.documents import (
    NESTING,
    InputDocument,
    canonical,
    checked_document,
    parse_data,
    whole_numbers,
)


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"a": "\\ud83d\\ude00 \\\\u"}', b' {"a": [1, -9007199254740991, true, null, "\xc3\xbc", {"b": ""}]} '],
)
def test_checked_documents_keep_their_bytes(data: bytes) -> None:
    checked = checked_document(data)
    assert isinstance(checked, InputDocument)
    assert checked == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1",
        b"[]",
        b"{",
        b"{}{}",
        b"{},{}",
        b"\xff",
        b'{"a": 1, "a": 2}',
        b'{"a": 1.5}',
        b'{"a": 1.0}',
        b'{"a": 1e3}',
        b'{"a": NaN}',
        b'{"a": [9007199254740992]}',
        b'{"a": ' + b"9" * 60_000 + b"}",
        b'{"a": -9007199254740992}',
        b'{"a": -1e999}',
        b'{"a": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": ' + b"[" * NESTING + b"]" * NESTING + b"}",
        b'{"a": "' + b"x" * 65_536 + b'"}',
    ],
)
def test_anything_else_fails(data: bytes) -> None:
    with pytest.raises(PolicyFailed) as failed:
        checked_document(data)
    assert failed.value.code is Code.POLICY_ERROR


def test_data_documents() -> None:
    assert parse_data(b'{"a": {"b": [1]}}') == {"a": {"b": [1]}}
    with pytest.raises(ValueError, match="fraction"):
        parse_data(b'{"a": {"b": 0.5}}')
    with pytest.raises(ValueError, match="beyond"):
        whole_numbers([-(2**53)])
    whole_numbers({"ü": ["ü", False, None, 2**53 - 1]})


def test_canonical() -> None:
    assert canonical({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'.encode()


def slowly(data: bytes) -> bool:
    """Tell whether `data` is a document by the two rules that the fast check stands for."""
    try:
        whole_numbers(parse_object(data, depth=NESTING))
    except ValueError:
        return False
    return True


MEMBERS = st.sampled_from(
    ['"a":1', '"a":[]', '"b":{"c":null,"d":{"e":"\u00fc"}}', '"b":{"c":1,"c":1}', '"f":-9007199254740991',
     '"f":9007199254740992',
     '"g":1.5', '"g":1e2', '"g":-0', '"g":NaN', '"h":"\\ud83d\\ude00"', '"h":"\\ud800"', '"\\ud800":1', '"h":"\\\\ud800"',
     '"i":' + "[" * 31 + "]" * 31, '"i":' + "[" * 32 + "]" * 32, '"j":"[[[{{"', '"k":01', '"l"', "", '"m":' + "9" * 4_400]
)  # fmt: skip
TEXTS = st.lists(MEMBERS, max_size=4).map(lambda members: "{" + ",".join(members) + "}")
CUT = st.builds(lambda text, start, end: text[start : len(text) - end], TEXTS, st.integers(0, 3), st.integers(0, 3))


@settings(max_examples=400)
@given((TEXTS | CUT).map(str.encode))
def test_the_fast_check_takes_exactly_what_the_rules_take(data: bytes) -> None:
    try:
        checked_document(data)
    except PolicyFailed:
        assert not slowly(data)
    else:
        assert slowly(data)
