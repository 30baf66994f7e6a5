"""What became of deliveries: each settled once, many in one write, and none forgotten for want of a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from sealbus.bus.connection import Connection
from sealbus.bus.link import Link
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["Settling"]


class Settling:
    """The open deliveries of one consumer, by the reply subject that acknowledgements go to.

    What is settled in one turn of the event loop leaves in one write at its end: handlers end one by one, and a write
    through TLS costs more than everything else about an acknowledgement. It may go over any link: the consumer is
    durable. What cannot be written is owed, and goes first over the next link; at most as much as the consumer's
    `max_ack_pending` can be owed.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._written: list[str] = []
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
        """Settle for good what `tokens` delivered, answering `how`; each only once."""
        self._write([token for token in tokens if self._open.pop(token, None) is not None], how)

    def again(self, tokens: Iterable[str], how: str) -> None:
        """Ask for another delivery of what `tokens` delivered, answering `how`."""
        taken = [token for token in tokens if token in self._open]
        for token in taken:
            self.drop(token)
        self._write(taken, how)

    def _write(self, tokens: Sequence[str], how: str) -> None:
        if not tokens:
            return
        if not self._written:
            asyncio.get_running_loop().call_soon(self.flush)
        tail = f" {len(how)}\r\n{how}\r\n"
        self._written += [f"PUB {token}{tail}" for token in tokens]

    def flush(self) -> None:
        """Write now what was settled in this turn."""
        if not self._written:
            return
        frames = "".join(self._written).encode()
        self._written.clear()
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
        self.flush()
        if self._owed:
            link.write(b"".join(self._owed))
            self._owed.clear()
