"""The letter that an audit message is sealed from."""

from __future__ import annotations

from typing import Final

from sealbus.bus.letter import Letter
from sealbus.envelopes.audit_batch import ClosedBatch
from sealbus.envelopes.audit_body import AUDIT_MEDIA_TYPE
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.limits import SECOND

__all__ = ["record_letter"]

RECORD_LIFE: Final = 3_600 * SECOND


def record_letter(subject: str, closed: ClosedBatch, id_: bytes | None = None) -> Letter:
    """Return the letter for the records of `closed` on `subject`; `id_` is the guard id of a decision on a call."""
    return Letter(
        kind=Kind.RECORD,
        to=subject,
        life=RECORD_LIFE,
        body=closed.body,
        dig=closed.dig,
        typ=AUDIT_MEDIA_TYPE,
        id=id_,
    )
