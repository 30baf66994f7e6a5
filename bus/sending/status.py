"""The body of a status, the state of one task: encoded and parsed (SPEC.md section 7, "Statuses").

Pure. The body of a completed status is the handler's result; every other status is a small JSON object. Parse a status only
after its writer was verified; its form is checked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypedDict

from sealbus.bus.sending.message import Content
from sealbus.envelopes.denial import DENIERS, REMEDIES, Denier, Explanation, Remedy, remedies_of, via_of
from sealbus.envelopes.encoding.codec import is_text
from sealbus.envelopes.encoding.strict_json import Json, parse_object
from sealbus.envelopes.errors import CODE_FORM, BadBody, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.trust.spiffe_id import SpiffeId

STATUS_TYPE: Final = "application/vnd.sealbus.status.v1+json"
"""Media type of every status but a completed one, which has the result's type."""

PART_NUMBER: Final = "_prt"
"""The mark of a part of a result, in its header: its number, from 0 (SPEC.md section 3)."""

PER_DELIVERY: Final = 65_536
"""Sequence numbers for the statuses of one delivery of a task. Statuses of a later delivery have higher numbers."""

NOTE_BYTES: Final = 256
"""Most UTF-8 bytes of a note, which is a line for a person."""

BODY_BYTES: Final = 65_536
"""Most bytes of a status body that is no result: more than all its bounded texts take, escaped."""

_NESTING: Final = 3
_DELIVERIES: Final = 2**16
"""Deliveries with their own sequence numbers: `seq` is under 2^32."""

_KEYS: Final = frozenset({"state", "code", "reasons", "note", "remedy", "via", "by"})


class State(StrEnum):
    """The state of a task."""

    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"


class StatusDetails(TypedDict, total=False):
    """The fields of a status beside its state, each of which may be left out."""

    code: str
    explanation: Explanation
    note: str
    result: Content | None
    by: SpiffeId | None


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.REJECTED, State.CANCELED, State.EXPIRED})
"""States that a task does not leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One status of a task. Raises `ValueError` for an invalid one.

    `code` is the reason for the state, if it has one: a `Code`, or one of a newer writer. `reasons`, `remedies` and `via`
    explain a denial (`Explanation`), and are empty unless the policy allows showing them. Only a completed task has a
    `result`; while it works, a status may be a `part` of the result, with its `number`. `sequence` orders the statuses of
    one task, and is 0 for a status that the requester concluded by itself.
    """

    state: State
    code: str = ""
    reasons: tuple[str, ...] = ()
    note: str = ""
    remedies: tuple[Remedy, ...] = ()
    via: tuple[Denier, ...] = ()
    result: Content | None = field(default=None, repr=False)
    part: Content | None = field(default=None, repr=False)
    number: int = 0
    by: SpiffeId | None = None
    """The ID that canceled the task, as its agent says; only of a canceled task."""
    sequence: int = 0

    def __post_init__(self) -> None:
        if (self.state is State.COMPLETED) != (self.result is not None):
            raise ValueError("a completed status, and no other, has a result")
        if self.result is not None and (self.code or self.note or any(self.explanation)):
            raise ValueError("a completed status has nothing but its result")
        if STATUS_TYPE in [content.typ for content in (self.result, self.part) if content is not None]:
            raise ValueError("a result cannot have the media type of a status")
        if self.part is not None and (
            self.state is not State.WORKING or self.code or self.note or any(self.explanation) or self.number < 0
        ):
            raise ValueError("a part belongs to a task that works, and its status has no other members")
        if self.code and not CODE_FORM.fullmatch(self.code):
            raise ValueError("the code is malformed")
        if len(self.reasons) > DEFAULT_LIMITS.text_items or not all(is_text(reason) for reason in self.reasons):
            raise ValueError(f"reasons are at most {DEFAULT_LIMITS.text_items} short texts")
        if len(self.remedies) > REMEDIES or len(self.via) > DENIERS:
            raise ValueError(f"a status has at most {REMEDIES} remedies, and {DENIERS} that denied")
        if self.note and not is_text(self.note):
            raise ValueError(f"a note is a text of at most {NOTE_BYTES} bytes without control characters")
        if self.by is not None and self.state is not State.CANCELED:
            raise ValueError("only a canceled status says who canceled")
        if self.sequence < 0:
            raise ValueError("sequence must be 0 or more")

    @property
    def final(self) -> bool:
        """Whether the task stays in this state."""
        return self.state in FINAL

    @property
    def explanation(self) -> Explanation:
        """The explanation of a denial."""
        return Explanation(self.reasons, self.remedies, self.via)


def encode(status: Status) -> Content:
    """Return the body of `status` and its media type; the header's `fin` must be `status.final`."""
    if (content := status.result or status.part) is not None:
        return content
    members: dict[str, object] = {"state": status.state.value}
    if status.code:
        members["code"] = str(status.code)
    members |= status.explanation.members()
    if status.note:
        members["note"] = status.note
    if status.by is not None:
        members["by"] = status.by.value
    return Content.of_json(members, STATUS_TYPE)


def parse(body: bytes, typ: str, *, fin: bool, sequence: int, number: object = None) -> Status:
    """Parse the status in a verified message; raise `BadBody` for an invalid one, but leave out invalid remedies and `via`.

    `typ`, `fin` and `sequence` are the header's `typ`, `fin` and `seq`, `number` its mark of a part. `fin` must be set
    exactly on final states.
    """
    if typ != STATUS_TYPE:
        if not fin:
            if type(number) is not int or number < 0:
                raise BadBody("a result in a status that is not final, and no part of one")
            return Status(state=State.WORKING, part=Content(body=body, typ=typ), number=number, sequence=sequence)
        return Status(state=State.COMPLETED, result=Content(body=body, typ=typ), sequence=sequence)
    if len(body) > BODY_BYTES:
        raise BadBody("the status is too large")
    try:
        members = _members(body)
        status = Status(
            state=State(_text(members, "state")),
            code=_text(members, "code"),
            reasons=_texts(members.get("reasons", [])),
            note=_text(members, "note"),
            remedies=remedies_of(members.get("remedy")),
            via=via_of(members.get("via")),
            by=SpiffeId.parse(_text(members, "by")) if "by" in members else None,
            sequence=sequence,
        )
    except (ValueError, EnvelopeError) as error:
        raise BadBody("the status is not well-formed") from error
    if status.final != fin:
        raise BadBody("fin does not match the state")
    return status


def sequence_of(delivery: int, number: int) -> int:
    """Return the `seq` of status `number` (from 0) of one `delivery` (from 1) of a task."""
    if delivery < 1 or not 0 <= number < PER_DELIVERY:
        raise ValueError(f"deliveries count from 1, their statuses from 0 to below {PER_DELIVERY}")
    return (min(delivery, _DELIVERIES) - 1) * PER_DELIVERY + number


def _members(body: bytes) -> dict[str, Json]:
    members = parse_object(body, depth=_NESTING)
    if not members.keys() <= _KEYS:
        raise ValueError("unknown member")
    return members


def _text(members: dict[str, Json], name: str) -> str:
    value = members.get(name, "")
    if type(value) is not str:
        raise ValueError(f"{name} is not a text")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if type(value) is not list or not all(type(item) is str for item in value):
        raise ValueError("reasons are not texts")
    return tuple(str(item) for item in value)
