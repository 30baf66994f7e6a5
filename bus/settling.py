"""What became of deliveries: each settled once, many in one write, and none forgotten for want of a connection."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from sealbus.bus.connection import Connection
from sealbus.bus.link import Link
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["Settling"]


class Settling:
    """The open deliveries of one consumer, by the reply subject that acknowledgements go to.

    An acknowledgement may go over any link: the consumer is durable. What cannot be written now is owed, and goes first
    over the next link; at most as much as the consumer's `max_ack_pending` can be owed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: dict[str, int] = {}
        self._again: set[int] = set()
        self._owed: list[bytes] = []

    def __len__(self) -> int:
        return len(self._open)

    def add(self, token: str, sequence: int) -> None:
        """Note a delivery of the message with stream `sequence`."""
        self._open[token] = sequence
        self._again.discard(sequence)

    def drop(self, token: str) -> None:
        """Forget a delivery that was not settled: the server is to give its message again, to us or to another."""
        sequence = self._open.pop(token, None)
        if sequence is not None:
            self._again.add(sequence)

    def lowest(self, default: int) -> int:
        """Return the lowest sequence that is not settled for good, or `default` if all are."""
        return min((*self._open.values(), *self._again), default=default)

    def settle(self, tokens: Iterable[str], how: str) -> None:
        """Settle for good what `tokens` delivered, answering `how`, in one write; each only once."""
        self._write([token for token in tokens if self._open.pop(token, None) is not None], how)

    def again(self, tokens: Iterable[str], how: str) -> None:
        """Ask for another delivery of what `tokens` delivered, answering `how`, in one write."""
        taken = [token for token in tokens if token in self._open]
        for token in taken:
            self.drop(token)
        self._write(taken, how)

    def _write(self, tokens: Sequence[str], how: str) -> None:
        if not tokens:
            return
        tail = f" {len(how)}\r\n{how}\r\n"
        frames = "".join([f"PUB {token}{tail}" for token in tokens]).encode()
        try:
            self._connection.link.write(frames)
        except BusUnavailable:
            self._owed.append(frames)

    def touch(self, token: str) -> None:
        """Say that an open delivery is still being worked on."""
        if token in self._open:
            with contextlib.suppress(BusUnavailable):
                self._connection.link.write(f"PUB {token} 4\r\n+WPI\r\n".encode())

    def pay(self, link: Link) -> None:
        """Write to `link` what is owed. Raises `BusUnavailable`, and it stays owed."""
        if self._owed:
            link.write(b"".join(self._owed))
            self._owed.clear()
