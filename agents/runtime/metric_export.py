"""The export of the metrics of `/metrics` by OTLP over HTTP, at intervals, if the environment asks for it.

The environment asks by an endpoint for metrics (`OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`), or by `OTEL_METRICS_EXPORTER=otlp`
with the common endpoint. The common endpoint alone is not enough: it may accept traces only.
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

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
"""Milliseconds, 60,000 by default, as in OpenTelemetry."""


def metrics_wanted() -> bool:
    """Return whether the environment asks for the export."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    chosen = os.environ.get("OTEL_METRICS_EXPORTER") == "otlp" and os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(os.environ.get(ENDPOINT) or chosen)


@asynccontextmanager
async def exporting_metrics(service: str, counters: Counters) -> AsyncGenerator[None]:
    """Export `counters` while entered and once at the end, as `service` unless the environment names another.

    Does nothing unless the environment asks for it. Raises `ConfigurationError` without the packages of the extra `otel`, and
    for an invalid interval. An export that fails is dropped: counters go on, and the next export has them.
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
    interval = os.environ.get(INTERVAL, "60000")
    if not interval.isascii() or not interval.isdigit() or not int(interval):
        raise ConfigurationError(f"{INTERVAL} must be a number of milliseconds")
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": service})
    exporter, began = OTLPMetricExporter(), time.time_ns()
    counters.describe(METRIC_TEXTS)

    async def run() -> None:
        while True:
            await asyncio.sleep(int(interval) / 1_000)
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
    """Send the current values. The event loop reads the counters; another thread waits for the answer."""
    data = _metrics_data(counters.families(), resource, began)
    await asyncio.to_thread(exporter.export, data)


def _metrics_data(families: Iterable[Metric], resource: Resource, began: int) -> MetricsData:
    """Return metrics under their own names, so that a conversion back to Prometheus gives the same metrics."""
    from opentelemetry.sdk.metrics import export as sdk
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()

    def number(sample: Sample) -> sdk.NumberDataPoint:
        return sdk.NumberDataPoint(
            attributes=dict(sample.labels), start_time_unix_nano=began, time_unix_nano=now, value=float(sample.value)
        )

    def histogram(labels: tuple[tuple[str, str], ...], group: Iterable[Sample]) -> sdk.HistogramDataPoint:
        samples = list(group)
        counts = [int(sample.value) for sample in samples if "le" in sample.labels]
        bounds = [float(sample.labels["le"]) for sample in samples if "le" in sample.labels]
        return sdk.HistogramDataPoint(
            attributes=dict(labels), start_time_unix_nano=began, time_unix_nano=now, count=counts[-1],
            sum=next(sample.value for sample in samples if sample.name.endswith("_sum")),
            bucket_counts=[after - before for before, after in pairwise([0, *counts])], explicit_bounds=bounds[:-1],
            min=None, max=None,  # type: ignore[arg-type]  # left out on the wire: the counters do not keep them
        )  # fmt: skip

    def metrics() -> Iterator[sdk.Metric]:
        whole = sdk.AggregationTemporality.CUMULATIVE
        for family in families:
            data: sdk.DataT
            if not family.samples:
                continue
            if family.type == "histogram":
                points = [histogram(*group) for group in groupby(family.samples, _labels)]
                name, data = family.name, sdk.Histogram(data_points=points, aggregation_temporality=whole)
            else:
                name, values = family.samples[0].name, [number(sample) for sample in family.samples]
                data = (
                    sdk.Sum(data_points=values, aggregation_temporality=whole, is_monotonic=True)
                    if family.type == "counter"
                    else sdk.Gauge(data_points=values)
                )
            yield sdk.Metric(name=name, description=family.documentation, unit="", data=data)

    scope = sdk.ScopeMetrics(scope=InstrumentationScope("sealbus"), metrics=list(metrics()), schema_url="")
    return sdk.MetricsData([sdk.ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _labels(sample: Sample) -> tuple[tuple[str, str], ...]:
    """Return the labels of a sample, except the bound of its bucket."""
    return tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
