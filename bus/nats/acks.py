"""Acknowledgements: each delivery is settled once, many in one write, and none is lost with a connection.

An acknowledgement goes to the reply subject of its delivery. In that subject JetStream describes the delivery::

    $JS.ACK.<stream>.<consumer>.<counts>                           9 tokens
    $JS.ACK.<domain>.<account>.<stream>.<consumer>.<counts>[.<any>]       11 or 12
    <counts>: <delivered>.<stream sequence>.<consumer sequence>.<stored, ns>.<pending>
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.nats.connection.link import Link
from sealbus.envelopes.errors import BusUnavailable

FORGET = 600.0
"""Seconds after its delay. A deferred message that was not redelivered here by then counts as another replica's."""


class Acks:
    """The open deliveries of one consumer, by the reply subject of each, which is its token.

    All acknowledgements of one turn of the event loop are sent in one write at its end, because a write through TLS costs
    more than the rest of an acknowledgement. The consumer is durable, so any link may carry them. Acknowledgements that
    cannot be written, at most the consumer's `max_ack_pending`, go first over the next link.
    """

    def __init__(self, connection: Connection, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._written: list[str] = []
        self._open: dict[str, int] = {}
        self._again: dict[int, float] = {}
        """Sequences that are to be redelivered, and until when we expect that."""
        self._look = 0.0
        self._owed: list[bytes] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, token: str, sequence: int) -> None:
        """Note a delivery of the message with stream `sequence`."""
        self._open[token] = sequence
        self._again.pop(sequence, None)

    @property
    def put_off(self) -> int:
        """How many messages are expected to be redelivered."""
        return len(self._again)

    def drop(self, token: str, *, delay: float = 0.0) -> None:
        """Forget a delivery that was not settled: the server redelivers its message, to this replica or another."""
        sequence = self._open.pop(token, None)
        if sequence is None:
            return
        now = self._clock()
        if now >= self._look:
            self._look = now + FORGET / 10
            self._forget(now)
        self._again[sequence] = now + delay + FORGET

    def lowest(self, default: int) -> int:
        """Return the lowest sequence that is not finally settled, or `default` if all are."""
        self._forget(self._clock())
        return min((*self._open.values(), *self._again), default=default)

    def settle(self, tokens: Iterable[str], how: str) -> None:
        """Settle the deliveries of `tokens` finally, each once, with the answer `how`."""
        self._write([token for token in tokens if self._open.pop(token, None) is not None], how)

    def give_up(self, token: str, sequence: int, how: str) -> None:
        """Settle one delivery finally, even if it is to be redelivered; the server then forgets the message."""
        if self._open.pop(token, None) is not None or self._again.pop(sequence, None) is not None:
            self._write([token], how)

    def again(self, tokens: Iterable[str], how: str, *, delay: float = 0.0) -> None:
        """Ask for redelivery of `tokens` after `delay` seconds, with the answer `how`."""
        unsettled = [token for token in tokens if token in self._open]
        for token in unsettled:
            self.drop(token, delay=delay)
        self._write(unsettled, how)

    def _forget(self, now: float) -> None:
        self._again = {sequence: until for sequence, until in self._again.items() if until > now}

    def _write(self, tokens: Sequence[str], how: str) -> None:
        if not tokens:
            return
        if not self._written:
            asyncio.get_running_loop().call_soon(self.flush)
        tail = f" {len(how)}\r\n{how}\r\n"
        self._written += [f"PUB {token}{tail}" for token in tokens]

    def flush(self) -> None:
        """Write the acknowledgements of this turn now."""
        if not self._written:
            return
        frames = "".join(self._written).encode()
        self._written.clear()
        try:
            self._connection.link.write(frames)
        except BusUnavailable:
            self._owed.append(frames)

    def touch(self, token: str) -> None:
        """Tell the broker that an open delivery is still being handled."""
        if token in self._open:
            with contextlib.suppress(BusUnavailable):
                self._connection.link.write(f"PUB {token} 4\r\n+WPI\r\n".encode())

    def pay(self, link: Link) -> None:
        """Write to `link` all acknowledgements that could not be written before. Raises `BusUnavailable`, and keeps them."""
        self.flush()
        if self._owed:
            link.write(b"".join(self._owed))
            self._owed.clear()


class AckSubject(NamedTuple):
    """One delivery as the broker counts it. `stored` is microseconds, truncated; `pending` counts the messages after it."""

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
        """Parse `reply`; return `None` if it is not an acknowledgement subject of this consumer."""
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
