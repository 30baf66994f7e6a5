"""Finds whether this process makes spans, and sets up their export if the environment asks for it.

A program that uses sealbus as a library sets its own provider. Processes of ours set a provider if
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set; OpenTelemetry's SDK reads all other variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from sealbus.bus.telemetry.tracing import Tracer

SAMPLER: Final = "OTEL_TRACES_SAMPLER"
SAMPLED: Final = 0.05
"""Share of traces to keep unless the environment names a sampler: an exported span costs half of a message's time."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def find_tracer() -> Tracer | None:
    """Return the tracer, or None if no provider is set: a program that sets one has imported OpenTelemetry before."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from sealbus.bus.telemetry.tracing import Tracer, has_provider

    return Tracer() if has_provider() else None


def traceparent_fields() -> dict[str, str]:
    """Return the HTTP header field that continues the current trace elsewhere; empty without a trace."""
    if "sealbus.bus.telemetry.spans" not in sys.modules:
        return {}
    from sealbus.bus.telemetry.spans import TRACEPARENT, current_traceparent

    traceparent = current_traceparent()
    return {TRACEPARENT: traceparent} if traceparent else {}


@contextmanager
def exporting_spans(service: str) -> Generator[None, None, None]:
    """Export spans by OTLP over HTTP while entered, as `service` unless `OTEL_SERVICE_NAME` is another name.

    Does nothing unless the environment names an endpoint. Raises `ConfigurationError` without the packages of the extra
    `otel`. Spans that cannot be sent are dropped. Only the end of the block waits for spans, some seconds at most.
    """
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not any(os.environ.get(name) for name in _ENDPOINTS):
        yield
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"an OTLP endpoint is set, and {error.name} is not installed: pip install 'sealbus[otel]'"
        ) from error
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # A module of the agent has set a provider.
        yield
        return
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": service}),
        # With None the SDK reads the sampler from the environment.
        sampler=None if os.environ.get(SAMPLER) else ParentBasedTraceIdRatio(SAMPLED),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
