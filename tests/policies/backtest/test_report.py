"""Counts, groups and samples of a backtest; none of them grows with the log."""

from __future__ import annotations

import json

import pytest
from support.policies import document
from support.recorded import PLANNER, recorded

from sealbus.envelopes.errors import Code, PolicyFailed
from sealbus.policies.backtest.recorded import Change, CountedDenials, NotReplayable, Verdict
from sealbus.policies.backtest.report import ENGINES, GROUPS, OTHERS, SAMPLES, BacktestReport, Dimension
from sealbus.policies.decision.decision import Decision

ALLOW = Decision(allow=True, revision="r2", engine="embedded", micros=30)
DENY = Decision(allow=False, reasons=("late",), obligations=({"log": True},), revision="r2", engine="embedded")


def test_what_can_be_asked_is_a_document_and_the_rest_is_counted_by_why() -> None:
    report = BacktestReport()
    assert report.count(recorded()) == document()
    assert report.count(recorded(code=Code.BAD_BODY)) is None
    assert report.count(recorded(redacted=True)) is None
    assert report.count(CountedDenials(caller=PLANNER, count=40)) is None
    assert report.read == 43
    assert report.not_replayable == {
        NotReplayable.NOT_ASKED: 1, NotReplayable.REDACTED: 1, NotReplayable.COUNTED: 40,
    }  # fmt: skip
    assert report.counted()["not-replayable"] == 42


def test_what_is_the_same_is_only_counted() -> None:
    report = BacktestReport()
    report.compare(recorded(), ALLOW)
    assert (report.compared, report.same, report.differing, report.groups, report.samples) == (1, 1, 0, {}, {})


def test_a_change_is_counted_grouped_and_shown() -> None:
    report = BacktestReport()
    report.compare(recorded(), DENY)
    assert report.changes == {Change.ALLOW_TO_DENY: 1}
    assert report.groups[Change.ALLOW_TO_DENY] == {
        Dimension.CALLER: {PLANNER: 1}, Dimension.ACTION: {"yes": 1}, Dimension.RESOURCE_TYPE: {"item": 1},
        Dimension.USER: {"": 1},
    }  # fmt: skip
    (sample,) = report.samples[Change.ALLOW_TO_DENY]
    assert (sample.resource, sample.user, sample.verdict, sample.reasons) == ("item:42", "", Verdict.DENY, ("late",))
    assert (sample.obligations, sample.error) == (b'[{"log":true}]', "")


def test_an_error_is_shown_with_its_text() -> None:
    report = BacktestReport()
    report.compare(recorded(), PolicyFailed("allow is not a boolean"))
    (sample,) = report.samples[Change.ALLOW_TO_ERROR]
    assert (sample.verdict, sample.error) == (Verdict.ERROR, "allow is not a boolean")
    assert report.counted()["errors"] == 1
    assert report.latency.count == 0


def test_risks_are_what_would_be_handled_now() -> None:
    report = BacktestReport()
    report.compare(recorded(code=Code.DENIED), ALLOW)
    report.compare(recorded(code=Code.POLICY_ERROR), ALLOW)
    report.compare(recorded(), DENY)
    assert (report.risks, report.differing) == (2, 3)
    assert (report.counted()["risks"], report.counted()["changed"]) == (2, 3)


def test_an_input_that_no_engine_would_take_contradicts_its_record() -> None:
    report = BacktestReport()
    report.count(recorded(input=b"[]"))
    report.count(recorded(redacted=True))
    assert report.contradictions == 1
    report.compare(recorded(), DENY)
    assert report.contradictions == 2


@pytest.mark.parametrize(
    ("document", "resource", "user"),
    [
        (b"{}", ":", ""),
        (b'{"resource":[],"context":"x"}', ":", ""),
        (b'{"resource":{"type":1,"id":null},"context":{"user":{"id":["u"]}}}', ":", ""),
        (json.dumps({"resource": {"type": "t" * 999, "id": "i"}}).encode(), "t" * 256 + ":i", ""),
        (b'{"context":{"user":{"id":"alice"}}}', ":", "alice"),
    ],
)
def test_a_strange_document_has_empty_groups(document: bytes, resource: str, user: str) -> None:
    report = BacktestReport()
    report.compare(recorded(input=document), DENY)
    (sample,) = report.samples[Change.ALLOW_TO_DENY]
    assert (sample.resource, sample.user) == (resource, user)


def test_groups_samples_and_engines_are_bounded() -> None:
    report = BacktestReport()
    for number in range(GROUPS + 50):
        report.compare(recorded(f"a.{number}", input=b"{}", engine=f"engine-{number}"), DENY)
    actions = report.groups[Change.ALLOW_TO_DENY][Dimension.ACTION]
    assert len(actions) == GROUPS + 1
    assert actions[OTHERS] == 50
    assert actions.total() == GROUPS + 50
    assert len(report.samples[Change.ALLOW_TO_DENY]) == SAMPLES
    assert len(report.recorded_latency) == ENGINES + 1
    assert report.recorded_latency[OTHERS].count == GROUPS + 50 - ENGINES


def test_times_are_kept_by_engine() -> None:
    report = BacktestReport()
    report.compare(recorded(micros=10), ALLOW)
    report.compare(recorded(micros=500, engine="sidecar"), ALLOW)
    report.compare(recorded(micros=None), ALLOW)
    assert {name: one.mean for name, one in report.recorded_latency.items()} == {"embedded": 10.0, "sidecar": 500.0}
    assert (report.latency.count, report.latency.mean) == (3, 30.0)


def test_every_count_has_a_name() -> None:
    report = BacktestReport(unanswered=2)
    report.compare(recorded(code=Code.DENIED), ALLOW)
    counted = report.counted()
    assert counted["deny-to-allow"] == counted["changed"] == 1
    assert counted["unanswered"] == 2
    assert {str(change) for change in Change} < set(counted)
