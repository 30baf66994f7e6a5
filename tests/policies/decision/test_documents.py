"""JSON that both engines read alike."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.decision import documents
from sealbus.policies.decision.documents import (
    NESTING,
    InputDocument,
    canonical,
    checked_document,
    extended_document,
    in_parts,
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
        b'{"a": -0}',
        b'{"a": [0, -0]}',
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


def nested(depth: int) -> object:
    return {"a": nested(depth - 1)} if depth else 1


objects = st.dictionaries(
    st.sampled_from(["a", "of", "on", "o\tf", 'o"f', '"of":', ""]),
    st.sampled_from(
        [0, [], {}, "of", '"of"', {"of": 1}, "{", "}", "\\", nested(29), nested(30), nested(31), "x" * 60_000]
    ),
    max_size=3,
)
spellings = st.sampled_from(["", " ", "\n"])


@example({"of": 1}, {b"of": {}}, "", "", True)
@example({"a": 1}, {b"of": {"a": nested(31)}}, "", "", False)
@example({"a": "x" * 40_000}, {b"of": {"a": "x" * 40_000}}, "", "", False)
@given(
    objects, st.dictionaries(st.sampled_from([b"of", b"on"]), objects, max_size=2), spellings, spellings, st.booleans()
)
def test_a_document_with_more_members_is_one_that_is_checked_whole(
    had: dict[str, Json], added: dict[bytes, dict[str, Json]], before: str, after: str, ascii_only: bool
) -> None:
    def read(value: object) -> InputDocument | None:
        text = before + json.dumps(value, ensure_ascii=ascii_only) + after
        try:
            return checked_document((text.replace('"of"', '"\\u006ff"') if ascii_only else text).encode())
        except PolicyFailed:
            return None

    document, members = read(had), {name: read(one) for name, one in added.items()}
    if document is None or None in members.values():
        return
    whole = document[:-1] + b"".join([b',"%b":%b' % (name, one or b"") for name, one in members.items()]) + b"}"
    try:
        expected = str(checked_document(whole))
    except PolicyFailed as error:
        expected = str(error)
    try:
        found = str(extended_document(document, {name: one for name, one in members.items() if one is not None}))
    except PolicyFailed as error:
        found = str(error)
    assert found == expected


def test_data_documents() -> None:
    assert parse_data(b'{"a": {"b": [1]}}') == {"a": {"b": [1]}}
    with pytest.raises(ValueError, match="fraction"):
        parse_data(b'{"a": {"b": 0.5}}')
    with pytest.raises(ValueError, match="minus"):
        parse_data(b'{"a": {"b": -0}}')
    with pytest.raises(ValueError, match="beyond"):
        whole_numbers([-(2**53)])
    whole_numbers({"ü": ["ü", False, None, 2**53 - 1]})


def test_canonical() -> None:
    assert canonical({"b": [1, None], "a": "ü"}) == '{"a":"ü","b":[1,null]}'.encode()


NAMES = st.text('abü"\u2028', max_size=3)
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.sampled_from([None, True, 7, "", 'ü"\u2028', {}, []]),
    lambda inside: st.lists(inside, max_size=6) | st.dictionaries(NAMES, inside, max_size=12),
    max_leaves=60,
)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(documents, "PIECE", 6)
    return 6


@pytest.mark.usefixtures("small_pieces")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
def test_what_is_written_in_pieces_is_the_same(value: Json) -> None:
    whole = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    assert canonical(value).decode() == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, VALUES, max_size=12))
def test_the_parts_are_small_and_make_the_whole(small_pieces: int, data: dict[str, Json]) -> None:
    parts = [json.loads(part) for part in in_parts(data)]
    found: dict[str, Json] = {}
    for part in parts:
        # Of a part with more values, all are in the one array at the end of its names.
        inside: Json = part
        while isinstance(inside, dict) and len(inside) == 1:
            [inside] = inside.values()
        assert values_in(inside) <= 1 + small_pieces or isinstance(inside, list)
        put_into(found, part)
    assert parts
    assert found == data


def values_in(value: Json) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(values_in, inside))


def put_into(data: dict[str, Json], part: dict[str, Json]) -> None:
    for name, value in part.items():
        there = data.setdefault(name, value)
        if there is not value:
            assert isinstance(there, dict)
            assert isinstance(value, dict)
            put_into(there, value)


def test_writing_the_many_hands_over_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    longest, encode = 0, documents._CANONICAL.encode

    class Counting:
        def encode(self, value: Json) -> str:
            nonlocal longest
            longest = max(longest, values_in(value))
            return encode(value)

    monkeypatch.setattr(documents, "_CANONICAL", Counting())
    users: dict[str, Json] = {f"user-{number}": {"customers": {"acme": True}} for number in range(30_000)}
    data: dict[str, Json] = {"sealbus": {"registry": {"users": users}}}
    assert (
        canonical(["platform", data]) == json.dumps(["platform", data], sort_keys=True, separators=(",", ":")).encode()
    )
    assert len(list(in_parts(data))) == 6
    assert longest <= documents.PIECE + 4  # and the objects that a part stands in


def slowly(data: bytes) -> bool:
    """Tell whether `data` is a document by the rules that the fast check stands for."""
    try:
        whole_numbers(parse_object(data, depth=NESTING))
    except ValueError:
        return False
    return b'"g":-0' not in data


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
