from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from a2a.types import Message, Part
from a2a.utils.errors import InvalidParamsError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from hypothesis import given, settings
from hypothesis import strategies as some

from sealbus.agents.edge.a2a.messages import Skills, answer, artifact, part_of
from sealbus.agents.edge.described_actions import DescribedAction
from sealbus.agents.sdk.bodies import JSON
from sealbus.agents.sdk.schema import ActionSchema
from sealbus.bus.sending.message import Content
from sealbus.envelopes.errors import HandlingError

NUMBERS = some.integers(-(2**53), 2**53) | some.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = some.recursive(
    some.none() | some.booleans() | NUMBERS | some.text(),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=10,
)


def skills() -> Skills:
    action = ActionSchema(
        kind="call", verb="any", summary="Take anything.", takes={JSON: {"type": "object"}}, gives={}, parts=False
    )
    return Skills([DescribedAction("one", action, {})])


@settings(max_examples=30)
@given(some.dictionaries(some.text(), VALUES, max_size=3))
def test_arguments_come_through_data_as_they_were(arguments: dict[str, Any]) -> None:
    message = Message(parts=[Part(data=ParseDict(arguments, Value()))])
    _, body = skills().asked_for(message)
    assert json.loads(body.body) == arguments


@settings(max_examples=30)
@given(VALUES)
def test_answers_come_through_data_as_they_were(value: Any) -> None:
    part = part_of(Content(body=json.dumps(value).encode(), typ=JSON))
    assert (MessageToDict(part.data), part.media_type) == (value, JSON)


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_the_largest_numbers_that_data_can_say(number: int) -> None:
    assert part_of(Content(body=str(number).encode(), typ=JSON)).WhichOneof("content") == "data"
    _, body = skills().asked_for(Message(parts=[Part(data=ParseDict({"a": number}, Value()))]))
    assert body.body.decode().replace(" ", "") == f'{{"a":{number}}}'


def test_of_several_skills_one_is_named() -> None:
    [one] = skills().actions.values()
    several = Skills([one, replace(one, agent="two")])
    assert len(several.actions) == 2
    with pytest.raises(InvalidParamsError, match="must name a skill"):
        several.asked_for(Message(parts=[Part(data=ParseDict({}, Value()))]))


@pytest.mark.parametrize("text", [str(2**53 + 1), f'{{"a": [{-(2**60)}]}}', "[" * 65 + "]" * 65])
def test_what_data_would_change_is_text(text: str) -> None:
    part = part_of(Content(body=text.encode(), typ=JSON))
    assert (part.text, part.media_type) == (text, JSON)


def test_other_types_are_bytes() -> None:
    for typ in ("image/png", f"{JSON}s", JSON[:-1], JSON.upper()):
        part = part_of(Content(body=b"\x00\xff", typ=typ))
        assert (part.raw, part.media_type) == (b"\x00\xff", typ)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"\xff", b'{"a": Infinity}'])
def test_json_that_is_none_is_no_answer(body: bytes) -> None:
    with pytest.raises(HandlingError, match="no JSON"):
        answer([Content(body=body, typ=JSON)], message_id="1", context_id="2")


def test_an_artifact_has_a_part_for_each() -> None:
    found = artifact([Content(body=b"1", typ=JSON), Content(body=b"x", typ="text/plain")])
    assert [one.WhichOneof("content") for one in found.parts] == ["data", "raw"]


@pytest.mark.parametrize(
    ("number", "text"), [(1.5, "1.5"), (2.0, "2"), (1e300, "1e+300"), (float(2**54), "1.8014398509481984e+16")]
)
def test_whole_numbers_alone_are_written_as_such(number: float, text: str) -> None:
    _, body = skills().asked_for(Message(parts=[Part(data=ParseDict({"a": number}, Value()))]))
    assert body.body.decode().replace(" ", "") == f'{{"a":{text}}}'


def test_an_answer_has_its_own_id_and_that_of_its_context() -> None:
    said = answer([Content(body=b"1", typ=JSON)], message_id="1", context_id="2")
    assert (said.message_id, said.context_id) == ("1", "2")


def test_a_text_with_arguments_that_are_not_unicode_is_the_clients_fault() -> None:
    with pytest.raises(InvalidParamsError, match="not Unicode"):
        skills().asked_for(Message(parts=[Part(text='{"a": "\\ud800"}')]))


def test_arguments_that_are_too_large_once_they_are_written_are_the_clients_fault() -> None:
    with pytest.raises(InvalidParamsError, match="over 917504 bytes"):
        skills().asked_for(Message(parts=[Part(text=json.dumps({"a": [1] * 400_000}, separators=(",", ":")))]))
