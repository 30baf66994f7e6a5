from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from sealbus.agents.edge.http.problem import STATUS, EdgeError, KeysUnavailable, TokenRefused, problem, problem_of
from sealbus.bus.sending.answer import AnswerDenied, CallExpired, RemoteError
from sealbus.envelopes.denial import Denier, Explanation, Remedy, RemedyKind
from sealbus.envelopes.errors import (
    ClockSkew,
    Code,
    Denied,
    HandlingError,
    IdentityUnavailable,
    PolicyFailed,
    SealbusError,
    SealError,
)

SECRET = "a text that quotes a payload"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Denied(SECRET), 403, "denied"),
        (RemoteError(Code.BAD_BODY, SECRET), 422, "bad_body"),
        (RemoteError(Code.RESOURCE_NOT_FOUND, SECRET), 404, "resource_not_found"),
        (RemoteError(Code.GRANT_EXCEEDED, SECRET), 403, "grant_exceeded"),
        (RemoteError(Code.IDEMPOTENCY_CONFLICT, SECRET), 409, "idempotency_conflict"),
        (RemoteError(Code.OVERLOADED, SECRET), 503, "overloaded"),
        (RemoteError(Code.AUDIT_UNAVAILABLE, SECRET), 503, "audit_unavailable"),
        (RemoteError(Code.HANDLER_FAILED, SECRET), 502, "handler_failed"),
        (RemoteError(Code.HANDLER_TIMEOUT, SECRET), 504, "handler_timeout"),
        (RemoteError(Code.BAD_SIGNATURE, SECRET), 500, "internal"),
        (RemoteError("sold_out", SECRET, SECRET), 422, "sold_out"),
        (HandlingError(Code.BAD_RESULT, SECRET), 502, "bad_result"),
        (CallExpired(SECRET), 504, "expired"),
        (IdentityUnavailable(SECRET), 503, "identity_unavailable"),
        (ClockSkew(SECRET), 503, "clock_skew"),
        (PolicyFailed(SECRET), 500, "internal"),
        (SealError(SECRET), 500, "internal"),
        (TokenRefused("typ"), 401, "bad_token"),
        (KeysUnavailable("keys", retry_after=7), 503, "keys_unavailable"),
    ],
)
def test_each_error_has_one_status_and_code_and_tells_nothing_else(error: SealbusError, status: int, code: str) -> None:
    answer = problem_of(error)
    said = json.loads(bytes(answer.body))
    assert (answer.status_code, said["status"], said["code"]) == (status, status, code)
    assert said["type"] == "about:blank"
    assert said["title"]
    assert said["detail"]
    assert SECRET not in bytes(answer.body).decode()
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.headers["content-type"] == "application/problem+json"


def test_reasons_are_those_that_the_other_side_lets_be_shown() -> None:
    assert json.loads(bytes(problem_of(Denied("", ["not_owner"])).body))["reasons"] == ["not_owner"]
    assert "reasons" not in json.loads(bytes(problem_of(AnswerDenied("", ["ours"])).body))


def test_what_would_help_and_who_denied_is_told_beside_them() -> None:
    via = (Denier("spiffe://example.org/agent/stock", "stock.update", "denied"),)
    told = Explanation(("late",), (Remedy(kind=RemedyKind.ASK, whom="Bob"),), via)
    answer = json.loads(bytes(problem_of(Denied("", *told)).body))
    assert answer["remedy"] == [{"kind": "ask", "whom": "Bob"}]
    assert answer["via"] == [["spiffe://example.org/agent/stock", "stock.update", "denied"]]


def test_what_is_not_read_to_its_end_closes_the_connection() -> None:
    assert problem(Code.TOO_LARGE).headers["connection"] == "close"
    assert problem(Code.REQUEST_TIMEOUT).headers["connection"] == "close"
    assert "connection" not in problem(Code.DENIED).headers


def test_the_edges_own_errors_say_when_to_come_again() -> None:
    answer = problem_of(EdgeError(Code.RATE_LIMITED, 429, retry_after=3))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


def test_the_documentation_has_the_same_table() -> None:
    text = (Path(__file__).resolve().parents[4] / "docs" / "edge.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|$", text, re.MULTILINE)
    said = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z_]+)`", codes)}
    assert {str(code): status for code, status in STATUS.items()} == {
        code: status for code, status in said.items() if code != "internal"
    }
