"""Findings: where, what, and in few words."""

from __future__ import annotations

from sealbus.envelopes.errors import Code, EnvelopeError, LogError
from sealbus.envelopes.export.finding import Finding, FindingCode, of_file, of_sequence


def test_a_file() -> None:
    finding = of_file("messages/000", FindingCode.MISSING_FILE)
    assert finding == Finding("messages/000", 0, "missing_file", "")
    assert finding.place == "messages/000"


def test_a_message_that_does_not_open() -> None:
    finding = of_sequence(7, EnvelopeError(Code.BAD_DIGEST, 9, "body"))
    assert finding == Finding("", 7, "bad_digest", "step 9: body")
    assert finding.place == "#7"
    assert of_sequence(7, EnvelopeError(Code.BAD_DIGEST, 9)).detail == "step 9"


def test_an_entry_that_is_none() -> None:
    assert of_sequence(0, LogError(Code.BAD_ENTRY, "count")) == Finding("", 0, "bad_entry", "count")
