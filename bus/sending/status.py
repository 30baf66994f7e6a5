"""What a status says: the state of one task, as bytes and back (SPEC.md section 7, "Statuses").

Pure. A completed task's status is the handler's result itself; every other one is a small JSON object. Whoever reads
one knows by then who wrote it, not that it is well-formed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sealbus.bus.sending.message import Content
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import CODE_FORM, BadBody
from sealbus.envelopes.limits import DEFAULT_LIMITS

__all__ = ["FINAL", "NOTE_BYTES", "PER_DELIVERY", "STATUS_TYPE", "State", "Status", "encode", "parse", "sequence_of"]

STATUS_TYPE: Final = "application/vnd.sealbus.status.v1+json"
"""Media type of every status but a completed one, whose type is its result's."""

PER_DELIVERY: Final = 65_536
"""Numbers that one delivery of a task has for its statuses, so that those of a later delivery count up."""

NOTE_BYTES: Final = 256
"""UTF-8 bytes of a note: a line for a person, not a result."""

BODY_BYTES: Final = 65_536
"""Bytes of a status body that is not a result: more than all its bounded texts can take, escaped."""

_NESTING: Final = 2
_DELIVERIES: Final = 2**16
"""Deliveries with numbers of their own: `seq` is under 2^32."""

_KEYS: Final = frozenset({"state", "code", "reasons", "note"})


class State(StrEnum):
    """Where a task is in its life."""

    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.REJECTED, State.CANCELED, State.EXPIRED})
"""States that a task does not leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One state of a task. Raises `ValueError` for what no status can be.

    `code` says why, for a state that has a reason: a `Code`, or a newer writer's. `reasons` are the policy's, and empty
    unless it lets them be shown. `result` is there for a completed task, and only then. `sequence` orders the statuses
    of one task; 0 for one that its requester concluded by itself.
    """

    state: State
    code: str = ""
    reasons: tuple[str, ...] = ()
    note: str = ""
    result: Content | None = field(default=None, repr=False)
    sequence: int = 0

    def __post_init__(self) -> None:
        if (self.state is State.COMPLETED) != (self.result is not None):
            raise ValueError("a completed status has a result, and no other has")
        if self.result is not None and (self.code or self.reasons or self.note):
            raise ValueError("a completed status has nothing beside its result")
        if self.result is not None and self.result.typ == STATUS_TYPE:
            raise ValueError("a result cannot have the media type of a status")
        if self.code and not CODE_FORM.fullmatch(self.code):
            raise ValueError("the code is not one")
        if len(self.reasons) > DEFAULT_LIMITS.text_items or not all(is_text(reason) for reason in self.reasons):
            raise ValueError(f"reasons are at most {DEFAULT_LIMITS.text_items} short texts")
        if self.note and not is_text(self.note):
            raise ValueError(f"a note is a text of at most {NOTE_BYTES} bytes without control characters")
        if self.sequence < 0:
            raise ValueError("sequence is 0 or more")

    @property
    def final(self) -> bool:
        """Whether the task stays in this state."""
        return self.state in FINAL


def encode(status: Status) -> Content:
    """Return the body of `status` and its media type; `fin` of the header is to be `status.final`."""
    if status.result is not None:
        return status.result
    said: dict[str, str | Sequence[str]] = {"state": status.state.value}
    if status.code:
        said["code"] = str(status.code)
    if status.reasons:
        said["reasons"] = list(status.reasons)
    if status.note:
        said["note"] = status.note
    return Content(body=json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode(), typ=STATUS_TYPE)


def parse(body: bytes, typ: str, *, fin: bool, sequence: int) -> Status:
    """Return the status that a verified message says; raise `BadBody` for one that no writer could mean.

    `typ`, `fin` and `sequence` are the header's `typ`, `fin` and `seq`. `fin` must stand exactly on final states.
    """
    if typ != STATUS_TYPE:
        if not fin:
            raise BadBody("a result whose status is not final")
        return Status(state=State.COMPLETED, result=Content(body=body, typ=typ), sequence=sequence)
    if len(body) > BODY_BYTES:
        raise BadBody("the status is too large")
    try:
        said = _members(body)
        status = Status(
            state=State(_text(said, "state")),
            code=_text(said, "code"),
            reasons=_texts(said.get("reasons", [])),
            note=_text(said, "note"),
            sequence=sequence,
        )
    except ValueError as error:
        raise BadBody("the status is not well-formed") from error
    if status.final != fin:
        raise BadBody("fin does not agree with the state")
    return status


def sequence_of(delivery: int, number: int) -> int:
    """Return the `seq` of status `number` (from 0) of one `delivery` (from 1) of a task."""
    if delivery < 1 or not 0 <= number < PER_DELIVERY:
        raise ValueError(f"deliveries count from 1, their statuses from 0 to under {PER_DELIVERY}")
    return (min(delivery, _DELIVERIES) - 1) * PER_DELIVERY + number


def _members(body: bytes) -> dict[str, Json]:
    said = parse_object(body, depth=_NESTING)
    if not said.keys() <= _KEYS:
        raise ValueError("unknown member")
    return said


def _text(said: dict[str, Json], name: str) -> str:
    value = said.get(name, "")
    if type(value) is not str:
        raise ValueError(f"{name} is not a text")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if type(value) is not list or not all(type(one) is str for one in value):
        raise ValueError("reasons are not texts")
    return tuple(str(one) for one in value)
