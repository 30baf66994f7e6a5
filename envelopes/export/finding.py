"""Findings: the faults of a log or an export, each with its place, a stable code and a detail (SPEC.md section 14)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sealbus.envelopes.errors import EnvelopeError, LogError


class FindingCode(StrEnum):
    """The codes of an export's own faults. Other findings have the codes of envelopes and of the log."""

    MISSING_FILE = "missing_file"
    UNKNOWN_FILE = "unknown_file"
    LOST_RECORDS = "lost_records"
    """The restored stream no longer has messages that were logged. A restoration explains this."""
    ROLLED_BACK = "rolled_back"
    """A known checkpoint covers more entries than the export has."""
    NO_BUNDLE = "no_bundle"
    """The root leads to no trust bundle, so no message can be verified."""
    BAD_BUNDLE = "bad_bundle"
    """The notary recorded a bundle that breaks a rule of section 5; the previous one stays in force."""
    UNTRUSTED_BUNDLE = "untrusted_bundle"
    """Neither an earlier bundle nor the root vouches for a notary's bundle record."""
    NOT_THE_NOTARY = "not_the_notary"
    """Another sender made a record that only the notary may make."""
    WRONG_AUDIENCE = "wrong_audience"
    """The recorder of a decision is not the message's recipient."""
    BAD_POLICY = "bad_policy"
    """A policy bundle differs from the bundle that the notary's record names."""
    BAD_DECISION = "bad_decision"
    """A decision does not follow from its recorded input and policy."""
    BAD_APPROVAL = "bad_approval"
    """An allowed decision rests on an approval that the log does not show."""
    BAD_GRANT = "bad_grant"
    """A decision rests on a standing grant of an absent user that the log does not show."""


class Finding(NamedTuple):
    """A finding. `file` is a path in the export, or empty; `sequence` is a sequence of the stream, or 0.

    `detail` names a field or a rule and shows no content.
    """

    file: str
    sequence: int
    code: str
    detail: str = ""

    @property
    def place(self) -> str:
        """The file, or `#` with the sequence."""
        return self.file or f"#{self.sequence}"


def of_file(file: str, code: str, detail: str = "") -> Finding:
    """Return a finding about a file."""
    return Finding(file, 0, str(code), detail)


def of_sequence(sequence: int, error: EnvelopeError | LogError) -> Finding:
    """Return a finding about the message at `sequence`."""
    step = f"step {error.step}: " if isinstance(error, EnvelopeError) else ""
    return Finding("", sequence, str(error.code), f"{step}{error.detail}".removesuffix(": "))
