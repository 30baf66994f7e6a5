"""Writes the result of a task in parts, each stored before the handler goes on."""

from __future__ import annotations

from sealbus.bus.routing.routes import Permitted, TaskReporter
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.parts import PartsTally
from sealbus.envelopes.errors import Code, HandlingError

__all__ = ["PartWriter"]


class PartWriter:
    """The parts of one attempt, told to the task's requester.

    One at a time: the handler goes no faster than its requester's stream takes them, and they lie there in order.
    """

    def __init__(self, reporter: TaskReporter) -> None:
        self._reporter = reporter
        self._tally: PartsTally | None = None
        self.result: Content | None = None
        """The result that stands for all parts, once there are all; `None` for a handler that answers at once."""

    async def write(self, permitted: Permitted, part: Content, number: int, fin: bool) -> None:
        """Store one part; with `fin`, note that there are no more. Raises `HandlingError` if it cannot be stored."""
        del permitted, number
        tally = self._tally = self._tally or PartsTally()
        if fin:
            self.result = tally.result()
        elif not await self._reporter.store(self._reporter.part(part, tally.add(part))):
            raise HandlingError(Code.HANDLER_FAILED, "a part of the result was not stored")
