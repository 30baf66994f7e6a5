"""Streams that were restored from a backup: finds the stream that first stored a message (step 6, SPEC.md section 7).

A restored stream is younger than its messages, because a restore creates it again. A notary signs the new creation time and
that of the stream in the backup. Step 6 measures restored messages by the earlier creation, and later messages by the new
creation.
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
    """One restoration of one stream. Raises `LogError` (`bad_note`) for values that no restoration can have.

    `before` is the creation time of the stream in the backup, `created` that of the restored stream, both in microseconds.
    `last` is the last restored sequence.
    """

    stream: str
    before: int
    created: int
    last: int

    def __post_init__(self) -> None:
        if not is_token(self.stream) or len(self.stream) > DEFAULT_LIMITS.subject_bytes:
            raise LogError(Code.BAD_NOTE, "a stream's name")
        # `before` is earlier, so that a chain of restorations ends.
        if not 0 <= self.before < self.created <= DEFAULT_LIMITS.max_integer:
            raise LogError(Code.BAD_NOTE, "when a stream was created")
        if not 0 <= self.last <= DEFAULT_LIMITS.max_integer:
            raise LogError(Code.BAD_NOTE, "a stream's last sequence")

    @property
    def line(self) -> str:
        """The line of the restoration in a note and in a key book: name, `before`, `created`, `last`."""
        return f"{self.stream} {self.before} {self.created} {self.last}"


def first_created(arrival: StreamArrival, restored: Sequence[RestoredStream]) -> int:
    """Return the creation time, in microseconds, of the stream that first stored the message.

    `restored` are the known restorations. A restoration applies to the stream with exactly its `created`, and to messages at
    or below its `last` that were stored before that creation: no message can be stored in the past. Restorations can form a
    chain.
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
