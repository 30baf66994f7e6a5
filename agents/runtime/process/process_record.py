"""Records the start and the end of a process that runs for long. A killed process has a start and no end.

`sealbus audit stats` shows the processes without an end.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from sealbus.agents.runtime.node import Node
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.background import Background
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.message.declaration import NOTHING_DECLARED, Declaration
from sealbus.envelopes.records.operation import INSTANCE_BYTES, ProcessRecord

_logger: Final = logging.getLogger(__name__)

AGAIN: Final = Backoff(initial_interval=1.0, maximum_interval=30.0, jitter=0.5)
"""Pauses between two tries to store the start."""


@asynccontextmanager
async def recorded_process(
    node: Node, *, declares: Declaration = NOTHING_DECLARED, again: Backoff = AGAIN
) -> AsyncGenerator[bytes, None]:
    """Record the start of a process on the entered `node` and, if the block ends without an error, its end.

    Both records have `declares` as facts. Yields the process's random instance. The start is stored in the background, and
    tried again after the pauses `again` until it is stored, so that the block runs without it. Leaving notes the end; the
    node's writer stores it when it closes.
    """
    instance, release = secrets.token_bytes(INSTANCE_BYTES), version("sealbus")
    start = _Start(ProcessRecord(action="start", instance=instance, version=release, facts=declares.marks), node, again)
    end = ProcessRecord(action="end", instance=instance, version=release, facts=declares.marks)
    async with Background() as group:
        storing = group.create_task(start.store(), name="process-start")
        yield instance
        storing.cancel()
    if start.waiting:
        # The last chance: with the end, as the writer closes.
        await node.audit.note(start.record, lost=start.report, kept=True)
    await node.audit.note(
        end, lost=lambda: _logger.warning("the end of this process of %s is not recorded", node.token), kept=True
    )


class _Start:
    """The `record` of a start, which is noted until it is stored."""

    def __init__(self, record: ProcessRecord, node: Node, again: Backoff) -> None:
        self.record = record
        self.waiting = True
        """Whether the record is neither stored nor with the writer."""
        self._audit: AuditWriter = node.audit
        self._agent = node.token
        self._random = node.site.random
        self._again = again
        self._reported = False

    async def store(self) -> None:
        """Return once the record is stored."""
        failures = 0
        while True:
            tried = asyncio.Event()
            # Before it is noted: a record in the queue is not noted a second time.
            self.waiting = False
            await self._audit.note(self.record, tried.set, lost=self._lose, kept=True)
            await tried.wait()
            if not self.waiting:
                return
            failures += 1
            await asyncio.sleep(self._again.interval(failures, self._random()))

    def report(self) -> None:
        """Log once that the record is not stored."""
        if not self._reported:
            _logger.warning("the start of this process of %s is not recorded: AUDIT did not take it", self._agent)
        self._reported = True

    def _lose(self) -> None:
        self.waiting = True
        self.report()
