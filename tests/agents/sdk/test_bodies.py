"""Bodies as typed values: what fits comes out as it went in, anything else is told by place and never by content."""

from __future__ import annotations

import pydantic
import pytest
from support.shop import Update

from sealbus.agents.sdk.bodies import JSON, MSGPACK, OCTETS, Body, body_of
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.errors import BadBody, Code, HandlingError

UPDATE = Update(item_id="42", quantity=3)


@pytest.mark.parametrize("typ", [JSON, MSGPACK])
def test_a_model_comes_out_as_it_went_in(typ: str) -> None:
    answer = Body(Update).encode(UPDATE, typ)
    assert answer.typ == typ
    assert Body(Update).decode(answer.body, answer.typ) == UPDATE


def test_bytes_are_taken_as_they_are() -> None:
    answer = Body(bytes).encode(b"\x00\xff")
    assert (answer.body, answer.typ) == (b"\x00\xff", OCTETS)
    assert Body(bytes).decode(answer.body, answer.typ) == b"\x00\xff"


@pytest.mark.parametrize("typ", ["text/plain", OCTETS, "application/JSON", ""])
def test_another_media_type_is_refused(typ: str) -> None:
    with pytest.raises(BadBody, match="media type"):
        Body(Update).decode(b'{"item_id":"42"}', typ)


def test_bytes_of_another_media_type_are_refused() -> None:
    with pytest.raises(BadBody, match="octet-stream"):
        Body(bytes).decode(b"{}", JSON)


def test_what_does_not_fit_is_told_by_place_only() -> None:
    with pytest.raises(BadBody) as refused:
        Body(Update).decode(b'{"item_id":"42","quantity":"a secret"}', JSON)
    assert refused.value.detail == "does not fit at quantity"


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x81\xa7item_id", encode({"quantity": 1})])
def test_msgpack_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody):
        Body(Update).decode(body, MSGPACK)


@pytest.mark.parametrize(("of", "value"), [(Update, object()), (bytes, "text"), (int, "x")])
def test_a_result_of_another_type_is_bad(of: type[object], value: object) -> None:
    with pytest.raises(HandlingError) as refused:
        Body(of).encode(value)
    assert refused.value.code is Code.BAD_RESULT


@pytest.mark.parametrize("typ", [JSON, MSGPACK])
def test_a_model_made_without_validation_is_bad_and_is_not_shown(
    typ: str, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Update.model_construct(item_id="42", quantity="not-a-number-but-a-secret")
    with pytest.raises(HandlingError) as refused:
        Body(Update).encode(made, typ)
    assert refused.value.code is Code.BAD_RESULT
    assert "secret" not in str(refused.value)
    assert refused.value.__suppress_context__
    assert not recwarn.list
    assert capsys.readouterr() == ("", "")


def test_a_float_does_not_fit_canonical_msgpack() -> None:
    with pytest.raises(HandlingError) as refused:
        Body(float).encode(0.5, MSGPACK)
    assert refused.value.code is Code.BAD_RESULT


def test_bodies_are_kept() -> None:
    assert body_of(Update) is body_of(Update)


def test_what_is_missing_is_told_apart_from_what_does_not_fit() -> None:
    class Order(pydantic.BaseModel):
        title: str
        pieces: int

    with pytest.raises(BadBody, match=r"^bad_body: lacks title$"):
        Body(Order).decode(b'{"titel": "x", "pieces": 1}', JSON)
    with pytest.raises(BadBody, match=r"^bad_body: does not fit at pieces; lacks title$"):
        Body(Order).decode(b'{"pieces": "many"}', JSON)
