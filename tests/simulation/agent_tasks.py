"""Tasks that others than `shop` send, as they are seen in TASKS: numbers, ends, and handles by which ends can be read."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from promises.history import DATED_WRONG, NOT_GRANTED, What

from sealbus.agents.dev.memory.jetstream import Stored
from sealbus.agents.sdk.task_handle import handle_text
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.limits import DEFAULT_LIMITS
from sealbus.envelopes.message.header import Header, parse_header
from sealbus.envelopes.message.wire import parse_envelope
from simulation.site import Site

__all__ = ["AgentTasks"]

_WITHIN: Final = DEFAULT_LIMITS.stored_within
_SKEW: Final = DEFAULT_LIMITS.clock_skew


class AgentTasks:
    """The tasks of agents, and of `till`, in one simulation."""

    def __init__(self, site: Site) -> None:
        self.handles: dict[str, dict[str, int]] = defaultdict(dict)
        """The numbers of tasks by handle, by the name of the agent that sent them."""
        self.open: set[str] = set()
        """The ids of those that have not ended, without those that nobody accepts."""
        self.unawaited: set[str] = set()
        """The ids of those whose ends need not be told."""
        self._site = site
        site.on_status.append(self._note_status)

    def note(self, stored: Stored, header: Header, number: int, *, action: str, granted: bool = True) -> None:
        """Note that the task with this `number` is stored. One that is not `granted` is refused by its agent."""
        site, message, sender = self._site, header.id.hex(), header.iss.path.rpartition("/")[2]
        refused = "" if granted else NOT_GRANTED
        if not stored.time - _WITHIN <= header.iat <= stored.time + _SKEW:
            refused = DATED_WRONG
        if not refused and message not in self.unawaited:
            self.open.add(message)
        site.note(What.SUBMITTED, number, message, refused, host=sender)
        task = AskedTask(pending=PendingRequest.of(header), action=action)
        self.handles[sender][handle_text(task)] = number

    def _note_status(self, stored: Stored) -> None:
        task = stored.subject.rpartition(".")[2]
        if task in self.open and parse_header(parse_envelope(stored.payload).header).fin:
            self.open.discard(task)
