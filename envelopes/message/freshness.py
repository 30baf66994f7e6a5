"""Freshness and replay: steps 5 and 6 of the live profile (SPEC.md section 7).

The guard against replay needs no database. A message from a stream is accepted only if the broker stored it within a minute
of its `iat`, under the signed id. The broker drops a second copy within the stream's duplicate window. Step 6 refuses a copy
that was stored later.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.trust.caches import ReplayMemory

_SKEW: Final = DEFAULT_LIMITS.clock_skew
_STORED_WITHIN: Final = DEFAULT_LIMITS.stored_within
_START: Final = b"NATS/1.0\r\n"
_END: Final = b"\r\n\r\n"


# Named tuples: every message has one, and a frozen dataclass costs several times as much.


class StreamArrival(NamedTuple):
    """The delivery of a message from a stream, as the broker reports it. Times are microseconds since the Unix epoch."""

    subject: str
    header_block: bytes
    """The NATS headers exactly as received; empty if there are none."""
    stream: str
    sequence: int
    stored: int
    """The time at which the broker stored the message: the reference time."""
    created: int
    """The time at which the stream was created."""
    delivery: int
    """The number of this delivery, from 1."""
    cell: str = ""
    """The cell of the stream, if it is not the reader's own."""

    def __repr__(self) -> str:
        return f"StreamArrival(subject={self.subject!r}, stream={self.stream!r}, sequence={self.sequence}, ...)"


class CoreArrival(NamedTuple):
    """The delivery of a message over core NATS. Times are microseconds since the Unix epoch."""

    subject: str
    started: int
    """The time at which this process started. It does not know the messages that were accepted before."""
    audit_created: int
    """The time at which the audit stream was created. Its deduplication is the guard that replicas share."""


def check_times(header: Header, *, reference: int, now: int | None) -> None:
    """Step 5: raise `EnvelopeError` (`not_yet_valid`, `expired`) unless the message is valid at `reference` and `now`.

    `now` is None for a status, whose `exp` is not compared with the present.
    """
    if header.iat > reference + _SKEW:
        raise EnvelopeError(Code.NOT_YET_VALID, 5)
    if header.exp <= reference:
        raise EnvelopeError(Code.EXPIRED, 5, "at the reference time")
    if now is not None and header.exp <= now:
        raise EnvelopeError(Code.EXPIRED, 5, "now")


def check_header_block(block: bytes, identifier: bytes) -> None:
    """Step 6, stream: raise `EnvelopeError` (`malformed`) unless the raw NATS headers say `identifier` once.

    `block` is `NATS/1.0` CRLF, lines that end with CRLF, CRLF, with no folded line and no bare CR or LF. Of all lines,
    the name of exactly one starts with `nats-`, in any case, and that line is `Nats-Msg-Id: ` and the lower-case hex of
    `identifier`. The broker deduplicates by its own reading of these bytes, so they must allow only one reading.

    The checks are linear and run in C over the whole block. A loop over its lines could take a hundred thousand rounds.
    """
    line = b"Nats-Msg-Id: %b\r\n" % identifier.hex().encode()
    if block == b"%b%b\r\n" % (_START, line):
        # Exactly this line, byte for byte. No check is left.
        return
    if not block.startswith(_START):
        raise _malformed("start")
    # The first empty line must be the last line.
    if block.find(_END) != len(block) - len(_END):
        raise _malformed("end")
    lines = block.count(b"\r\n")
    if block.count(b"\r") != lines:
        raise _malformed("bare CR")
    if block.count(b"\n") != lines:
        raise _malformed("bare LF")
    if b"\n " in block or b"\n\t" in block:
        raise _malformed("folded line")
    # No line starts with white space now, so a trimmed name starts where its line does.
    if block.lower().count(b"\nnats-") != 1:
        raise _malformed("not exactly one name in nats-")
    if b"\n" + line not in block:
        raise _malformed("Nats-Msg-Id")


def check_stored(header: Header, *, stored: int, created: int) -> None:
    """Step 6, stream: raise `EnvelopeError` (`replayed`) unless the broker stored the message within its window.

    `created` is the creation time of the stream that first stored the message. An earlier message may have been in a
    previous stream. `iat - 5 s <= stored` needs no check: it is the first clause of step 5, whose reference time is `stored`.
    """
    if stored > header.iat + _STORED_WITHIN:
        raise EnvelopeError(Code.REPLAYED, 6, "stored too long after iat")
    if header.iat < created:
        raise EnvelopeError(Code.REPLAYED, 6, "made before the stream")


def check_core(header: Header, *, arrival: CoreArrival, replay: ReplayMemory, now: int) -> None:
    """Step 6, core: raise `EnvelopeError` unless this call is known not to have been accepted before.

    `replayed`: the call was accepted before, or is older than this process or the audit stream, which could not remember it.
    `overloaded`: there is no room to remember it. Step 13, not this step, remembers the call.
    """
    if header.iat < arrival.started:
        raise EnvelopeError(Code.REPLAYED, 6, "made before this process started")
    if header.iat < arrival.audit_created:
        raise EnvelopeError(Code.REPLAYED, 6, "made before the audit stream")
    replay.check((header.iss, header.id), now=now)


def _malformed(detail: str) -> EnvelopeError:
    return EnvelopeError(Code.MALFORMED, 6, f"NATS headers: {detail}")
