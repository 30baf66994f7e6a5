from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest
from support.audit import opened

from sealbus.bus.sending.answer import ONE_ANSWER, RemoteError, answer_of, takes_one_answer
from sealbus.bus.sending.message import ERROR_TYPE, Content
from sealbus.bus.work.executor.replies import error_answer
from sealbus.envelopes.accept.result import VerifiedResult
from sealbus.envelopes.denial import Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import Code, Denied
from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@pytest.mark.parametrize(
    ("ext", "takes_one"),
    [
        (None, False),
        ({}, False),
        ({"one": True}, False),
        ({"_one": False}, False),
        ({"_one": 1}, False),
        ({"_one": "true"}, False),
        ({"_one": True, "_later": b"x"}, True),
        (dict(ONE_ANSWER), True),
    ],
)
def test_only_true_is_the_mark(ext: dict[str, ExtValue] | None, *, takes_one: bool) -> None:
    header = opened().header._replace(ext=ext)
    assert takes_one_answer(header) is takes_one


PRICING = Denier("spiffe://example.org/agent/pricing", "pricing.quote", "denied")
STOCK = Denier("spiffe://example.org/agent/stock", "stock.update", "denied")
LOGIN = Remedy(kind=RemedyKind.LOGIN, max_age=300)


def result(body: bytes, typ: str) -> VerifiedResult:
    """Return what stands in for a verified result of `pricing`."""
    header = SimpleNamespace(typ=typ, iss=SpiffeId(PRICING.agent))
    return cast("VerifiedResult", SimpleNamespace(body=body, header=header))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"reasons":[]}',
        b'{"code":"no such code"}',
        b'{"code":7}',
        b'{"code":"denied","reasons":7}',
        b'{"code":"denied","reasons":["\\ud800"]}',
        b"[" * 5_000,
    ],
)
def test_an_error_reply_that_is_none_is_a_bad_result(body: bytes) -> None:
    with pytest.raises(RemoteError) as said:
        answer_of(result(body, ERROR_TYPE))
    assert said.value.code is Code.BAD_RESULT


def test_an_error_reply_says_code_and_reasons() -> None:
    with pytest.raises(Denied) as denied:
        answer_of(result(error_answer(Code.DENIED, Explanation(("not_owner",))).body, ERROR_TYPE))
    assert denied.value.reasons == ("not_owner",)
    with pytest.raises(RemoteError) as failed:
        answer_of(result(error_answer(Code.HANDLER_FAILED).body, ERROR_TYPE))
    assert failed.value.code is Code.HANDLER_FAILED


def test_reasons_of_a_peer_are_bounded() -> None:
    with pytest.raises(Denied) as denied:
        answer_of(result(error_answer(Code.DENIED, Explanation(("x" * 10_000,) * 100)).body, ERROR_TYPE))
    assert len(denied.value.reasons) <= 32
    assert all(len(reason) <= 256 for reason in denied.value.reasons)


@pytest.mark.parametrize("code", [Code.DENIED, Code.OBLIGATION_UNKNOWN])
def test_an_error_reply_tells_what_would_help_and_who_denied(code: Code) -> None:
    told = Explanation(("not_owner",), (LOGIN,), (PRICING, STOCK))
    with pytest.raises(Denied) as denied:
        answer_of(result(error_answer(code, told).body, ERROR_TYPE))
    assert denied.value.code is code
    assert denied.value.explanation == told


def test_nobody_names_others_in_front_of_itself() -> None:
    told = Explanation(("not_owner",), (LOGIN,), (STOCK, PRICING))
    with pytest.raises(Denied) as denied:
        answer_of(result(error_answer(Code.DENIED, told).body, ERROR_TYPE))
    assert denied.value.explanation == Explanation(("not_owner",), (LOGIN,))


@pytest.mark.parametrize("remedy", [7, "x" * 100_000, {"kind": "login"}, [{"kind": "ask", "whom": "\x1b[2J"}], [[[]]]])
def test_a_denial_is_one_whatever_its_remedies_look_like(remedy: object) -> None:
    body = json.dumps({"code": "denied", "reasons": ["late"], "remedy": remedy, "via": remedy}).encode()
    with pytest.raises(Denied) as denied:
        answer_of(result(body, ERROR_TYPE))
    assert denied.value.explanation == Explanation(("late",))


def test_any_other_answer_is_given_back_as_it_is() -> None:
    assert answer_of(result(b"{}", "application/json")) == Content(body=b"{}", typ="application/json")
