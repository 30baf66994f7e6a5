"""The cancellation of one message's work: how its handler is stopped, and how it holds that back."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from dataclasses import dataclass

from sealbus.bus.routing.timers import Deadline
from sealbus.envelopes.errors import Code, HandlingError
from sealbus.envelopes.trust.spiffe_id import SpiffeId


@dataclass(frozen=True, slots=True)
class Canceled:
    """Who canceled work, and why; the reason may be empty."""

    by: SpiffeId
    reason: str


class Cancellation:
    """Whether the work of one message is to stop, and how far its handler is with that. Owned by one attempt at a time.

    ::

        open --request--> stopping, the handler is cancelled at once
          `--shield--> shielded --request--> stopping, cancelled at the first wait after the shield
    """

    __slots__ = ("_deadline", "_interrupted", "_shields", "canceled")

    def __init__(self) -> None:
        self.canceled: Canceled | None = None
        """Who canceled it, once somebody has."""
        self._deadline: Deadline | None = None
        self._shields = 0
        self._interrupted = False

    @property
    def shielded(self) -> bool:
        """Whether the code that asks is in a block that holds cancellation back, or in a task that was begun in one."""
        return self._shields > 0 and _IN_SHIELD.get() is self

    def request(self, canceled: Canceled) -> None:
        """Stop the work, as far as it runs; only the first request counts."""
        if self.canceled is None:
            self.canceled = canceled
            self._interrupt()

    def begin(self, deadline: Deadline) -> None:
        """Begin an attempt under `deadline`; raise `HandlingError` `canceled` if the work was stopped before."""
        if self.canceled is not None:
            self.check()
        self._deadline = deadline

    def end(self) -> None:
        """End the attempt: whatever comes now comes too late to stop it."""
        self._deadline = None

    def check(self) -> None:
        """Raise `HandlingError` `canceled` if the work is to stop and no shield holds that back."""
        if self.canceled is not None and not self.shielded:
            raise HandlingError(Code.CANCELED, "this work was canceled")

    def enter_shield(self) -> Token[Cancellation | None]:
        """Hold cancellation back until `leave_shield` gets what is returned; blocks may be nested, and in several tasks."""
        self._shields += 1
        return _IN_SHIELD.set(self)

    def leave_shield(self, entered: Token[Cancellation | None]) -> None:
        """Stop holding it back: what came meanwhile cancels the handler at its next wait, if it goes on until then."""
        _IN_SHIELD.reset(entered)
        self._shields -= 1
        if not self._shields and self.canceled is not None and not self._interrupted:
            # From outside of the task: one that cancels itself is cancelled at its next wait, wherever that is by then.
            asyncio.get_running_loop().call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._deadline is not None and not self._shields and not self._interrupted:
            self._interrupted = True
            self._deadline.end()


_IN_SHIELD: ContextVar[Cancellation | None] = ContextVar("in_shield", default=None)
"""Whose shield the running code is in: tasks that a handler runs beside one another are not in each other's."""
