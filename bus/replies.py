"""One inbox for every answer that the broker owes a link: PubAcks by the thousand, and answers of the JetStream API.

The inbox has 128 random bits under our own prefix. Peers may be allowed to publish there, for that is how replies come,
but they cannot guess it. Who subscribes, on core NATS, to a subject of a stream does see it: the server's permissions
must leave those subjects to the streams, or such a subscriber could forge an acknowledgement.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

from sealbus.envelopes.errors import BusUnavailable

__all__ = ["Awaiting", "Replies"]


class Awaiting(Protocol):
    """Who waits for answers, each to one of its messages by `index`."""

    def subject_of(self, index: int) -> str:
        """Return the subject that message `index` was published to."""

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        """Take the raw header block and payload of the answer to message `index`; must not raise."""

    def failed(self, index: int, error: BusUnavailable) -> None:
        """Learn that no answer to message `index` will come; must not raise."""


class Replies:
    """Hands out reply subjects under one inbox and gives each answer, once, to who waits for it."""

    def __init__(self, inbox_prefix: str) -> None:
        self.inbox = f"{inbox_prefix}{secrets.token_hex(16)}.".encode()
        self._place = len(self.inbox)
        self._pending: dict[int, tuple[Awaiting, int]] = {}
        self._last = 0
        self.settled = asyncio.Event()
        """Set while no answer is owed."""
        self.settled.set()

    @property
    def pattern(self) -> str:
        """The subject to subscribe to."""
        return f"{self.inbox.decode()}*"

    @property
    def pending(self) -> int:
        """How many answers are owed."""
        return len(self._pending)

    def expect(self, awaiting: Awaiting, index: int) -> int:
        """Return the number of the answer to message `index`; the reply subject is `inbox` and that number."""
        if not self._pending:
            self.settled.clear()
        self._last += 1
        self._pending[self._last] = (awaiting, index)
        return self._last

    def forget(self, number: int) -> None:
        """Take no answer under `number` any more."""
        self._pending.pop(number, None)
        self._note()

    def take(self, subject: bytes, _: bytes, block: bytes, payload: bytes) -> None:
        """Be the sink of the inbox. An answer that nobody waits for, or waits for no longer, is dropped."""
        number = subject[self._place :]
        found = self._pending.pop(int(number), None) if number.isdigit() else None
        if found is not None:
            found[0].answered(found[1], block, payload)
            self._note()

    def refuse(self, subject: str, error: BusUnavailable) -> None:
        """Fail the oldest message to `subject`: the server refused it, and will not answer."""
        for number, (awaiting, index) in self._pending.items():
            if awaiting.subject_of(index) == subject:
                del self._pending[number]
                awaiting.failed(index, error)
                self._note()
                return

    def fail_all(self, error: BusUnavailable) -> None:
        """Fail everything that waits: the link is gone."""
        pending, self._pending = self._pending, {}
        for awaiting, index in pending.values():
            awaiting.failed(index, error)
        self._note()

    def _note(self) -> None:
        if not self._pending:
            self.settled.set()
