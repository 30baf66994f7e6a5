"""The work that users can request through any protocol of the edge: calls, tasks, and approvals."""

from __future__ import annotations

from typing import Final

from sealbus.agents.edge.event_streams import OpenStreams
from sealbus.agents.edge.front import Front
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.edge.v1.call_routes import Calls
from sealbus.agents.edge.v1.task_routes import Tasks


class Actions:
    """The actions of one edge. All protocols use these, so that all charge, record and show alike."""

    def __init__(self, front: Front) -> None:
        self.front: Final = front
        self.streams: Final = OpenStreams(front.limits)
        self.calls: Final = Calls(front, self.streams)
        self.tasks: Final = Tasks(front)
        self.parked_tasks: Final = ParkedTaskReader(front.node)
