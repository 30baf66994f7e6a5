"""The metrics of several agents of one process as one page: each with the label `agent`, and the process's own without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from sealbus.bus.telemetry.counters import Counters

if TYPE_CHECKING:
    from prometheus_client import Metric

AGENT_LABEL: Final = "agent"
_OF_PROCESS: Final = "process_"
"""Prefix of what prometheus_client has of the whole process."""


class JoinedCounters:
    """The metrics of a process, and those that `parts` returns by agent, at each `render`."""

    def __init__(self, process: Counters, parts: Callable[[], Mapping[str, Counters]]) -> None:
        self._process = process
        self._parts = parts

    def render(self) -> str:
        """Return all metrics as Prometheus text."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()

    def collect(self) -> list[Metric]:
        """Return the metrics as objects of prometheus_client, one for each name."""
        families = {family.name: family for family in self._process.families()}
        for agent, counters in self._parts().items():
            for family in counters.families():
                if family.name.startswith(_OF_PROCESS):
                    continue
                joined = families.get(family.name)
                labelled = [sample._replace(labels={**sample.labels, AGENT_LABEL: agent}) for sample in family.samples]
                if joined is None:
                    family.samples = labelled
                    families[family.name] = family
                else:
                    joined.samples += labelled
        return [families[name] for name in sorted(families)]
