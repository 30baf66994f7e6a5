"""The cancellation of one message's work: how its handler is stopped, and how it shields itself from that."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from dataclasses import dataclass

from sealbus.bus.routing.timers import Deadline
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class Canceled:
    """The canceller of work, and its reason, which may be empty."""

    by: SpiffeId
    reason: str


class Cancellation:
    """Stops the work of one message, unless its handler shields itself. Owned by one attempt at a time.

    ::

        open --request--> stopping, the handler is cancelled at once
          `--shield--> shielded --request--> stopping, cancelled at the first wait after the shield
    """

    __slots__ = ("_deadline", "_interrupted", "_shields", "canceled")

    def __init__(self) -> None:
        self.canceled: Canceled | None = None
        """The cancellation, once it was requested."""
        self._deadline: Deadline | None = None
        self._shields = 0
        self._interrupted = False

    @property
    def shielded(self) -> bool:
        """Whether the running code is in a block that holds cancellation back, or in a task that began in such a block."""
        return self._shields > 0 and _IN_SHIELD.get() is self

    def request(self, canceled: Canceled) -> None:
        """Stop the work if it runs; only the first request counts."""
        if self.canceled is None:
            self.canceled = canceled
            self._interrupt()

    def begin(self, deadline: Deadline) -> None:
        """Begin an attempt under `deadline`; raise `HandlingError` `canceled` if the work was stopped before."""
        if self.canceled is not None:
            self.check()
        self._deadline = deadline

    def end(self) -> None:
        """End the attempt: a later request does not stop it."""
        self._deadline = None

    def check(self) -> None:
        """Raise `HandlingError` `canceled` if the work must stop and no shield holds that back."""
        if self.canceled is not None and not self.shielded:
            raise HandlingError(Code.CANCELED, "this work was canceled")

    def enter_shield(self) -> Token[Cancellation | None]:
        """Hold cancellation back until `leave_shield` gets the token; blocks may be nested, and run in several tasks."""
        self._shields += 1
        return _IN_SHIELD.set(self)

    def leave_shield(self, entered: Token[Cancellation | None]) -> None:
        """Stop holding cancellation back: an earlier request cancels the handler at its next wait, if it has one."""
        _IN_SHIELD.reset(entered)
        self._shields -= 1
        if not self._shields and self.canceled is not None and not self._interrupted:
            # Not from the task itself, which would then be cancelled at its next wait, wherever that is.
            asyncio.get_running_loop().call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._deadline is not None and not self._shields and not self._interrupted:
            self._interrupted = True
            self._deadline.end()


_IN_SHIELD: ContextVar[Cancellation | None] = ContextVar("in_shield", default=None)
"""The cancellation whose shield the running code is in. Concurrent tasks of a handler are not in each other's shields."""
