"""Findings: what a verifier found wrong with a log or an export: where, a stable code, and a detail (SPEC.md section 14)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sealbus.envelopes.errors import EnvelopeError, LogError


class FindingCode(StrEnum):
    """The codes of an export's own faults; all other codes are those of envelopes and of the log."""

    MISSING_FILE = "missing_file"
    UNKNOWN_FILE = "unknown_file"
    LOST_RECORDS = "lost_records"
    """Messages that were logged, and that the restored stream no longer holds: an operator has said so."""
    ROLLED_BACK = "rolled_back"
    """A known checkpoint covers more entries than there are here."""
    NO_BUNDLE = "no_bundle"
    """No trust bundle that the root leads to: nothing can be verified."""
    BAD_BUNDLE = "bad_bundle"
    """The notary recorded a bundle that breaks a rule of section 5; the previous one stays in force."""
    UNTRUSTED_BUNDLE = "untrusted_bundle"
    """A notary's bundle record that neither an earlier bundle nor the root vouches for."""
    NOT_THE_NOTARY = "not_the_notary"
    """A record that counts only from the notary, by another sender."""
    WRONG_AUDIENCE = "wrong_audience"
    """A decision not recorded by the message's recipient."""
    BAD_POLICY = "bad_policy"
    """A policy bundle that is not the one that the notary's record names."""
    BAD_DECISION = "bad_decision"
    """A decision that does not follow from its recorded input and policy."""
    BAD_APPROVAL = "bad_approval"
    """An allowed decision that rests on an approval which the log does not show."""
    BAD_GRANT = "bad_grant"
    """A decision about what was done for a user who was away, and has not granted it as far as the log shows."""


class Finding(NamedTuple):
    """One finding. `file` is a path in the export, or empty; `sequence` is that of the stream, or 0.

    `detail` names a field or rule and holds no content.
    """

    file: str
    sequence: int
    code: str
    detail: str = ""

    @property
    def place(self) -> str:
        """The file, or `#` and the sequence."""
        return self.file or f"#{self.sequence}"


def of_file(file: str, code: str, detail: str = "") -> Finding:
    """Return a finding about a file."""
    return Finding(file, 0, str(code), detail)


def of_sequence(sequence: int, error: EnvelopeError | LogError) -> Finding:
    """Return a finding about the message of this sequence."""
    step = f"step {error.step}: " if isinstance(error, EnvelopeError) else ""
    return Finding("", sequence, str(error.code), f"{step}{error.detail}".removesuffix(": "))
