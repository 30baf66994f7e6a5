"""The names of the streams, and the subjects of our scheme that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

TASKS: Final = "TASKS"
EVENTS: Final = "EVENTS"
RESULTS: Final = "RESULTS"
DEAD: Final = "DEAD"
AUDIT: Final = "AUDIT"
REFUSALS: Final = "REFUSALS"
STATE: Final = "STATE"
HELD: Final = "HELD"
PEOPLE: Final = "PEOPLE"

CONTROL: Final = "control.>"
"""What agents are told about work; stored in TASKS, as tasks are."""

SUBJECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        TASKS: "task.>",
        EVENTS: "event.>",
        RESULTS: "status.>",
        DEAD: "dead.>",
        AUDIT: "audit.>",
        REFUSALS: "refused.>",
        STATE: "state.>",
        HELD: "held.>",
        PEOPLE: "people.>",
    }
)
"""The subjects of each stream, in the order in which streams are declared."""
