"""What JetStream says about a delivery in its reply subject, the one that acknowledgements go to.

::

    $JS.ACK.<stream>.<consumer>.<counts>                           9 tokens
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<counts>[.<any>]       11 or 12
    <counts>: <delivered>.<stream sequence>.<consumer sequence>.<stored, ns>.<pending>
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AckSubject", "parse_ack_subject"]


class AckSubject(NamedTuple):
    """One delivery as the broker counts it. `stored` is microseconds, truncated; `pending` counts what comes after."""

    stream: str
    consumer: str
    delivered: int
    sequence: int
    consumer_sequence: int
    stored: int
    pending: int


def parse_ack_subject(reply: bytes) -> AckSubject | None:
    """Return what `reply` says, or `None` if it is no acknowledgement subject."""
    tokens = reply.split(b".")
    count = len(tokens)
    if tokens[0] != b"$JS" or count not in (9, 11, 12) or tokens[1] != b"ACK":
        return None
    # Domain and account come first where they come at all.
    at = 2 if count == 9 else 4
    try:
        return AckSubject(
            tokens[at].decode(),
            tokens[at + 1].decode(),
            int(tokens[at + 2]),
            int(tokens[at + 3]),
            int(tokens[at + 4]),
            int(tokens[at + 5]) // 1_000,
            int(tokens[at + 6]),
        )
    except ValueError:
        return None
