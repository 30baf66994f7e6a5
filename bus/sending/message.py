"""A message before it has an id and times. The outbox seals it, and may seal it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.subjects import event_subject
from sealbus.envelopes.records.batch import AuditBatch, ClosedBatch
from sealbus.envelopes.records.body import AUDIT_MEDIA_TYPE
from sealbus.envelopes.records.record import Record

_new: Final = tuple.__new__
_PLACES: Final = {name: place for place, name in enumerate(Draft._fields)}


class OutgoingMessage(NamedTuple):
    """One message to be sealed, perhaps more than once: its draft, and how its times follow from the time of sealing.

    `life` is `exp - iat` in microseconds; `end_after`, if the kind has an end, is `end - iat`. `end_at` is the latest end,
    because a child must not outlive its parent, nor a chain its user context. `not_before` is the later of the parent's and
    the context's `iat`: a child older than its parent would be refused, and clocks of hosts may differ by a few seconds
    (SPEC.md section 3).
    """

    draft: Draft
    """The draft, without times. Only a decision on a call has an `id` (SPEC.md section 7), and is never sealed again."""
    life: int
    end_after: int | None = None
    end_at: int | None = None
    not_before: int = 0

    def __repr__(self) -> str:
        return f"OutgoingMessage({self.draft!r}, ...)"

    def with_entries(self, **entries: object) -> Self:
        """Return the same message with other entries of its draft. Raises `KeyError` for a name that drafts do not have."""
        values: list[object] = [*self.draft]
        for name, value in entries.items():
            values[_PLACES[name]] = value
        return _new(type(self), (_new(Draft, values), *self[1:]))

    def at(self, now: int, *, new_id: bytes) -> Draft:
        """Return the draft to seal at `now`, with `new_id` unless it has an id."""
        draft = self.draft
        iat = max(now, self.not_before)
        exp = iat + self.life
        end = None
        if self.end_after is not None:
            end = iat + self.end_after
            if self.end_at is not None:
                end = min(end, self.end_at)
            exp = min(exp, end)
        # In the order of the class, without `_replace`, which takes two more calls for every message.
        return _new(Draft, (*draft[:4], draft.id or new_id, iat, exp, end, *draft[8:]))


ERROR_TYPE: Final = "application/vnd.sealbus.error.v1+json"
"""Media type of the body of an error reply."""

RECORD_LIFE: Final = 3_600 * SECOND
EVENT_LIFE: Final = 3_600 * SECOND


def record_message(subject: str, closed: ClosedBatch, id_: bytes = b"") -> OutgoingMessage:
    """Return the message that carries the records of `closed` on `subject`; `id_` is the guard id of a decision on a call."""
    draft = Draft(kind=Kind.RECORD, to=subject, body=closed.body, typ=AUDIT_MEDIA_TYPE, dig=closed.dig, id=id_)
    return OutgoingMessage(draft, RECORD_LIFE)


def single_record(subject: str, record: Record) -> OutgoingMessage:
    """Return the message that carries `record` alone on `subject`. It has no evidence, so it is no decision."""
    batch = AuditBatch()
    batch.add(record.encode())
    return record_message(subject, batch.close())


def event_of(token: str, name: str, content: Mapping[str, object], about: Header | None) -> OutgoingMessage:
    """Return the event `name` of the agent with `token`, with JSON `content`, about the message with the header `about`."""
    draft = Draft(
        kind=Kind.EVENT,
        to=event_subject(token, name),
        body=json.dumps(content, separators=(",", ":")).encode(),
        typ="application/json",
        re=about.digest if about is not None else None,
        tid=about.tid if about is not None else None,
    )
    return OutgoingMessage(draft, EVENT_LIFE)


class Content(NamedTuple):
    """An encoded value that a handler returned: `typ` is the media type of `body`."""

    body: bytes
    typ: str

    @classmethod
    def of_json(cls, members: Mapping[str, object], typ: str) -> Self:
        """Return `members` as a JSON object of the media type `typ`."""
        return cls(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode(), typ)

    def __repr__(self) -> str:
        return f"Content(typ={self.typ!r}, ...)"
