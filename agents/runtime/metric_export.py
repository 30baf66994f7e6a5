"""The export of metrics by OTLP over HTTP, where the environment asks for it: what `/metrics` says, at intervals.

Metrics are asked for by an endpoint of their own (`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`), or by `OTEL_METRICS_EXPORTER=otlp`
with the common one: who sends traces somewhere may have nothing there that takes metrics.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final

from sealbus.agents.runtime.metric_texts import METRIC_TEXTS
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

__all__ = ["exporting_metrics", "metrics_wanted"]

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
"""Milliseconds, 60,000 by default, as OpenTelemetry has it."""


def metrics_wanted() -> bool:
    """Return whether the environment asks for the export."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    chosen = os.environ.get("OTEL_METRICS_EXPORTER") == "otlp" and os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(os.environ.get(ENDPOINT) or chosen)


@asynccontextmanager
async def exporting_metrics(service: str, counters: Counters) -> AsyncGenerator[None]:
    """Export `counters` while entered and once at the end, as `service` unless the environment names another.

    Does nothing unless that is wanted. Raises `ConfigurationError` without the packages of the extra `otel`, and for an
    interval that is none. What cannot be sent is dropped: counters go on, and the next export has them.
    """
    if not metrics_wanted():
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.resources import Resource
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"an OTLP endpoint is set, and {error.name} is not installed: pip install 'sealbus[otel]'"
        ) from error
    said = os.environ.get(INTERVAL, "60000")
    if not said.isascii() or not said.isdigit() or not int(said):
        raise ConfigurationError(f"{INTERVAL} must be a number of milliseconds")
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    exporter, began = OTLPMetricExporter(), time.time_ns()
    counters.describe(METRIC_TEXTS)

    async def run() -> None:
        while True:
            await asyncio.sleep(int(said) / 1_000)
            await _export(exporter, counters, resource, began)

    running = asyncio.create_task(run(), name="metric-export")
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])
        await _export(exporter, counters, resource, began)
        await asyncio.to_thread(exporter.shutdown)


async def _export(exporter: OTLPMetricExporter, counters: Counters, resource: Resource, began: int) -> None:
    """Send what the counters say now; a thread waits for the answer, the loop's own reads them."""
    data = _metrics_data(counters.families(), resource, began)
    await asyncio.to_thread(exporter.export, data)


def _metrics_data(families: Iterable[Metric], resource: Resource, began: int) -> MetricsData:
    """Return metrics under their own names, so that what converts them back to Prometheus finds the same."""
    from opentelemetry.sdk.metrics import export as sdk
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()

    def number(one: Sample) -> sdk.NumberDataPoint:
        return sdk.NumberDataPoint(
            attributes=dict(one.labels), start_time_unix_nano=began, time_unix_nano=now, value=float(one.value)
        )

    def histogram(labels: tuple[tuple[str, str], ...], some: Iterable[Sample]) -> sdk.HistogramDataPoint:
        parts = list(some)
        counts = [int(one.value) for one in parts if "le" in one.labels]
        bounds = [float(one.labels["le"]) for one in parts if "le" in one.labels]
        return sdk.HistogramDataPoint(
            attributes=dict(labels), start_time_unix_nano=began, time_unix_nano=now, count=counts[-1],
            sum=next(one.value for one in parts if one.name.endswith("_sum")),
            bucket_counts=[after - before for before, after in pairwise([0, *counts])], explicit_bounds=bounds[:-1],
            min=None, max=None,  # type: ignore[arg-type]  # the wire leaves them out, where nobody has kept them
        )  # fmt: skip

    def metrics() -> Iterator[sdk.Metric]:
        whole = sdk.AggregationTemporality.CUMULATIVE
        for family in families:
            data: sdk.DataT
            if not family.samples:
                continue
            if family.type == "histogram":
                points = [histogram(*one) for one in groupby(family.samples, _labels)]
                name, data = family.name, sdk.Histogram(data_points=points, aggregation_temporality=whole)
            else:
                name, values = family.samples[0].name, [number(one) for one in family.samples]
                data = (
                    sdk.Sum(data_points=values, aggregation_temporality=whole, is_monotonic=True)
                    if family.type == "counter"
                    else sdk.Gauge(data_points=values)
                )
            yield sdk.Metric(name=name, description=family.documentation, unit="", data=data)

    scope = sdk.ScopeMetrics(scope=InstrumentationScope("sealbus"), metrics=list(metrics()), schema_url="")
    return sdk.MetricsData([sdk.ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _labels(one: Sample) -> tuple[tuple[str, str], ...]:
    """Return the labels of a sample without that of its bucket."""
    return tuple(sorted((name, value) for name, value in one.labels.items() if name != "le"))
