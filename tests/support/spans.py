"""A tracer of a test's own, whose spans can be looked at: a process's provider can be set but once."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sealbus.agents.runtime import node
from sealbus.bus.telemetry.tracing import Tracer

__all__ = ["KeptSpans"]


class KeptSpans:
    """The spans of all nodes that a test opens from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer = Tracer(self.provider.get_tracer("test"))
        monkeypatch.setattr(node, "find_tracer", lambda: self.tracer)

    @property
    def ended(self) -> list[ReadableSpan]:
        """All that have ended, in order of their starts."""
        return sorted(self._kept.get_finished_spans(), key=lambda one: one.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [one for one in self.ended if one.name == name]
