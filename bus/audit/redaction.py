"""Selects what is recorded of a message with its decision: the input document, redacted if configured, and some bodies.

Redaction replaces parts of an input document with null, by JSON pointers (RFC 6901).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.errors import ConfigurationError
from sealbus.envelopes.export.approvals import covers_approvals
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.subjects import matches
from sealbus.envelopes.records.decision import RECORDED_BODY_BYTES, DecisionRecord
from sealbus.envelopes.trust.caches import BoundedMap

REMEMBERED: Final = 1_024
"""Subjects whose selection is cached. Reply subjects come and go, so the cache is bounded."""

_PATTERN: Final = re.compile(r"(?:(?:[^\s.*>]+|\*)\.)*(?:[^\s.*>]+|[*>])")

ALWAYS: Final = ("control.*.approve", "control.*.schedule")
"""Subjects whose bodies are always recorded: they are the evidence for what is done later because of them."""

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_CONTROL: Final = "control."
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}")


_USER: Final = ("context", "user", "id")


class _Selection(NamedTuple):
    """What is recorded of messages to one subject."""

    pointers: tuple[Pointer, ...]
    body: bool


class Recording:
    """Selects what is recorded, by the subject of the decided message.

    `pointers` has, by subject pattern, JSON pointers to the parts that are left out of input documents. If several patterns
    match a subject, the pointers of all apply. `bodies` are patterns of subjects whose bodies are recorded, besides
    `ALWAYS`. Raises `ConfigurationError` for an invalid pattern or pointer, for more pointers than one record can name, and
    for a pointer that would remove the approvals, which the log has to show.
    """

    def __init__(self, pointers: Mapping[str, Sequence[str]], bodies: Sequence[str] = ()) -> None:
        for pattern in (*pointers, *bodies):
            if _PATTERN.fullmatch(pattern) is None:
                raise ConfigurationError(f"{pattern!r} is not a subject pattern such as task.payroll.>")
        self._pointers = {pattern: tuple(map(Pointer, places)) for pattern, places in pointers.items()}
        texts = {pointer.text for pointers in self._pointers.values() for pointer in pointers}
        if any(map(covers_approvals, texts)):
            raise ConfigurationError("audit.redact: the approvals (/context/approvals) are always recorded")
        if len(texts) > DEFAULT_LIMITS.text_items:
            raise ConfigurationError(f"audit.redact: a record can name at most {DEFAULT_LIMITS.text_items} places")
        self._bodies = (*ALWAYS, *bodies)
        self._more = bool(pointers or bodies)
        self._remembered: BoundedMap[str, _Selection] = BoundedMap(REMEMBERED)

    def record(self, record: DecisionRecord, subject: str, body: bytes) -> DecisionRecord:
        """Return `record`, about a message to `subject` with `body`, as it is to be stored.

        A body over 65,536 bytes is left out. Raises `SealError` if the redacted input document is too long to be recorded:
        null may take more room than the part that it replaces.
        """
        if not self._more and not subject.startswith(_CONTROL):
            return record
        selection = self._selection(subject)
        if selection.body and len(body) <= RECORDED_BODY_BYTES:
            record = record._replace(body=body)
        if selection.pointers and record.input is not None:
            document, redacted = redact(record.input, selection.pointers)
            if redacted:
                record = record._replace(input=document, redacted=redacted)
        return record

    def shows_user(self, subject: str) -> bool:
        """Return whether records about messages to `subject` name the user; otherwise nothing else may name the user."""
        return not self._pointers or not any(pointer.covers(_USER) for pointer in self._selection(subject).pointers)

    def _selection(self, subject: str) -> _Selection:
        selection = self._remembered.get(subject)
        if selection is None:
            by_text = {
                pointer.text: pointer
                for pattern, pointers in self._pointers.items()
                if matches(pattern, subject)
                for pointer in pointers
            }
            body = any(matches(pattern, subject) for pattern in self._bodies)
            selection = _Selection(tuple(by_text.values()), body)
            self._remembered.put(subject, selection)
        return selection


DECISIONS_ALONE: Final = Recording({})
"""The whole input document is recorded, and no body but those of `ALWAYS`."""


class Pointer:
    """A JSON pointer to a part of a document. Raises `ConfigurationError` for any other text, or one over 256 bytes."""

    __slots__ = ("_steps", "text")

    def __init__(self, text: str) -> None:
        if _POINTER.fullmatch(text) is None or not is_text(text, DEFAULT_LIMITS.text_bytes):
            raise ConfigurationError(f"{text!r} is not a JSON pointer such as /action/properties/salary")
        self.text: Final = text
        # RFC 6901 section 4: ~1 first, or ~01 would become a slash.
        self._steps: Final = tuple(step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:])

    def __repr__(self) -> str:
        return f"Pointer({self.text!r})"

    def covers(self, way: Sequence[str]) -> bool:
        """Return whether this points to the part at `way`, or to a part that holds it."""
        return tuple(way[: len(self._steps)]) == self._steps

    def take_out(self, document: object) -> bool:
        """Replace the part of `document` with null; return whether it was there and not null."""
        *way, last = self._steps
        for step in way:
            document = _below(document, step)
        if _below(document, last) is None:
            return False
        if isinstance(document, list):
            document[int(last)] = None
        else:
            cast("dict[str, object]", document)[last] = None
        return True


def redact(document: bytes, pointers: Sequence[Pointer]) -> tuple[bytes, tuple[str, ...]]:
    """Return the input document with null in place of the parts, and the pointers that found a part.

    `document` was made by `input_document`. It is returned byte for byte if no pointer found anything.
    """
    value = json.loads(document)
    redacted = tuple(pointer.text for pointer in pointers if pointer.take_out(value))
    if not redacted:
        return document, ()
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), redacted


def _below(document: object, step: str) -> object:
    """Return the member or item `step` of `document`, or None if there is none."""
    if isinstance(document, dict):
        return document.get(step)
    if isinstance(document, list) and _INDEX.fullmatch(step) and int(step) < len(document):
        return document[int(step)]
    return None
