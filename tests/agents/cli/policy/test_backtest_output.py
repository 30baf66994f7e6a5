"""What a backtest prints, and what it exits with."""

from __future__ import annotations

import json

import pytest
from support.recorded import recorded

from sealbus.agents.cli.output import print_json
from sealbus.agents.cli.policy.backtest_run import BacktestResult, as_document, print_result
from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.backtest.report import BacktestReport
from sealbus.policies.decision.decision import Decision

ALLOW = Decision(allow=True, revision="r2", engine="embedded", micros=30)


def result(
    *, own_policies: bool = False, findings: int = 0, limits: tuple[tuple[str, int], ...] = ()
) -> BacktestResult:
    report = BacktestReport()
    for one, answer in (
        (recorded(code=Code.DENIED, reasons=("late",)), ALLOW),
        (recorded(), PolicyFailed("allow is not a boolean")),
        (recorded(), ALLOW),
    ):
        report.count(one)
        report.compare(one, answer)
    report.count(recorded(code=Code.BAD_BODY))
    return BacktestResult(
        report=report, revision="r2", engine="embedded", own_policies=own_policies, findings=findings, limits=limits
    )


def test_json_is_one_object_with_the_risk_first() -> None:
    document = json.loads(json.dumps(as_document(result(limits=(("deny-to-allow", 0), ("errors", 1))))))
    assert {next(iter(document[part])) for part in ("changes", "groups", "samples")} == {"deny-to-allow"}
    assert (document["read"], document["compared"], document["same"]) == (4, 3, 1)
    assert document["not_replayable"] == {"not_asked": 1}
    assert document["groups"]["deny-to-allow"]["action"] == [{"value": "yes", "count": 1}]
    (sample,) = document["samples"]["deny-to-allow"]
    assert (sample["then"]["verdict"], sample["then"]["reasons"], sample["now"]["verdict"]) == (
        "deny",
        ["late"],
        "allow",
    )
    assert document["samples"]["allow-to-error"][0]["now"]["error"] == "allow is not a boolean"
    assert document["micros"]["now"] == {"count": 2, "mean": 30.0, "half_within": 31, "99_percent_within": 31}
    assert document["failed"] == ["deny-to-allow: 1, at most 0"]
    assert document["exit_code"] == 1


def test_people_see_the_risk_first(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result(findings=2, own_policies=True, limits=(("changed", 0),)))
    shown = capsys.readouterr()
    assert shown.out.index("deny-to-allow") < shown.out.index("allow-to-error") < shown.out.index("microseconds")
    assert "not replayable: not_asked" in shown.out
    assert "2 records do not verify" in shown.err
    assert "2 decisions do not follow" in shown.err
    assert "failed on changed: 2, at most 0" in shown.err


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (BacktestResult(), 0),
        (result(), 0),
        (result(limits=(("changed", 2),)), 0),
        (result(limits=(("changed", 1),)), 1),
        (BacktestResult(report=BacktestReport(unanswered=1)), 1),
        (BacktestResult(findings=1), 4),
        (BacktestResult(findings=1, limits=(("changed", 0),)), 4),
        (result(own_policies=True), 4),
        (BacktestResult(own_policies=True), 0),
    ],
)
def test_the_exit_code_says_the_worst(one: BacktestResult, code: int) -> None:
    assert one.exit_code == code


def test_an_engine_that_left_questions_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(BacktestResult(report=BacktestReport(unanswered=3)))
    shown = capsys.readouterr()
    assert "unanswered" in shown.out
    assert "3 questions were not answered" in shown.err


def test_what_somebody_recorded_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = {"resource": {"type": "[/x]", "id": "\x1b[2J"}, "context": {"user": {"id": "[bold]\u202e\ud800"}}}
    one = recorded(input=json.dumps(hostile).encode(), caller="c", obligations=b"\xff\x1b[31m")
    report = BacktestReport()
    report.compare(one, Decision(allow=False, revision="r2", engine="embedded"))
    found = BacktestResult(report=report, revision="[/r]")
    print_result(found)
    shown = capsys.readouterr().out
    assert "[/x]" in shown
    assert "[bold]" in shown
    assert not {"\x1b", "\u202e", "\ud800"} & set(shown)
    print_json(as_document(found))
    assert json.loads(capsys.readouterr().out)["groups"]["allow-to-deny"]["user"][0]["value"] == "[bold]\u202e\ud800"
