"""The reply subject of a delivery, in the three forms that servers write."""

from __future__ import annotations

import pytest

from sealbus.bus.nats.acks import AckSubject, AckSubjects

COUNTS = b"2.17.5.1795537200123456789.40"
WANTED = AckSubject(delivered=2, sequence=17, consumer_sequence=5, stored=1_795_537_200_123_456, pending=40)


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.TASKS.a." + COUNTS,
        b"$JS.ACK._.hAsH.TASKS.a." + COUNTS,
        b"$JS.ACK.hub.hAsH.TASKS.a." + COUNTS + b".random",
        b"$JS.ACK.TASKS.a.TASKS.a." + COUNTS,
    ],
)
def test_the_forms(reply: bytes) -> None:
    assert AckSubjects("TASKS", "a").parse(reply) == WANTED


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"x",
        b"$JS.ACK.TASKS.a",
        b"$JS.ACK.TASKS.a.1.2.3.4",
        b"$JS.ACK.TASKS.a.1.2.3.4.x",
        b"$JS.ACK.TASKS.b." + COUNTS,
        b"$JS.ACK.OTHER.a." + COUNTS,
        b"$JS.ACK._.h.OTHER.a." + COUNTS,
        b"$JS.ACK._.h.TASKS.b." + COUNTS + b".x",
        b"$JS.NAK._.h.TASKS.a." + COUNTS,
        b"$JS.ACK._.h.TASKS.a." + COUNTS + b".x.y",
        b"$JS.ACK.TASKS.ab." + COUNTS,
        b"$JS.ACK.TASKS.a.1.2.3.4.\xff",
    ],
)
def test_what_is_not_ours(reply: bytes) -> None:
    assert AckSubjects("TASKS", "a").parse(reply) is None
