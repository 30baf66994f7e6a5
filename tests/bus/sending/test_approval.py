"""The body of an approval: it reads back as it was written, and whatever else is refused as `bad_body`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import EDGE, EDGE_ID, INVENTORY, context_draft, statement
from support.envelopes import HOUR, NAMES, NOW, message_id

from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.approval import (
    APPROVAL_TYPE,
    WAIT,
    ApprovalRequest,
    Verdict,
    approval_message,
    encode_approval,
    parse_approval,
    waiting,
)
from sealbus.envelopes.errors import BadBody
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.message.user_context import mint_context
from sealbus.envelopes.message.wire import parse_envelope

GOOD: dict[str, Any] = {"v": 1, "decision": "ab" * 32, "verdict": "approve", "note": ""}
NOTES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=60)
REQUESTS = st.builds(
    ApprovalRequest,
    decision=st.binary(min_size=32, max_size=32),
    verdict=st.sampled_from(Verdict),
    note=NOTES,
)


@given(REQUESTS)
def test_a_body_reads_back_as_it_was_written(request: ApprovalRequest) -> None:
    written = encode_approval(request)
    assert written.typ == APPROVAL_TYPE
    assert parse_approval(written.body, written.typ) == request


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_other_bytes_are_another_body_or_bad(place: int, flip: int) -> None:
    one = ApprovalRequest(decision=bytes(32), verdict=Verdict.APPROVE, note="yes")
    raw = bytearray(encode_approval(one).body)
    raw[place % len(raw)] ^= flip
    try:
        other = parse_approval(bytes(raw), APPROVAL_TYPE)
    except BadBody:
        return
    assert other != one


@given(st.binary(max_size=200))
def test_bytes_are_no_body(raw: bytes) -> None:
    with pytest.raises(BadBody):
        parse_approval(raw, APPROVAL_TYPE)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"v": None},
        {"decision": "ab" * 31},
        {"decision": "AB" * 32},
        {"decision": "ab" * 33},
        {"decision": 1},
        {"verdict": "Approve"},
        {"verdict": "view"},
        {"verdict": "approved"},
        {"verdict": None},
        {"note": None},
        {"note": "x" * 257},
        {"note": "a\nb"},
        {"more": ""},
    ],
    ids=str,
)
def test_a_body_has_exactly_its_members(changes: dict[str, Any]) -> None:
    said = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(BadBody):
        parse_approval(json.dumps(said).encode(), APPROVAL_TYPE)


def test_a_body_has_its_type_and_its_size() -> None:
    body = json.dumps(GOOD).encode()
    assert parse_approval(body, APPROVAL_TYPE).verdict is Verdict.APPROVE
    for typ in ("application/json", APPROVAL_TYPE + "x", APPROVAL_TYPE[:-1], APPROVAL_TYPE.upper()):
        with pytest.raises(BadBody):
            parse_approval(body, typ)
    assert parse_approval(body + b" " * (4_096 - len(body)), APPROVAL_TYPE).verdict is Verdict.APPROVE
    with pytest.raises(BadBody):
        parse_approval(body + b" " * (4_097 - len(body)), APPROVAL_TYPE)


@pytest.mark.parametrize(
    "bad", [{"decision": bytes(31)}, {"decision": bytes(33)}, {"note": "x" * 257}, {"note": "\x00"}, {"note": 1}]
)
def test_a_request_has_its_form(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|256 bytes"):
        ApprovalRequest(**{"decision": bytes(32), "verdict": Verdict.DENY, **bad})


def test_the_message_starts_a_chain_and_says_what_may_follow() -> None:
    request = ApprovalRequest(decision=b"d" * 32, verdict=Verdict.APPROVE, note="fine")
    minted = mint_context(context_draft()._replace(sub="boss"), EDGE)
    message = approval_message(
        request, agent=INVENTORY, task=b"t" * 32, follows=("mail.send",), statement=minted, names=NAMES, now=NOW
    )
    [sealed] = seal([message.at(NOW, new_id=message_id(5))], EDGE)
    header = parse_header(parse_envelope(sealed.wire).header)
    assert (header.kind, header.to, header.aud) == (Kind.TASK, "control.inventory.approve", INVENTORY)
    assert (header.re, header.grt, header.par, header.iss) == (b"t" * 32, ("mail.send",), None, EDGE_ID)
    assert header.end == context_draft().end
    assert parse_approval(parse_envelope(sealed.wire).body, header.typ or "") == request


def test_nothing_is_said_in_a_context_that_is_over() -> None:
    request = ApprovalRequest(decision=b"d" * 32, verdict=Verdict.APPROVE)
    for now, well in ((NOW + 2 * HOUR - 1, True), (NOW + 2 * HOUR, False), (NOW + 3 * HOUR, False)):
        arguments: dict[str, Any] = {
            "agent": INVENTORY,
            "task": bytes(32),
            "follows": (),
            "statement": statement(),
            "names": NAMES,
            "now": now,
        }
        if well:
            assert approval_message(request, **arguments).draft.grt == ()
        else:
            with pytest.raises(CallExpired):
                approval_message(request, **arguments)


def test_the_mark_of_a_wait() -> None:
    assert waiting(NOW) == {WAIT: NOW}
