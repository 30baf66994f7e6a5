"""Steps 5 and 6 by themselves: times, raw header block, stored time, memory of calls (SPEC.md section 7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import Message, header_block, refuses
from support.envelopes import HOUR, MINUTE, NOW, message_id

from sealbus.envelopes.errors import Code, EnvelopeError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.freshness import (
    CoreArrival,
    StreamArrival,
    check_core,
    check_header_block,
    check_stored,
    check_times,
)
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.trust.caches import ReplayMemory

HEADER = parse_header(Message().raw())
ID = HEADER.id
GOOD = header_block(ID)


def test_headers_stay_out_of_a_repr() -> None:
    arrival = StreamArrival("s", b"NATS/1.0\r\nx: secret\r\n\r\n", "TASKS", 7, NOW, NOW, 1)
    assert repr(arrival) == "StreamArrival(subject='s', stream='TASKS', sequence=7, ...)"


def test_times_hold_at_their_edges() -> None:
    check_times(HEADER, reference=NOW - 5 * SECOND, now=0)
    check_times(HEADER, reference=NOW + HOUR - 1, now=NOW + HOUR - 1)
    refuses(Code.NOT_YET_VALID, 5, lambda: check_times(HEADER, reference=NOW - 5 * SECOND - 1, now=0))
    refuses(Code.EXPIRED, 5, lambda: check_times(HEADER, reference=NOW + HOUR, now=0))
    refuses(Code.EXPIRED, 5, lambda: check_times(HEADER, reference=NOW, now=NOW + HOUR))


def test_now_is_not_asked_where_there_is_none() -> None:
    check_times(HEADER, reference=NOW, now=None)
    refuses(Code.EXPIRED, 5, lambda: check_times(HEADER, reference=NOW + HOUR, now=None))


def test_a_header_block_may_hold_other_lines_before_and_after() -> None:
    own = b"Nats-Msg-Id: " + ID.hex().encode()
    check_header_block(GOOD, ID)
    check_header_block(b"NATS/1.0\r\na: b\r\n" + own + b"\r\nc:\r\n: \r\n\x00\xff\r\n\r\n", ID)


@pytest.mark.parametrize(
    ("block", "what"),
    [
        (b"", "start"),
        (b"NATS/1.0\r", "start"),
        (b"NATS/1.0\r\n", "end"),
        (GOOD + b"\r\n", "end"),
        (GOOD[:-2], "end"),
        (b"NATS/1.0\r\n\r\n" + GOOD[10:], "end"),
        (GOOD[:-2] + b"a\rb\r\n\r\n", "bare CR"),
        (GOOD[:-2] + b"a\nb\r\n\r\n", "bare LF"),
        (GOOD[:-2] + b" a\r\n\r\n", "folded line"),
        (GOOD[:-2] + b"\ta\r\n\r\n", "folded line"),
        (b"NATS/1.0\r\n\r\n", "not exactly one"),
        (GOOD[:-2] + b"nAtS-x: 1\r\n\r\n", "not exactly one"),
        (header_block(message_id(3)), "Nats-Msg-Id"),
    ],
)
def test_a_header_block_that_is_refused(block: bytes, what: str) -> None:
    refuses(Code.MALFORMED, 6, lambda: check_header_block(block, ID))
    with pytest.raises(EnvelopeError, match=what):
        check_header_block(block, ID)


def by_lines(block: bytes, identifier: bytes) -> bool:
    """Decide a header block line by line, as SPEC.md words it."""
    if not block.startswith(b"NATS/1.0\r\n") or not block.endswith(b"\r\n"):
        return False
    lines = block.split(b"\r\n")[1:-1]
    if not lines or lines.pop() != b"" or b"" in lines:
        return False
    if any(b"\r" in line or b"\n" in line or line[:1] in (b" ", b"\t") for line in lines):
        return False
    named = [line for line in lines if line.partition(b":")[0].strip(b" \t").lower().startswith(b"nats-")]
    return named == [b"Nats-Msg-Id: " + identifier.hex().encode()]


OWN = b"Nats-Msg-Id: " + ID.hex().encode()
PIECES = st.sampled_from([b"NATS/1.0", b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"a: b", b"nats-", OWN, b"\r\n\r\n"])


@given(st.lists(PIECES, max_size=8).map(b"".join) | st.lists(PIECES, max_size=5).map(lambda p: GOOD[:-2] + b"".join(p)))
def test_a_header_block_is_judged_as_it_would_be_line_by_line(block: bytes) -> None:
    try:
        check_header_block(block, ID)
        taken = True
    except EnvelopeError:
        taken = False
    assert taken is by_lines(block, ID)


def test_the_window_of_stored_times() -> None:
    check_stored(HEADER, stored=NOW + MINUTE, created=NOW)
    refuses(Code.REPLAYED, 6, lambda: check_stored(HEADER, stored=NOW + MINUTE + 1, created=NOW))
    refuses(Code.REPLAYED, 6, lambda: check_stored(HEADER, stored=NOW, created=NOW + 1))


def test_a_call_is_told_from_what_came_before() -> None:
    arrival = CoreArrival(subject="call.inventory.update", started=NOW, audit_created=NOW)
    late = CoreArrival(subject="call.inventory.update", started=NOW + 1, audit_created=NOW)
    later = CoreArrival(subject="call.inventory.update", started=NOW, audit_created=NOW + 1)
    replay = ReplayMemory(1)
    check_core(HEADER, arrival=arrival, replay=replay, now=NOW)
    assert len(replay) == 0
    refuses(Code.REPLAYED, 6, lambda: check_core(HEADER, arrival=late, replay=replay, now=NOW))
    refuses(Code.REPLAYED, 6, lambda: check_core(HEADER, arrival=later, replay=replay, now=NOW))
    replay.remember((HEADER.iss, ID), HEADER.exp, now=NOW)
    refuses(Code.REPLAYED, 6, lambda: check_core(HEADER, arrival=arrival, replay=replay, now=NOW))
    other = HEADER._replace(id=message_id(3))
    refuses(Code.OVERLOADED, 6, lambda: check_core(other, arrival=arrival, replay=replay, now=NOW))
