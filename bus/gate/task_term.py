"""How long a task is open, as its requester knows it: until its `end` or, if the task is parked, as long as its agent says.

::

    OPEN --status or marker--> PARKED --marker has ended--> OVER
                                 ^ `--marker not readable--> UNLEARNED
                                 `------marker read----------'
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import Final

from sealbus.bus.streams.held import Held
from sealbus.bus.work.approvals.marker import marker_of
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.accept.result import ResultProfile
from sealbus.envelopes.errors import ConfigurationError

_logger: Final = logging.getLogger(__name__)


class Phase(Enum):
    """The phase of a task, as far as its agent has reported it."""

    OPEN = auto()
    """The agent has reported no waiting: the task is open until its `end`."""
    PARKED = auto()
    """The task waits for an approval, or has waited."""
    UNLEARNED = auto()
    """As `PARKED`, but the marker that says until when could not be read. The reading tries again."""
    OVER = auto()
    """The task was parked and has ended."""


class TaskTerm:
    """The phase of the task `pending`, and the time `end` until which it is open (microseconds).

    Markers are read from `held`. Without it, only a status can show that the task is parked.
    """

    def __init__(self, pending: PendingRequest, held: Held | None, profile: ResultProfile) -> None:
        self.phase = Phase.OPEN
        self.end = pending.end
        self._pending: Final = pending
        self._held: Final = held
        self._profile: Final = profile

    @property
    def is_parked(self) -> bool:
        """Whether the agent says, or has said, that the task waits for an approval."""
        return self.phase is not Phase.OPEN

    def note_parked(self) -> None:
        """Change the phase from `OPEN` to `PARKED`; keep any other phase."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.PARKED

    async def learn(self) -> bool:
        """Read the marker of the task; return whether a status may count now that did not count before.

        Raises `BusUnavailable`, and `StateUnavailable` where the marker may be readable later.
        """
        if self._held is None or self.phase is Phase.OVER:
            return False
        try:
            marker = await marker_of(self._held, self._pending, own=self._profile.own, names=self._profile.names)
        except ConfigurationError as error:
            # Without the stream HELD no task can be parked.
            _logger.warning("whether task %s is parked is not known: %s", self._pending.id.hex(), error.detail)
            marker = None
        if marker is None:
            if self.phase is Phase.UNLEARNED:
                self.phase = Phase.PARKED
            return False
        later = marker.ended or marker.until > self.end
        self.phase, self.end = Phase.OVER if marker.ended else Phase.PARKED, marker.until
        return later
