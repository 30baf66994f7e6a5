"""What has been answered to one request: the one state machine for replies, chunks and statuses (SPEC.md section 7).

Nothing here verifies anything. `counted` and `check` judge a header before the dear steps and change nothing; `take`
notes one that passed them all.
"""

from __future__ import annotations

from typing import Final

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.header import Header
from sealbus.envelopes.kinds import Kind
from sealbus.envelopes.pending import PendingRequest

__all__ = ["STATUSES", "OpenRequest"]

STATUSES: Final = 4_096
"""How many statuses of one request a reader counts that are not terminal: what it remembers is bounded."""


class OpenRequest:
    """A request while it is open: until its `end`, a reply or a `fin`, and never again afterwards."""

    __slots__ = ("_closed", "_counted", "_key", "_next", "pending")

    def __init__(self, pending: PendingRequest) -> None:
        self.pending: Final = pending
        self._closed = False
        self._key: bytes | None = None
        self._next = 0
        self._counted: set[int] = set()

    @property
    def closed(self) -> bool:
        """Whether the last answer has come."""
        return self._closed

    def expired(self, now: int) -> bool:
        """Say whether the requester itself concludes `expired`: `end` has come and the last answer has not.

        For a task, only once every status that was stored before `end` has been read.
        """
        return not self._closed and now >= self.pending.end

    def check_sender(self, header: Header) -> None:
        """Raise `EnvelopeError` (`unexpected_reply`, step 4) unless `header` is from who was asked.

        That replies answer calls and statuses answer tasks is seen by their subjects.
        """
        if header.iss != self.pending.aud:
            raise _unexpected("from another than was asked")

    def counted(self, header: Header) -> bool:
        """Say whether a status of this number has counted before, so that this one is ignored.

        That holds for every header seen before, also after the terminal one: a stream may deliver again.
        """
        return header.seq in self._counted

    def check(self, header: Header, *, reference: int) -> None:
        """Raise `EnvelopeError` (`unexpected_reply`, step 4) unless `header` may be what comes next.

        `reference` is now or, of a status, its stored time. Chunks have one key and numbers without gaps from 0.
        """
        if self._closed:
            raise _unexpected("closed")
        if reference >= self.pending.end:
            raise _unexpected("past its end")
        if header.kind is Kind.CHUNK:
            if header.seq != self._next:
                raise _unexpected("a gap, or a chunk again")
            if self._key is not None and header.key.raw != self._key:
                raise _unexpected("chunks of another key")
        elif header.kind is Kind.STATUS and not header.fin and len(self._counted) >= STATUSES:
            raise _unexpected("too many statuses")

    def take(self, header: Header) -> None:
        """Note an answer that `check` let pass and that passed all steps."""
        if header.kind is Kind.REPLY or header.fin:
            self._closed = True
        if header.kind is Kind.CHUNK:
            self._key = header.key.raw
            self._next += 1
        elif header.kind is Kind.STATUS and header.seq is not None:
            self._counted.add(header.seq)


def _unexpected(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.UNEXPECTED_REPLY, 4, detail)
