"""What users can have done on the bus, by whatever protocol they come: calls, tasks, and what of theirs waits."""

from __future__ import annotations

from dataclasses import dataclass, field

from sealbus.agents.edge.event_streams import OpenStreams
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.edge.v1.call_routes import Calls
from sealbus.agents.edge.v1.task_routes import Tasks


@dataclass(frozen=True, slots=True)
class Actions:
    """The actions of one edge. Every door does its work through these, so that all charge, record and show alike."""

    front: Front
    streams: OpenStreams = field(init=False)
    calls: Calls = field(init=False)
    tasks: Tasks = field(init=False)
    parked_tasks: ParkedTaskReader = field(init=False)

    def __post_init__(self) -> None:
        streams = OpenStreams(self.front.limits)
        object.__setattr__(self, "streams", streams)
        object.__setattr__(self, "calls", Calls(self.front, streams))
        object.__setattr__(self, "tasks", Tasks(self.front))
        object.__setattr__(self, "parked_tasks", ParkedTaskReader(self.front.node))
