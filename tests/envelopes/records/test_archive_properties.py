"""What holds for any input of the result and archive profiles, of records and of handles."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import INVENTORY, MINTERS, TRUST
from support.audit import Archive, audit_message, decision_of, evidence_items, opened
from support.envelopes import NAMES, NOW, agent
from support.results import CALL, Requester, answer

from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.result import ResultProfile, accept_reply
from sealbus.envelopes.encoding.codec import Value, encode, is_text
from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.records.archive import ArchiveProfile, accept_record
from sealbus.envelopes.records.body import encode_audit_body, parse_audit_body
from sealbus.envelopes.records.decision import DECISION_CODES, CorePlace, DecisionRecord, StreamPlace
from sealbus.envelopes.records.record import parse_record
from sealbus.envelopes.records.work import MINUTE, DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.proof import Proof

MAX = 2**53 - 1
PARSERS: list[Callable[[bytes], object]] = [
    parse_record,
    parse_audit_body,
    PendingRequest.parse,
    lambda data: PendingRequest.from_text(data.decode("latin-1")),
    lambda data: accept_record(
        data, "audit.x", ArchiveProfile(names=NAMES), time=NOW, bundles=TRUST.bundles, caches=Caches()
    ),
    lambda data: accept_reply(
        data,
        "_INBOX.planner.1",
        ResultProfile(own=agent("planner"), names=NAMES),
        {},
        trust=TRUST,
        caches=Caches(),
        now=NOW,
    ),
]

text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=80).filter(is_text)
proofs = st.builds(
    lambda size, path, signature: Proof(size, size // 2, tuple(path), signature),
    st.integers(1, 4096),
    st.lists(st.binary(min_size=32, max_size=32), max_size=12),
    st.binary(min_size=64, max_size=64),
)
places = st.builds(CorePlace, st.integers(0, MAX)) | st.builds(
    StreamPlace, text.filter(bool), st.integers(1, MAX), st.integers(0, MAX)
)
answered = st.fixed_dictionaries(
    {
        "input": st.binary(min_size=1, max_size=100),
        "reasons": st.lists(text, max_size=4).map(tuple),
        "obligations": st.binary(max_size=50),
        "revision": text,
        "policy": text,
        "engine": text,
        "micros": st.integers(0, MAX),
    }
)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_by_one_error(data: bytes) -> None:
    for parse in PARSERS:
        with pytest.raises(EnvelopeError):
            parse(data)


scalars = st.booleans() | st.integers(0, MAX) | text | st.binary(max_size=70)
maps = st.dictionaries(
    st.sampled_from(["hdr", "prf", "act", "str", "seq", "sto", "opn", "dlv", "alw", "cod", "dec", "suc", "mic", "not"]),
    scalars | st.lists(scalars, max_size=4),
)


@given(maps, st.sampled_from(["decision", "outcome", "bundle", "policy", "checkpoint", "denials"]))
def test_a_map_is_a_record_or_refused_by_one_error(entries: dict[str, Value], kind: str) -> None:
    item = encode({**entries, "v": 1, "k": kind})
    try:
        record = parse_record(item)
    except EnvelopeError as error:
        assert (error.code, error.step) == (Code.MALFORMED, 0)  # noqa: PT017  # either is right
    else:
        assert record.encode() == item


@given(st.binary(min_size=1, max_size=300), proofs, places, st.integers(1, MAX), answered)
def test_an_allowed_decision_has_one_encoding(
    header: bytes, proof: Proof, place: StreamPlace | CorePlace, delivery: int, answer_: dict[str, object]
) -> None:
    once = 1 if isinstance(place, CorePlace) else delivery
    record = DecisionRecord(header, proof, "a.b", place, once, True, **answer_)  # type: ignore[arg-type]  # by name
    assert parse_record(record.encode()) == record


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.none() | st.sampled_from(Code))
def test_an_outcome_has_one_encoding(sent: list[bytes], code: Code | None) -> None:
    record = OutcomeRecord.of(decision=bytes(32), code=code, micros=1, delivery=1, sent=tuple(sent))
    assert parse_record(record.encode()) == record


@given(
    st.dictionaries(st.sampled_from(sorted(DECISION_CODES)), st.integers(1, MAX), min_size=1),
    st.integers(0, MAX // MINUTE),
)
def test_denials_have_one_encoding(counts: dict[str, int], minute: int) -> None:
    record = DenialsRecord(iss=INVENTORY, minute=minute * MINUTE, counts=counts)
    assert parse_record(record.encode()) == record


MESSAGE = opened()
EVIDENCE = list(evidence_items(MESSAGE).values())
DECISION = decision_of(MESSAGE)
AUDIT = audit_message(EVIDENCE, [DECISION.encode()]).payload()
REPLY = answer().payload()


@given(st.integers(0, len(AUDIT) * 8 - 1))
def test_no_flipped_bit_of_an_audit_message_is_taken(bit: int) -> None:
    flipped = bytearray(AUDIT)
    flipped[bit // 8] ^= 1 << bit % 8
    profile = ArchiveProfile(names=NAMES, minters=MINTERS)
    with pytest.raises(EnvelopeError):
        accept_record(
            bytes(flipped),
            "audit.inventory",
            profile,
            time=NOW + 2 * SECOND,
            bundles=TRUST.bundles,
            caches=Caches(),
        )


@given(st.integers(0, len(EVIDENCE) - 1), st.integers(0))
def test_no_flipped_bit_of_evidence_proves_anything(index: int, position: int) -> None:
    flipped = bytearray(EVIDENCE[index])
    bit = position % (len(flipped) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    items = [*EVIDENCE[:index], bytes(flipped), *EVIDENCE[index + 1 :]]
    with pytest.raises(EnvelopeError):
        Archive().decided(DECISION, items)


@given(st.integers(0, len(REPLY) * 8 - 1))
def test_no_flipped_bit_of_a_reply_is_taken_or_changes_anything(bit: int) -> None:
    flipped = bytearray(REPLY)
    flipped[bit // 8] ^= 1 << bit % 8
    requester = Requester()
    with pytest.raises(EnvelopeError):
        accept_reply(
            bytes(flipped),
            "_INBOX.planner.1",
            ResultProfile(own=agent("planner"), names=NAMES),
            requester.requests,
            trust=TRUST,
            caches=Caches(),
            now=NOW,
        )
    assert not requester.requests[CALL.digest].closed


@given(st.binary(min_size=1, max_size=60))
def test_a_body_of_anything_but_items_is_refused(item: bytes) -> None:
    with pytest.raises(EnvelopeError) as caught:
        parse_audit_body(encode_audit_body([], [item]))
    assert caught.value.code is Code.BAD_DIGEST
