"""Replies: to whom and about what, and what an error reply says; that calls are answered is in `tests/bus/gate`."""

from __future__ import annotations

import json

import pytest
from support.audit import opened

from sealbus.bus.sending.message import ERROR_TYPE, Content
from sealbus.bus.work.executor.replies import error_answer, reply_message
from sealbus.envelopes.denial import Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import Code, Denied
from sealbus.envelopes.message.kinds import Kind

MESSAGE = opened()
CALL = MESSAGE._replace(header=MESSAGE.header._replace(rpl="_INBOX.planner.r.0.1", tid=b"t" * 16))
BODY = Content(body=b"1", typ="application/json")


def test_a_reply_goes_to_the_inbox_of_the_caller_and_names_the_call() -> None:
    draft = reply_message(CALL, BODY).draft
    assert (draft.kind, draft.to, draft.aud) == (Kind.REPLY, "_INBOX.planner.r.0.1", CALL.header.iss)
    assert (draft.re, draft.tid, draft.seq, draft.fin) == (CALL.header.digest, b"t" * 16, None, False)


def test_a_chunk_is_numbered_and_the_last_says_so() -> None:
    draft = reply_message(CALL, BODY, seq=3, fin=True).draft
    assert (draft.kind, draft.seq, draft.fin) == (Kind.CHUNK, 3, True)


def test_what_names_no_inbox_is_not_answered() -> None:
    with pytest.raises(Denied):
        reply_message(CALL._replace(header=CALL.header._replace(rpl=None)), BODY)


def test_an_error_says_its_code_and_the_reasons_that_it_is_given() -> None:
    told = Explanation(
        ("not_owner",),
        (Remedy(kind=RemedyKind.ASK, whom="Bob"),),
        (Denier("spiffe://example.org/agent/stock", "stock.update", "denied"),),
    )
    answer = error_answer(Code.DENIED, told)
    assert answer.typ == ERROR_TYPE
    assert json.loads(answer.body) == {
        "code": "denied",
        "reasons": ["not_owner"],
        "remedy": [{"kind": "ask", "whom": "Bob"}],
        "via": [["spiffe://example.org/agent/stock", "stock.update", "denied"]],
    }
    assert json.loads(error_answer(Code.BAD_BODY).body) == {"code": "bad_body", "reasons": []}
