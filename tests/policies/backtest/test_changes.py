"""How a decision made now differs from the recorded one."""

from __future__ import annotations

import itertools

import pytest
from support.recorded import recorded

from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.backtest.recorded import RISKS, Change, Verdict, changes_of, verdict_of
from sealbus.policies.decision.decision import Decision
from sealbus.policies.decision.engine import Answer

FAILED = PolicyFailed("no decision")
CODES = {Verdict.ALLOW: None, Verdict.DENY: Code.DENIED, Verdict.ERROR: Code.POLICY_ERROR}


def decision(
    allow: bool = True, reasons: tuple[str, ...] = (), obligations: tuple[dict[str, object], ...] = ()
) -> Decision:
    return Decision(allow=allow, reasons=reasons, obligations=obligations, revision="r2", engine="embedded")


ANSWERS: dict[Verdict, Answer] = {
    Verdict.ALLOW: decision(), Verdict.DENY: decision(allow=False), Verdict.ERROR: FAILED,
}  # fmt: skip


@pytest.mark.parametrize(("then", "now"), list(itertools.product(Verdict, Verdict)))
def test_every_pair_of_verdicts_is_one_change_or_none(then: Verdict, now: Verdict) -> None:
    assert verdict_of(ANSWERS[now]) is now
    changes = changes_of(recorded(code=CODES[then]), ANSWERS[now])
    assert [str(change) for change in changes] == ([] if then is now else [f"{then}-to-{now}"])


def test_a_turned_verdict_is_one_change_whatever_changed_with_it() -> None:
    answer = decision(allow=False, reasons=("late",), obligations=({"log": True},))
    assert changes_of(recorded(), answer) == (Change.ALLOW_TO_DENY,)


def test_the_risks_are_what_was_not_handled_and_would_be() -> None:
    assert {Change.DENY_TO_ALLOW, Change.ERROR_TO_ALLOW} == RISKS
    assert list(Change)[:2] == [Change.DENY_TO_ALLOW, Change.ERROR_TO_ALLOW]


def test_reasons_are_compared_in_their_order() -> None:
    one = recorded(reasons=("a", "b"))
    assert changes_of(one, decision(reasons=("a", "b"))) == ()
    assert changes_of(one, decision(reasons=("b", "a"))) == (Change.REASONS,)
    assert changes_of(one, decision()) == (Change.REASONS,)


@pytest.mark.parametrize(
    ("text", "now", "changed"),
    [
        (b"", (), False),
        (b"[]", (), False),
        (b'[{"a":1,"b":"\xc3\xbc"}]', ({"b": "ü", "a": 1},), False),
        (b'[ {"b": "\\u00fc", "a": 1} ]', ({"b": "ü", "a": 1},), False),
        (b"", ({"a": 1},), True),
        (b'[{"a":1}]', (), True),
        (b'[{"a":true}]', ({"a": 1},), True),
        (b'[{"a":1},{"a":2}]', ({"a": 2}, {"a": 1}), True),
        (b'[{"a":1,"a":1}]', ({"a": 1},), True),
        (b'[],"x":[]', (), True),
        (b"[" * 60_000, (), True),
        (b'[{"a":' + b"9" * 60_000 + b"}]", (), True),
        (b"\xff", (), True),
        (b"[1e999]", (), True),
        (b'["\\ud800"]', (), True),
    ],
)
def test_obligations_are_compared_as_values(text: bytes, now: tuple[dict[str, object], ...], changed: bool) -> None:
    expected = (Change.OBLIGATIONS,) if changed else ()
    assert changes_of(recorded(obligations=text), decision(obligations=now)) == expected


def test_both_may_change() -> None:
    changes = changes_of(recorded(), decision(reasons=("r",), obligations=({"log": True},)))
    assert changes == (Change.REASONS, Change.OBLIGATIONS)


WATERMARK: dict[str, object] = {"type": "watermark"}
OBLIGED = b'[{"type":"watermark"}]'


@pytest.mark.parametrize(
    ("obligations", "answer", "changes"),
    [
        (OBLIGED, decision(obligations=(WATERMARK,)), ()),
        (b'[ {"type": "watermark"} ]', decision(obligations=(WATERMARK,)), ()),
        (OBLIGED, decision(reasons=("late",), obligations=(WATERMARK,)), (Change.REASONS,)),
        (OBLIGED, decision(), (Change.DENY_TO_ALLOW,)),
        (OBLIGED, decision(obligations=({"type": "mask"},)), (Change.DENY_TO_ALLOW,)),
        (OBLIGED, decision(allow=False, obligations=(WATERMARK,)), (Change.ALLOW_TO_DENY,)),
        (OBLIGED, FAILED, (Change.ALLOW_TO_ERROR,)),
        # Whoever recorded it so did not tell the truth: all understand that one.
        (b'[{"type":"show_reasons"}]', decision(obligations=({"type": "show_reasons"},)), (Change.DENY_TO_ALLOW,)),
    ],
)
def test_an_obligation_that_nobody_understood_agrees_with_the_allow_that_has_it(
    obligations: bytes, answer: Answer, changes: tuple[Change, ...]
) -> None:
    assert changes_of(recorded(code=Code.OBLIGATION_UNKNOWN, obligations=obligations), answer) == changes
