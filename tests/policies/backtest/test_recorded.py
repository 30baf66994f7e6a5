"""Which recorded decisions can be made again, and why the others cannot."""

from __future__ import annotations

import pytest
from support.recorded import recorded

from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.trust.proof import Proof
from sealbus.policies.backtest.recorded import NotReplayable, RecordedDecision, Verdict
from sealbus.policies.decision.documents import InputDocument

RECORD = DecisionRecord(
    header=b"\x80",
    proof=Proof(1, 0, (), b"s" * 64),
    action="inventory.update",
    place=CorePlace(opened=5),
    delivery=1,
    allow=True,
    input=b'{"v":1}',
    reasons=("owner",),
    obligations=b'[{"log":true}]',
    revision="r1",
    policy="starter",
    engine="embedded",
    micros=17,
)


def taken(record: DecisionRecord) -> RecordedDecision:
    return RecordedDecision.of(record, sequence=3, time=9, leaf=b"l", recorder="r", caller="c")


def test_a_record_gives_what_a_backtest_needs() -> None:
    one = taken(RECORD)
    assert (one.sequence, one.time, one.leaf, one.recorder, one.caller) == (3, 9, b"l", "r", "c")
    assert (one.action, one.code, one.input, one.redacted) == ("inventory.update", None, b'{"v":1}', False)
    assert (one.reasons, one.obligations, one.revision) == (("owner",), b'[{"log":true}]', "r1")
    assert (one.engine, one.micros) == ("embedded", 17)


def test_what_a_record_does_not_have_is_empty() -> None:
    none = RECORD._replace(
        allow=False, code=Code.POLICY_ERROR, input=None, reasons=(), obligations=b"", revision=None, policy=None,
        engine=None, micros=None,
    )  # fmt: skip
    one = taken(none)
    assert (one.revision, one.engine, one.micros) == ("", "", None)
    assert taken(RECORD._replace(redacted=("/v",))).redacted


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (None, Verdict.ALLOW),
        (Code.OBLIGATION_UNKNOWN, Verdict.ALLOW),
        (Code.DENIED, Verdict.DENY),
        ("of_a_newer_writer", Verdict.ERROR),
        (Code.POLICY_ERROR, Verdict.ERROR),
        (Code.BAD_BODY, Verdict.ERROR),
    ],
)
def test_the_verdict_is_what_the_policy_said(code: str | None, verdict: Verdict) -> None:
    assert recorded(code=code).verdict is verdict


@pytest.mark.parametrize("code", [None, Code.DENIED, Code.OBLIGATION_UNKNOWN, Code.POLICY_ERROR])
def test_what_the_policy_answered_can_be_asked_again(code: Code | None) -> None:
    question = recorded(code=code).question()
    assert isinstance(question, InputDocument)
    assert question == recorded().input


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (recorded(code=Code.BAD_BODY, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.BAD_BODY), NotReplayable.NOT_ASKED),
        (recorded(code=Code.RESOURCE_NOT_FOUND, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.RESOURCE_UNAVAILABLE, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.APPROVAL_SELF, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.APPROVAL_FOREIGN, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.APPROVAL_CLOSED, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.APPROVAL_REPEATED, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.APPROVAL_WEAK, input=None), NotReplayable.NOT_ASKED),
        (recorded(code=Code.DENIED, engine="revocations"), NotReplayable.NOT_ASKED),
        (recorded(code=Code.POLICY_UNAVAILABLE), NotReplayable.UNANSWERED),
        (recorded(code=Code.POLICY_UNAVAILABLE, input=None), NotReplayable.UNANSWERED),
        (recorded(code=Code.POLICY_ERROR, input=None), NotReplayable.NO_INPUT),
        (recorded(redacted=True), NotReplayable.REDACTED),
        (recorded(code=Code.DENIED, redacted=True), NotReplayable.REDACTED),
        (recorded(input=b"[" * 60_000), NotReplayable.BAD_INPUT),
        (recorded(input=b'{"a":' * 9_000 + b"1" + b"}" * 9_000), NotReplayable.BAD_INPUT),
        (recorded(input=b'{"a":' + b"9" * 60_000 + b"}"), NotReplayable.BAD_INPUT),
        (recorded(input=b'{"a":1e999999}'), NotReplayable.BAD_INPUT),
        (recorded(input=b'{"a":1,"a":2}'), NotReplayable.BAD_INPUT),
        (recorded(input=b'{"a":"\\ud800"}'), NotReplayable.BAD_INPUT),
        (recorded(input=b"[1]"), NotReplayable.BAD_INPUT),
        (recorded(input=b"\xff\xfe"), NotReplayable.BAD_INPUT),
    ],
)
def test_what_nobody_can_decide_again_says_why(one: RecordedDecision, why: NotReplayable) -> None:
    assert one.question() is why
