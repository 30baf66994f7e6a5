"""The processes that a log has a start of and no end: each runs still, or was killed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from sealbus.envelopes.records.operation import ProcessRecord
from sealbus.envelopes.trust.spiffe_id import SpiffeId

MOST_OPEN: Final = 4_096
"""Most processes without an end that are kept, so that invented starts cannot fill memory. More are only counted."""


class Run(NamedTuple):
    """One run of a process of `agent`, which `instance` names."""

    agent: str
    instance: bytes


class Started(NamedTuple):
    """When the start of a process was stored, in microseconds, and the version of sealbus that it runs."""

    time: int
    version: str


@dataclass(slots=True)
class OpenProcesses:
    """The processes of a part of a log that have not ended in it, in the order of the log."""

    started: dict[Run, Started] = field(default_factory=dict)
    more: int = 0
    """Starts beyond `MOST_OPEN`. Their ends are not looked for."""
    ended: set[Run] = field(default_factory=set)
    """The runs that ended in this part, at most `MOST_OPEN`: they may have started in an earlier part."""

    def take_record(self, record: ProcessRecord, recorder: SpiffeId, *, time: int, counted: bool) -> None:
        """Take a verified record, in the order of the log. A start that is not `counted` is none of this part."""
        run = Run(recorder.value, record.instance)
        if record.action == "start" and counted:
            self._start(run, Started(time, record.version))
        elif record.action == "end":
            self.started.pop(run, None)
            if len(self.ended) < MOST_OPEN:
                self.ended.add(run)

    def add(self, later: OpenProcesses) -> None:
        """Add the part of the log that follows this one. What ended in it is forgotten."""
        for run in later.ended:
            self.started.pop(run, None)
        for run, started in later.started.items():
            self._start(run, started)
        self.more += later.more

    def remove(self, repeated: OpenProcesses) -> None:
        """Remove the starts of `repeated` that are no others than those kept here: their runs may have ended before."""
        for run, started in repeated.started.items():
            if self.started.get(run) == started:
                del self.started[run]
        self.more -= min(self.more, repeated.more)

    def _start(self, run: Run, started: Started) -> None:
        if run in self.started:
            return
        if len(self.started) < MOST_OPEN:
            self.started[run] = started
        else:
            self.more += 1
