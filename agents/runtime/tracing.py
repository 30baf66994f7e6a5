"""Whether this process makes spans, and the set-up of their export where the environment asks for it.

A program that uses sealbus as a library sets a provider of its own. Processes of ours set one if
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says where spans go; all other variables are those of
OpenTelemetry's SDK.
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

__all__ = ["SAMPLED", "SAMPLER", "exporting_spans", "find_tracer", "traceparent_fields"]

SAMPLER: Final = "OTEL_TRACES_SAMPLER"
SAMPLED: Final = 0.05
"""Share of traces that are kept unless the environment says which: a span that is exported costs half of a message's time."""
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def find_tracer() -> Tracer | None:
    """Return what makes spans, or None if no provider of them is set: who sets one has imported OpenTelemetry before."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from sealbus.bus.telemetry.tracing import Tracer, has_provider

    return Tracer() if has_provider() else None


def traceparent_fields() -> dict[str, str]:
    """Return the field of a request of HTTP by which what it causes elsewhere is of the current trace; none without one."""
    if "sealbus.bus.telemetry.spans" not in sys.modules:
        return {}
    from sealbus.bus.telemetry.spans import TRACEPARENT, current_traceparent

    said = current_traceparent()
    return {TRACEPARENT: said} if said else {}


@contextmanager
def exporting_spans(service: str) -> Generator[None, None, None]:
    """Export spans by OTLP over HTTP while entered, as `service` unless `OTEL_SERVICE_NAME` says another name.

    Does nothing unless the environment names an endpoint. Raises `ConfigurationError` without the packages of the extra
    `otel`. Spans that cannot be sent are dropped, and nothing waits for them but the end, some seconds at most.
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
        # An agent's own module has set one.
        yield
        return
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(
        resource=Resource.create({} if named else {"service.name": service}),
        # Without one the SDK takes what the environment says.
        sampler=None if os.environ.get(SAMPLER) else ParentBasedTraceIdRatio(SAMPLED),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
