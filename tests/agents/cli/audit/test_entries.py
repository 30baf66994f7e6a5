"""What `sealbus audit` prints of each kind of entry, and which entries a filter wants."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sealbus.agents.cli.audit.entries import as_document, as_line, print_entry
from sealbus.bus.audit.trail import AuditEntry, AuditFilter
from sealbus.envelopes.errors import Code
from sealbus.envelopes.records.decision import CorePlace, DecisionRecord
from sealbus.envelopes.records.work import MINUTE, READ_AGAIN, DenialsRecord, OutcomeRecord
from sealbus.envelopes.trust.proof import Proof
from sealbus.envelopes.trust.spiffe_id import SpiffeId

RECORDER = SpiffeId("spiffe://example.org/agent/inventory")
DENIALS = AuditEntry(
    sequence=7,
    stored=1_000_000 * MINUTE + 5,
    recorder=RECORDER,
    leaf=b"\x01" * 32,
    record=DenialsRecord(
        iss=SpiffeId("spiffe://example.org/agent/flood"),
        minute=999_999 * MINUTE,
        counts={Code.DENIED: 41, Code.BAD_BODY: 1},
    ),
)


def test_denials_show_who_when_and_how_many_by_code() -> None:
    assert as_document(DENIALS) == {
        "kind": "denials",
        "sequence": 7,
        "time": "1971-11-26T10:40:00.000Z",
        "recorder": str(RECORDER),
        "record": "01" * 32,
        "from": "spiffe://example.org/agent/flood",
        "minute": "1971-11-26T10:39:00.000Z",
        "counts": {"bad_body": 1, "denied": 41},
    }
    line = as_line(DENIALS)
    for part in ("#7", "DENY", "41 denied", "1 bad_body", "/agent/flood", "10:39:00"):
        assert part in line


READS = replace(DENIALS, record=DenialsRecord(iss=RECORDER, minute=999_999 * MINUTE, counts={READ_AGAIN: 300}))


def test_what_was_read_again_was_allowed() -> None:
    line = as_line(READS)
    assert "DENY" not in line
    for part in ("#7", "ALLOW", "300 read_again", "/agent/inventory", "10:39:00"):
        assert part in line


@pytest.mark.parametrize(("decision", "shown"), [(None, True), ("allow", True), ("deny", False)])
def test_what_was_read_again_is_not_among_what_was_denied(decision: str | None, shown: bool) -> None:
    assert AuditFilter(decision=decision).matcher()(READS) is shown


def test_an_outcome_without_its_decision_stands_alone() -> None:
    record = OutcomeRecord.of(decision=b"\x02" * 32, code=Code.HANDLER_FAILED, micros=1_500, delivery=1)
    entry = AuditEntry(sequence=8, stored=0, recorder=RECORDER, leaf=b"\x03" * 32, record=record)
    assert as_document(entry)["code"] == "handler_failed"
    assert "handler_failed" in as_line(entry)
    assert "1.5 ms" in as_line(entry)


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        (AuditFilter(), True),
        (AuditFilter(decision="deny"), True),
        (AuditFilter(decision="allow"), False),
        (AuditFilter(agent="inventory"), True),
        (AuditFilter(agent="pricing"), False),
        (AuditFilter(user="alice"), False),
        (AuditFilter(subject="task.inventory.update"), False),
        (AuditFilter(until=1_000_000 * MINUTE), False),
    ],
)
def test_denials_are_among_what_was_denied(wanted: AuditFilter, shown: bool) -> None:
    assert wanted.matcher()(DENIALS) is shown


def test_a_recorded_text_cannot_forge_a_line_or_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    decision = DecisionRecord(
        header=b"\x80", proof=Proof(1, 0, (), b"s" * 64), action="a.b", place=CorePlace(opened=5), delivery=1,
        allow=False, code=Code.POLICY_ERROR,
        input=json.dumps({"context": {"user": {"id": "alice\n2026 #9 ALLOW\x1b[2J\ud800"}}}).encode(),
    )  # fmt: skip
    entry = AuditEntry(sequence=8, stored=0, recorder=RECORDER, leaf=b"l", record=decision)
    for as_json in (False, True):
        assert print_entry(entry, as_json=as_json) == 0
        shown = capsys.readouterr().out
        assert shown.count("\n") == 1
        assert "\x1b" not in shown


def test_a_decision_shows_what_the_policy_obliged_to() -> None:
    obligations = b'[{"kind":"login","type":"remedy"}]'
    decision = DecisionRecord(
        header=b"\x80", proof=Proof(1, 0, (), b"s" * 64), action="a.b", place=CorePlace(opened=5), delivery=1,
        allow=False, code=Code.DENIED, input=b"{}", obligations=obligations, policy="p", revision="r", engine="e", micros=1,
    )  # fmt: skip
    entry = AuditEntry(sequence=8, stored=0, recorder=RECORDER, leaf=b"l", record=decision)
    assert as_document(entry)["obligations"] == obligations.decode()
