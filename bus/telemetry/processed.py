"""`ProcessedMessage`: what a span tells of a message that was opened, decided and recorded."""

from __future__ import annotations

from typing import NamedTuple

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.message.header import Header


class ProcessedMessage(NamedTuple):
    """A message that was opened, decided and recorded at these times, and the leaf of its record.

    The times are microseconds of one clock, which need not be the host's; it is recorded now.
    `place` is the stream and sequence of the record, if they are known, `approval` the header of the approval by which a
    parked task goes on.
    """

    message: VerifiedMessage
    action: str
    opened: int
    decided: int
    recorded: int
    verdict: str
    revision: str
    record: bytes = b""
    place: tuple[str, int] | None = None
    approval: Header | None = None
