"""One inbox for all answers that a link expects: PubAcks by the thousand, and answers of the JetStream API.

Peers may publish under our inbox prefix, because replies come that way. So every answer has its own reply subject with 96
random bits. A peer that sees the reply subject of a message on core NATS learns nothing about other reply subjects, and
cannot forge the acknowledgement of an audit record.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

from sealbus.envelopes.errors import BusUnavailable

TOKEN_BYTES = 12


class Awaiting(Protocol):
    """A receiver of answers, each to one of its messages by `index`."""

    def subject_of(self, index: int) -> str:
        """Return the subject that message `index` was published to."""

    def answered(self, index: int, block: bytes, payload: bytes) -> None:
        """Take the raw header block and payload of the answer to message `index`; must not raise."""

    def failed(self, index: int, error: BusUnavailable) -> None:
        """Note that no answer to message `index` will come; must not raise."""


def tokens(count: int) -> list[bytes]:
    """Return `count` subject tokens that cannot be guessed, even if some are known."""
    size = 2 * TOKEN_BYTES
    digits = secrets.token_hex(TOKEN_BYTES * count).encode()
    return [digits[start : start + size] for start in range(0, count * size, size)]


class Replies:
    """Hands out reply subjects under one inbox and passes each answer, once, to its receiver."""

    def __init__(self, inbox_prefix: str) -> None:
        self.inbox = f"{inbox_prefix}{secrets.token_hex(8)}.".encode()
        self._place = len(self.inbox)
        self._pending: dict[bytes, tuple[Awaiting, int]] = {}
        self.settled = asyncio.Event()
        """Set while no answer is expected."""
        self.settled.set()

    @property
    def pattern(self) -> str:
        """The subject to subscribe to."""
        return f"{self.inbox.decode()}*"

    @property
    def pending(self) -> int:
        """How many answers are expected."""
        return len(self._pending)

    def expect(self, awaiting: Awaiting, index: int, token: bytes | None = None) -> bytes:
        """Return the token (`token` if given) of the answer to message `index`; the reply subject is `inbox` + token."""
        token = token or tokens(1)[0]
        if not self._pending:
            self.settled.clear()
        self._pending[token] = (awaiting, index)
        return token

    def forget(self, token: bytes) -> None:
        """Stop expecting an answer under `token`."""
        self._pending.pop(token, None)
        self._note()

    def take(self, subject: bytes, _: bytes, block: bytes, payload: bytes) -> None:
        """Take one answer, as the sink of the inbox. An answer that is not, or no longer, expected is dropped."""
        pending = self._pending.pop(subject[self._place :], None)
        if pending is not None:
            pending[0].answered(pending[1], block, payload)
            self._note()

    def refuse(self, subject: str, error: BusUnavailable) -> None:
        """Fail the oldest message to `subject`: the server refused it, and will not answer."""
        for token, (awaiting, index) in self._pending.items():
            if awaiting.subject_of(index) == subject:
                del self._pending[token]
                awaiting.failed(index, error)
                self._note()
                return

    def fail_all(self, error: BusUnavailable) -> None:
        """Fail all expected answers: the link is gone."""
        pending, self._pending = self._pending, {}
        for awaiting, index in pending.values():
            awaiting.failed(index, error)
        self._note()

    def _note(self) -> None:
        if not self._pending:
            self.settled.set()
