"""A message before it has an id and a time: what the outbox seals, and seals anew where that is allowed.

The letter that an audit message is sealed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import ExtValue
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft
from sealbus.envelopes.message.wire import Ancestor, Statement
from sealbus.envelopes.records.batch import ClosedBatch
from sealbus.envelopes.records.body import AUDIT_MEDIA_TYPE
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["Content", "OutgoingMessage", "record_letter"]


class OutgoingMessage(NamedTuple):
    """One message to be sealed. `life` is `exp - iat` in microseconds; `end_after`, where the kind has an end, `end - iat`.

    `end_at` bounds the end from above: a child may not outlive its parent, nor a chain its user context.
    `not_before` is the latest of the parent's and the context's `iat`: hosts may differ by a few seconds, and a child
    that were older than its parent would be refused (SPEC.md section 3).
    """

    kind: Kind
    to: str
    life: int
    body: bytes
    typ: str
    aud: SpiffeId | None = None
    end_after: int | None = None
    end_at: int | None = None
    not_before: int = 0
    sch: str | None = None
    statement: Statement | None = None
    ancestors: tuple[Ancestor, ...] = ()
    re: bytes | None = None
    rpl: str | None = None
    seq: int | None = None
    fin: bool = False
    grt: tuple[str, ...] | None = None
    idm: str | None = None
    tid: bytes | None = None
    ext: Mapping[str, ExtValue] | None = None
    dig: bytes | None = None
    id: bytes | None = None
    """Only a decision on a call brings its own id (the guard id of SPEC.md section 7); such a letter is never sealed anew."""

    def __repr__(self) -> str:
        return f"Letter(kind={self.kind!r}, to={self.to!r}, ...)"

    def draft(self, *, now: int, new_id: bytes) -> Draft:
        """Return what is sealed at `now` under `new_id`."""
        (
            kind, to, life, body, typ, aud, end_after, end_at, not_before, sch, statement, ancestors, re, rpl, seq, fin,
            grt, idm, tid, ext, dig, own_id,
        ) = self  # fmt: skip
        iat = max(now, not_before)
        exp = iat + life
        end = None
        if end_after is not None:
            end = iat + end_after
            if end_at is not None:
                end = min(end, end_at)
            exp = min(exp, end)
        return Draft(
            kind, own_id or new_id, to, iat, exp, body, typ, aud, end, sch, statement, ancestors, re, rpl, seq, fin, grt,
            idm, tid, ext, dig,
        )  # fmt: skip


RECORD_LIFE: Final = 3_600 * SECOND


def record_letter(subject: str, closed: ClosedBatch, id_: bytes | None = None) -> OutgoingMessage:
    """Return the letter for the records of `closed` on `subject`; `id_` is the guard id of a decision on a call."""
    return OutgoingMessage(
        kind=Kind.RECORD,
        to=subject,
        life=RECORD_LIFE,
        body=closed.body,
        dig=closed.dig,
        typ=AUDIT_MEDIA_TYPE,
        id=id_,
    )


class Content(NamedTuple):
    """What a handler gave back, encoded: `typ` is the media type of `body`."""

    body: bytes
    typ: str

    def __repr__(self) -> str:
        return f"Answer(typ={self.typ!r}, ...)"
