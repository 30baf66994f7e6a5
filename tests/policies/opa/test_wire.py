"""Questions to OPA and its answers, as bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.policies import ALLOW, document

from sealbus.envelopes.errors import PolicyFailed, PolicyUnavailable
from sealbus.policies.opa.wire import NoPolicy, batch_question, parse_reply, parse_single_reply, single_question

BUNDLES: dict[str, Any] = {"bundles": {"b": {"revision": "r1"}}}


def reply(answer: object, *, status: int = 200, count: int = 1) -> tuple[str, list[object]]:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    found = parse_reply(status, body, count)
    return found.revision, list(found.values)


def test_documents_are_put_in_byte_for_byte() -> None:
    one, two = document("yes"), document("no")
    assert batch_question([one, two]) == b'{"input":{"batch":[' + one + b"," + two + b"]}}"
    assert json.loads(batch_question([])) == {"input": {"batch": []}}


def test_an_answer() -> None:
    assert reply({"result": [ALLOW], "provenance": BUNDLES}) == ("r1", [ALLOW])


def test_several_bundles_are_named() -> None:
    provenance = {"bundles": {"b": {"revision": "2"}, "a": {"revision": "1"}}}
    assert reply({"result": [1], "provenance": provenance})[0] == "a=1,b=2"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"result": None, "provenance": BUNDLES},
        {"result": {}, "provenance": BUNDLES},
        {"result": "yes", "provenance": BUNDLES},
        {"result": [], "provenance": BUNDLES},
        {"result": [1, 2], "provenance": BUNDLES},
        {"result": [1]},
        {"result": [1], "provenance": None},
        {"result": [1], "provenance": {"bundles": {}}},
        {"result": [1], "provenance": {"bundles": [1]}},
        {"result": [1], "provenance": {"bundles": {"b": {}}}},
        {"result": [1], "provenance": {"bundles": {"b": {"revision": ""}}}},
        {"result": [1], "provenance": {"bundles": {"b": "r"}}},
        {"result": [1], "provenance": {"bundles": {"b": {"revision": "x" * 257}}}},
        {"result": [1], "provenance": {"bundles": {"b": {"revision": "r"}, "a": {"revision": ""}}}},
    ],
)
def test_answers_that_are_not_one_for_each(answer: object) -> None:
    with pytest.raises(PolicyFailed):
        reply(answer)


def test_the_bundle_that_guards_opa_is_no_part_of_the_revision() -> None:
    for name in ("system", "/etc/opa/system", "deploy/local/opa/system/"):
        both = {"bundles": {**BUNDLES["bundles"], name: {"revision": "guard"}}}
        assert reply({"result": [1], "provenance": both}) == reply({"result": [1], "provenance": BUNDLES})
    with pytest.raises(NoPolicy):
        reply({"result": [1], "provenance": {"bundles": {"system": {"revision": "guard"}}}})
    own = {"bundles": {"ecosystem": {"revision": "r9"}}}
    assert reply({"result": [1], "provenance": own})[0] == "r9"


def test_that_no_question_would_be_decided_is_told_apart() -> None:
    for nothing in ({}, {"result": [1]}, {"result": "yes", "provenance": BUNDLES}):
        with pytest.raises(NoPolicy):
            reply(nothing)
    with pytest.raises(PolicyFailed) as failed:
        reply({"result": [], "provenance": BUNDLES})
    assert not isinstance(failed.value, NoPolicy)


def test_a_refused_caller_is_told_so() -> None:
    with pytest.raises(PolicyUnavailable, match="401: it does not let this workload ask"):
        reply({"code": "unauthorized"}, status=401)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"", 200), (b"{", 200), (b'"yes"', 200), (b"[]", 200), (b"\xff", 200), (b'{"result": [1', 200),
        (b"[" * 100, 200), (b"{}", 500), (b"oops", 500), ({"code": "internal_error"}, 500),
        ({"code": "other", "errors": []}, 500), ({"code": "internal_error", "errors": []}, 503), ({}, 404), ({}, 302),
        ({"code": "invalid_parameter", "errors": []}, 400),
    ],
)  # fmt: skip
def test_answers_that_are_not_opas(answer: object, status: int) -> None:
    with pytest.raises(PolicyUnavailable):
        reply(answer, status=status)


def test_an_error_of_evaluation_is_told_without_its_text() -> None:
    errors: list[Any] = [
        {"code": "eval_builtin_error", "message": "secret", "location": {"file": "a.rego", "row": 3, "col": 7}},
        {"code": "eval_conflict_error", "message": "secret"},
        "odd",
    ]
    with pytest.raises(PolicyFailed) as failed:
        reply({"code": "internal_error", "message": "secret", "errors": errors}, status=500)
    assert failed.value.detail == (
        "OPA could not evaluate: eval_builtin_error at a.rego:3:7, eval_conflict_error, None"
    )


def test_a_connection_is_asked_about_alone() -> None:
    assert single_question(b'{"v":1}') == b'{"input":{"v":1}}'
    answer = json.dumps({"result": {"allow": False}, "provenance": BUNDLES}).encode()
    assert parse_single_reply(200, answer) == ("r1", {"allow": False})


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (200, {"provenance": BUNDLES}, PolicyFailed),
        (200, {"result": 1}, NoPolicy),
        (200, {}, NoPolicy),
        (500, {"code": "internal_error", "errors": []}, PolicyFailed),
        (404, {}, PolicyUnavailable),
    ],
)
def test_no_answer_about_a_connection(status: int, answer: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_single_reply(status, json.dumps(answer).encode())
