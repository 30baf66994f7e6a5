"""A transport in memory whose writes and looks fail as a test says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from sealbus.agents.dev.memory.broker import MemoryTransport
from sealbus.bus.ports import Outgoing, PubAck, StoredValue, StreamRefused
from sealbus.envelopes.errors import BusUnavailable

__all__ = ["OUTRUN", "FaultyTransport"]

OUTRUN = StreamRefused("wrong last sequence", 10_071)
"""The answer to a write that another process was quicker than."""

_Look = Callable[[], Awaitable[StoredValue | None]]


class FaultyTransport(MemoryTransport):
    """Its publishes are answered with `refusal` and stored nowhere, or with `unheard` are stored and not answered.

    `look`, if set, answers in place of `last`; it is given what would answer otherwise.
    """

    refusal: Exception | None = None
    unheard = False
    look: Callable[[_Look], Awaitable[StoredValue | None]] | None = None

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        """Publish, or fail."""
        if self.refusal is not None:
            return [self.refusal for _ in messages]
        answers = await super().publish(messages, deadline=deadline)
        return [BusUnavailable("no answer") for _ in messages] if self.unheard else answers

    async def last(self, stream: str, subject: str, *, within: float) -> StoredValue | None:
        """Return the last message of `subject`, or what `look` returns."""
        last = super().last
        if self.look is None:
            return await last(stream, subject, within=within)
        return await self.look(lambda: last(stream, subject, within=within))
