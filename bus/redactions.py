"""What is taken out of input documents before they are recorded, by the subject of the decided message."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from sealbus.bus.matching import matches
from sealbus.envelopes.decision_record import DecisionRecord
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.policies.redaction import Pointer, redact

__all__ = ["NO_REDACTIONS", "Redactions"]

REMEMBERED: Final = 1_024
"""Subjects whose pointers are remembered: those of replies come and go."""


_PATTERN: Final = re.compile(r"(?:(?:[^\s.*>]+|\*)\.)*(?:[^\s.*>]+|[*>])")


class Redactions:
    """JSON pointers by NATS subject pattern. A subject that several patterns match has the pointers of all.

    Raises `ConfigurationError` for what is no pattern or no pointer, and for more pointers than one record can name.
    """

    def __init__(self, pointers: Mapping[str, Sequence[str]]) -> None:
        self._by_pattern: dict[str, tuple[Pointer, ...]] = {}
        for pattern, texts in pointers.items():
            if _PATTERN.fullmatch(pattern) is None:
                raise ConfigurationError(f"{pattern!r} is not a subject pattern such as task.payroll.>")
            self._by_pattern[pattern] = tuple(Pointer(text) for text in texts)
        if len({one.text for several in self._by_pattern.values() for one in several}) > DEFAULT_LIMITS.text_items:
            raise ConfigurationError(f"audit.redact: a record can name {DEFAULT_LIMITS.text_items} places, and no more")
        self._remembered: dict[str, tuple[Pointer, ...]] = {}

    def record(self, record: DecisionRecord, subject: str) -> DecisionRecord:
        """Return `record`, about a message to `subject`, without what is not to be recorded of its input.

        Raises `SealError` where it is too long then to be recorded: null may take more room than what it replaces.
        """
        pointers = self._of(subject) if self._by_pattern else ()
        if not pointers or record.input is None:
            return record
        document, redacted = redact(record.input, pointers)
        return record._replace(input=document, redacted=redacted) if redacted else record

    def _of(self, subject: str) -> tuple[Pointer, ...]:
        found = self._remembered.get(subject)
        if found is None:
            by_text = {
                pointer.text: pointer
                for pattern, pointers in self._by_pattern.items()
                if matches(pattern, subject)
                for pointer in pointers
            }
            found = tuple(by_text.values())
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[subject] = found
        return found


NO_REDACTIONS: Final = Redactions({})
"""Everything that was decided on is recorded."""
