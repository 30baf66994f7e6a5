"""What JetStream says about a delivery in its reply subject, the one that acknowledgements go to.

::

    $JS.ACK.<stream>.<consumer>.<counts>                           9 tokens
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<counts>[.<any>]       11 or 12
    <counts>: <delivered>.<stream sequence>.<consumer sequence>.<stored, ns>.<pending>
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AckSubject", "AckSubjects"]


class AckSubject(NamedTuple):
    """One delivery as the broker counts it. `stored` is microseconds, truncated; `pending` counts what comes after."""

    delivered: int
    sequence: int
    consumer_sequence: int
    stored: int
    pending: int


class AckSubjects:
    """Reads the acknowledgement subjects of one consumer of one stream."""

    def __init__(self, stream: str, consumer: str) -> None:
        self._owner = [stream.encode(), consumer.encode()]
        self._short = f"$JS.ACK.{stream}.{consumer}.".encode()

    def parse(self, reply: bytes) -> AckSubject | None:
        """Return what `reply` says, or `None` if it is not an acknowledgement subject of this consumer."""
        counts = reply[len(self._short) :].split(b".") if reply.startswith(self._short) else []
        if len(counts) != 5:
            tokens = reply.split(b".")
            if len(tokens) not in (11, 12) or tokens[:2] != [b"$JS", b"ACK"] or tokens[4:6] != self._owner:
                return None
            counts = tokens[6:11]
        try:
            delivered, sequence, consumer_sequence, stored, pending = map(int, counts)
        except ValueError:
            return None
        return AckSubject(delivered, sequence, consumer_sequence, stored // 1_000, pending)
