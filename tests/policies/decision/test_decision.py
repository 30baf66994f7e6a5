"""Only an exact decision is one; only `true` allows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sealbus.envelopes.denial import Remedy, RemedyKind
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.decision.decision import (
    OBLIGATIONS,
    Decision,
    parse_decision,
    remedies,
    shows_reasons,
    unknown_obligation,
)

WRONG: dict[str, list[object]] = {
    "allow": ["true", 1, None, "yes", [], {}, 1.0],
    "policy": [None, 1, "", "x" * 257, "a\nb", "\ud800"],
    "reasons": [None, "a", {}, [1], [None], [["a"]], ["a\x00"], ["x" * 257], ["\ud800"]],
    "obligations": [None, {}, "a", [1], ["a"], [[]], [None]],
}
GOOD: dict[str, Any] = {"allow": True, "reasons": [], "obligations": [], "policy": "starter"}


def parse(answer: object) -> Decision:
    return parse_decision(answer, revision="r", engine="e", micros=7)


def test_a_decision() -> None:
    found = parse({"allow": False, "reasons": ["a", "ü"], "obligations": [{"k": [1, {"l": True}]}], "policy": "p"})
    assert not found.allow
    assert found.reasons == ("a", "ü")
    assert [dict(one) for one in found.obligations] == [{"k": [1, {"l": True}]}]
    assert (found.policy, found.revision, found.engine, found.micros) == ("p", "r", "e", 7)
    assert parse(GOOD).allow is True


@pytest.mark.parametrize(
    "answer",
    [
        None, True, 1, "yes", "<undefined>", {}, [], [GOOD], {"allow": True},
        {**GOOD, "more": 1},
        {key: value for key, value in GOOD.items() if key != "policy"},
        *({**GOOD, key: value} for key, values in WRONG.items() for value in values),
        {**GOOD, "reasons": ["a"] * 33},
        {**GOOD, "obligations": [{}] * (OBLIGATIONS + 1)},
        {**GOOD, "obligations": [{"a": 1.5}]},
        {**GOOD, "obligations": [{"a": 2**53}]},
        {**GOOD, "obligations": [{"a": "\ud800"}]},
        {**GOOD, "obligations": [{"a": "x" * 257}]},
        {**GOOD, "obligations": [{"x" * 257: 1}]},
        {**GOOD, "obligations": [{"a": list(range(300))}]},
        {**GOOD, "obligations": [{"a": json.loads("[" * 9 + "]" * 9)}]},
    ],
)  # fmt: skip
def test_anything_else_fails(answer: object) -> None:
    with pytest.raises(PolicyFailed) as failed:
        parse(answer)
    assert failed.value.code is Code.POLICY_ERROR


def test_limits_are_inclusive() -> None:
    found = parse(
        {
            "allow": True,
            "reasons": ["x" * 256] * 32,
            "obligations": [{"a": json.loads("[" * 6 + "1" + "]" * 6)}] + [{}] * (OBLIGATIONS - 1),
            "policy": "x" * 256,
        }
    )
    assert len(found.reasons) == 32
    assert len(found.obligations) == OBLIGATIONS


@pytest.mark.parametrize(
    ("obligations", "honours", "unknown"),
    [
        ((), (), None),
        (({"type": "show_reasons"},), (), None),
        (({"type": "show_reasons"}, {"type": "mask", "fields": ["iban"]}), ("mask",), None),
        (({"type": "show_reasons"}, {"type": "mask"}), (), "mask"),
        (({"type": "mask"},), ("masks", "mas", "Mask"), "mask"),
        (({"type": "Show_reasons"},), (), "Show_reasons"),
        (({"kind": "mask"},), ("mask", ""), ""),
        (({"type": ""},), ("",), ""),
        (({"type": ["mask"]},), ("mask",), ""),
        (({"type": "mask"}, {"type": "log"}), ("mask",), "log"),
    ],
)
def test_what_is_not_declared_is_not_understood(
    obligations: tuple[dict[str, object], ...], honours: tuple[str, ...], unknown: str | None
) -> None:
    assert unknown_obligation(obligations, frozenset(honours)) == unknown


def test_reasons_are_shown_where_one_of_the_obligations_says_so() -> None:
    assert shows_reasons([{"type": "audit"}, {"type": "show_reasons"}])
    assert not shows_reasons([{"type": "audit"}, {"show_reasons": True}])
    assert not shows_reasons([])


def denial(*obligations: object, allow: bool = False) -> Decision:
    answer = {"allow": allow, "reasons": [], "obligations": list(obligations), "policy": "p"}
    return parse_decision(answer, revision="r", engine="e", micros=0)


def test_remedies_are_those_of_a_denial_in_their_order_and_valid() -> None:
    said = denial(
        {"type": "remedy", "kind": "ask", "whom": "Bob"},
        {"type": "show_reasons"},
        {"type": "remedy", "kind": "bribe"},
        {"type": ["remedy"], "kind": "login"},
        {"kind": "login"},
        {"type": "remedy", "kind": "login", "max_age": 300},
    )
    assert remedies(said) == (
        Remedy(kind=RemedyKind.ASK, whom="Bob"),
        Remedy(kind=RemedyKind.LOGIN, max_age=300),
    )


def test_an_allow_has_no_remedies_and_needs_a_handler_that_honours_one() -> None:
    said = denial({"type": "remedy", "kind": "login"}, allow=True)
    assert remedies(said) == ()
    assert unknown_obligation(said.obligations, frozenset()) == "remedy"
