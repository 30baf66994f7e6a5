"""Decision records: the exact table, and what may stand together."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from support.both_readers import parse_record

from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.trust.proof import Proof

PLACE = StreamPlace(stream="TASKS", sequence=7, stored=1_700_000_000_000_000)
ALLOWED = DecisionRecord(
    header=b"\x80",
    proof=Proof(2, 1, (b"n" * 32,), b"s" * 64),
    action="inventory.update",
    place=PLACE,
    delivery=1,
    allow=True,
    input=b"{}",
    reasons=("owner",),
    obligations=b'[{"log":true}]',
    revision="r1",
    policy="starter",
    engine="embedded",
    micros=17,
)
DENIED = ALLOWED._replace(allow=False, code=Code.DENIED)
NOT_ASKED = DecisionRecord(
    header=b"\x80",
    proof=ALLOWED.proof,
    action="inventory.update.reply",
    place=CorePlace(opened=5),
    delivery=1,
    allow=False,
    code=Code.BAD_BODY,
)
WITH_BODY = ALLOWED._replace(body=b'{"item":"42"}')
REDACTED = ALLOWED._replace(input=b'{"a":null,"b":null}', redacted=("/a", "/b"))
UNAVAILABLE = NOT_ASKED._replace(code=Code.POLICY_UNAVAILABLE, input=b"{}", engine="sidecar", micros=250_000)


def take(item: bytes) -> DecisionRecord:
    record = parse_record(item)
    assert isinstance(record, DecisionRecord)
    return record


@pytest.mark.parametrize("record", [ALLOWED, DENIED, NOT_ASKED, UNAVAILABLE, REDACTED, WITH_BODY])
def test_encoding_is_canonical_and_read_back(record: DecisionRecord) -> None:
    item = record.encode()
    value = decode(item)
    assert encode(value) == item
    assert take(item) == record


def test_the_table_of_an_allowed_stream_message() -> None:
    assert decode(ALLOWED.encode()) == {
        "v": 1,
        "k": "decision",
        "hdr": b"\x80",
        "prf": [2, 1, [b"n" * 32], b"s" * 64],
        "act": "inventory.update",
        "str": "TASKS",
        "seq": 7,
        "sto": 1_700_000_000_000_000,
        "dlv": 1,
        "inp": b"{}",
        "alw": True,
        "rsn": ["owner"],
        "obl": b'[{"log":true}]',
        "rev": "r1",
        "pol": "starter",
        "eng": "embedded",
        "mic": 17,
    }


def test_the_table_of_a_core_message_whose_body_was_bad() -> None:
    assert decode(NOT_ASKED.encode()) == {
        "v": 1,
        "k": "decision",
        "hdr": b"\x80",
        "prf": [2, 1, [b"n" * 32], b"s" * 64],
        "act": "inventory.update.reply",
        "opn": 5,
        "dlv": 1,
        "alw": False,
        "cod": "bad_body",
    }


def test_the_reference_time_is_the_stored_time_or_the_time_of_opening() -> None:
    assert PLACE.time == 1_700_000_000_000_000
    assert CorePlace(opened=5).time == 5


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ALLOWED._replace(place=PLACE._replace(stream="")),
        lambda: ALLOWED._replace(place=PLACE._replace(stream="S" * 256)),
        lambda: ALLOWED._replace(place=PLACE._replace(sequence=0)),
        lambda: ALLOWED._replace(place=PLACE._replace(stored=-1)),
        lambda: ALLOWED._replace(place=CorePlace(opened=-1)),
        lambda: ALLOWED._replace(header=b""),
        lambda: ALLOWED._replace(header=b"h" * 8193),
        lambda: ALLOWED._replace(proof=ALLOWED.proof._replace(size=0)),
        lambda: ALLOWED._replace(action=""),
        lambda: ALLOWED._replace(action="inventory.*"),
        lambda: ALLOWED._replace(action="a" * 257),
        lambda: ALLOWED._replace(delivery=0),
        lambda: ALLOWED._replace(delivery=True),
        lambda: ALLOWED._replace(micros=True),
        lambda: ALLOWED._replace(delivery=2**53),
        lambda: ALLOWED._replace(input=b""),
        lambda: ALLOWED._replace(input=b"i" * 65_537),
        lambda: ALLOWED._replace(reasons=("r",) * 33),
        lambda: ALLOWED._replace(reasons=("two\nlines",)),
        lambda: ALLOWED._replace(obligations=b"o" * 65_537),
        lambda: ALLOWED._replace(revision="r" * 257),
        lambda: ALLOWED._replace(policy="p" * 257),
        lambda: ALLOWED._replace(engine="e" * 257),
        lambda: ALLOWED._replace(micros=-1),
        lambda: ALLOWED._replace(body=b"b" * 65_537),
    ],
)
def test_fields_have_limits(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(SealError):
        wrong()


def test_the_largest_input_document_fits() -> None:
    largest = ALLOWED._replace(header=b"h" * 8_192, body=b"b" * 65_536, input=b"i" * 65_536, obligations=b"o" * 65_536)
    assert take(largest.encode()) == largest


@pytest.mark.parametrize("missing", ["input", "revision", "policy"])
@pytest.mark.parametrize("record", [ALLOWED, DENIED])
def test_an_answer_of_the_policy_is_complete(record: DecisionRecord, missing: str) -> None:
    with pytest.raises(SealError, match="a policy's answer"):
        record._replace(**{missing: None})  # type: ignore[arg-type]  # only optional fields are named


@pytest.mark.parametrize("record", [ALLOWED, DENIED])
def test_an_answer_of_the_policy_names_its_engine(record: DecisionRecord) -> None:
    with pytest.raises(SealError, match="a policy's answer"):
        record._replace(engine=None, micros=None)


def test_engine_and_micros_come_together() -> None:
    for half in (UNAVAILABLE._replace(engine=None, micros=None),):
        assert take(half.encode()) == half
    with pytest.raises(SealError, match="come together"):
        UNAVAILABLE._replace(engine=None)
    with pytest.raises(SealError, match="come together"):
        UNAVAILABLE._replace(micros=None)


def test_a_code_stands_exactly_where_it_was_not_allowed() -> None:
    with pytest.raises(SealError, match="a decision has a code"):
        ALLOWED._replace(code=Code.DENIED)
    with pytest.raises(SealError, match="a decision has a code"):
        ALLOWED._replace(allow=False)


@pytest.mark.parametrize(
    "code",
    ["expired", "approval_lost", "a" * 64, "denie", "denied2", "obligation_unknow", "bad_body2", "resource_not_foun"],
)
@pytest.mark.parametrize("record", [NOT_ASKED, DENIED, UNAVAILABLE])
def test_a_code_that_we_know_nothing_of_stands_with_whatever_its_writer_put_there(
    record: DecisionRecord, code: str
) -> None:
    newer = record._replace(code=code)
    assert take(newer.encode()) == newer
    bare = NOT_ASKED._replace(code=code, reasons=("r",), input=b"{}")
    assert take(bare.encode()) == bare


@pytest.mark.parametrize("code", ["Expired", "", "9", "a" * 65, "not a code"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(SealError, match="not a code"):
        DENIED._replace(code=code)


def test_an_obligation_that_nobody_understood_stands_beside_what_the_policy_answered() -> None:
    record = DENIED._replace(code=Code.OBLIGATION_UNKNOWN, obligations=b'[{"type":"watermark"}]')
    assert take(record.encode()) == record
    with pytest.raises(SealError, match="there are obligations"):
        record._replace(obligations=b"")
    with pytest.raises(SealError, match="a policy's answer has"):
        record._replace(input=None)


@pytest.mark.parametrize("code", [Code.BAD_BODY, Code.RESOURCE_NOT_FOUND, Code.RESOURCE_UNAVAILABLE])
def test_before_step_16_the_policy_was_not_asked(code: Code) -> None:
    NOT_ASKED._replace(code=code)
    for change in (
        {"revision": "r"},
        {"policy": "p"},
        {"engine": "e", "micros": 1},
        {"reasons": ("r",)},
        {"obligations": b"[]"},
    ):
        with pytest.raises(SealError, match="not asked"):
            NOT_ASKED._replace(code=code, **change)


def test_a_body_stands_in_a_key_of_its_own_and_may_be_empty() -> None:
    value = decode(WITH_BODY.encode())
    assert isinstance(value, dict)
    assert value["bdy"] == WITH_BODY.body
    assert "bdy" not in cast("dict[str, Value]", decode(ALLOWED.encode()))
    assert take(ALLOWED._replace(body=b"").encode()).body == b""


def test_what_was_redacted_is_named_in_a_key_of_its_own() -> None:
    value = decode(REDACTED.encode())
    assert isinstance(value, dict)
    assert value["red"] == ["/a", "/b"]
    assert "red" not in cast("dict[str, Value]", decode(ALLOWED.encode()))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: NOT_ASKED._replace(redacted=("/a",)),
        lambda: REDACTED._replace(redacted=("",)),
        lambda: REDACTED._replace(redacted=("a",)),
        lambda: REDACTED._replace(redacted=("/a", "/a")),
        lambda: REDACTED._replace(redacted=("/a\n",)),
        lambda: REDACTED._replace(redacted=("/" + "a" * 256,)),
        lambda: REDACTED._replace(redacted=tuple(f"/{number}" for number in range(33))),
    ],
)
def test_what_was_redacted_is_named_by_pointers_into_the_input(wrong: Callable[[], DecisionRecord]) -> None:
    with pytest.raises(SealError):
        wrong()


def test_an_empty_list_of_pointers_is_no_spelling_of_none() -> None:
    value = decode(REDACTED.encode())
    assert isinstance(value, dict)
    with pytest.raises(EnvelopeError, match="record: red"):
        take(encode(value | {"red": []}))


def test_core_delivers_once() -> None:
    with pytest.raises(SealError, match="delivers once"):
        NOT_ASKED._replace(delivery=2)


@pytest.mark.parametrize("key", ["hdr", "prf", "act", "dlv", "alw", "str", "seq", "sto"])
def test_keys_that_must_be_there(key: str) -> None:
    value = decode(ALLOWED.encode())
    assert isinstance(value, dict)
    del value[key]
    with pytest.raises(EnvelopeError, match=f"record: {key}"):
        take(encode(value))


@pytest.mark.parametrize(("key", "other"), [("opn", 5), ("obl", b""), ("rsn", []), ("zzz", 1)])
def test_no_second_spelling(key: str, other: Value) -> None:
    value = decode(ALLOWED.encode())
    assert isinstance(value, dict)
    value[key] = other
    with pytest.raises((EnvelopeError, SealError)):
        take(encode(value))


def test_its_text_shows_no_input_and_no_reasons() -> None:
    assert ALLOWED.kind == "decision"
    assert repr(DENIED) == "DecisionRecord(action='inventory.update', allow=False, code=<Code.DENIED: 'denied'>, ...)"
