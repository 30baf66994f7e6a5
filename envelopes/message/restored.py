"""Streams that were restored from a backup: which stream a message was first stored in (step 6, SPEC.md section 7).

A restored stream is created anew, and is younger than what it holds. A notary names it by the time of that creation, and says
from which stream its messages are. Only these messages are measured by that stream; whatever was stored since is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sealbus.envelopes.errors import Code, LogError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.trust.names import is_token


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredStream:
    """One restoration of one stream. Raises `LogError` (`bad_note`) for values that none can have.

    `before` is when the stream was created that the backup was taken of, `created` when the restored one was; `last` is the
    last sequence that was restored. Times are microseconds.
    """

    stream: str
    before: int
    created: int
    last: int

    def __post_init__(self) -> None:
        if not is_token(self.stream) or len(self.stream) > DEFAULT_LIMITS.subject_bytes:
            raise LogError(Code.BAD_NOTE, "a stream's name")
        # A chain of restorations leads back in time, so that it ends.
        if not 0 <= self.before < self.created <= DEFAULT_LIMITS.max_integer:
            raise LogError(Code.BAD_NOTE, "when a stream was created")
        if not 0 <= self.last <= DEFAULT_LIMITS.max_integer:
            raise LogError(Code.BAD_NOTE, "a stream's last sequence")

    @property
    def line(self) -> str:
        """Its line in a note and in a key book: name, `before`, `created`, `last`."""
        return f"{self.stream} {self.before} {self.created} {self.last}"


def first_created(arrival: StreamArrival, restored: Sequence[RestoredStream]) -> int:
    """Return when the stream was created that the message was first stored in, in microseconds.

    `restored` are the restorations that are known. Each counts for the stream with exactly its `created`, and there for what
    is at or below its `last` and was stored before that creation: nobody can store that now. Several form a chain.
    """
    created = arrival.created
    while arrival.stored < created:
        before = next(
            (
                restoration.before
                for restoration in restored
                if restoration.stream == arrival.stream
                and restoration.created == created
                and arrival.sequence <= restoration.last
            ),
            None,
        )
        if before is None:
            break
        created = before
    return created
