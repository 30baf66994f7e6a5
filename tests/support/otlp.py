"""A receiver of spans and metrics by OTLP over HTTP, which keeps what it was sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as RawMetric
from opentelemetry.proto.trace.v1.trace_pb2 import Span as RawSpan

__all__ = ["Spans", "received_spans"]


@dataclass(frozen=True, slots=True)
class Received:
    """One span: its service, and what it says."""

    service: str
    raw: RawSpan

    @property
    def name(self) -> str:
        return str(self.raw.name)

    @property
    def kind(self) -> str:
        return str(RawSpan.SpanKind.Name(self.raw.kind).removeprefix("SPAN_KIND_").lower())

    @property
    def attributes(self) -> dict[str, Any]:
        return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in self.raw.attributes}


class Spans:
    """What has arrived by now; `endpoint` is where it is sent."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.raw = b""
        """The bytes of all requests, decompressed."""
        self._all: list[Received] = []
        self.metrics: dict[str, dict[str, RawMetric]] = {}
        """The newest metrics of each service, by name."""
        self._arrived = threading.Condition()

    def take_metrics(self, body: bytes) -> None:
        request = ExportMetricsServiceRequest.FromString(body)
        with self._arrived:
            for one in request.resource_metrics:
                [service] = [each.value.string_value for each in one.resource.attributes if each.key == "service.name"]
                self.metrics[service] = {metric.name: metric for scope in one.scope_metrics for metric in scope.metrics}
            self._arrived.notify_all()

    def wait_for_metrics(self, service: str, holds: Callable[[dict[str, RawMetric]], bool]) -> dict[str, RawMetric]:
        """Return the metrics of a service once something holds of them."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: holds(self.metrics.get(service, {})), 20), self.metrics
            return self.metrics[service]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._arrived:
            self.raw += body
            for one in request.resource_spans:
                [service] = [each.value.string_value for each in one.resource.attributes if each.key == "service.name"]
                self._all += [Received(service, span) for scope in one.scope_spans for span in scope.spans]
            self._arrived.notify_all()

    def wait_for(self, number: int, *, trace: bytes, seconds: float = 20) -> list[Received]:
        """Return the spans of a trace in order of their starts, once there are so many."""

        def those() -> list[Received]:
            return [one for one in self._all if one.raw.trace_id == trace]

        with self._arrived:
            assert self._arrived.wait_for(lambda: len(those()) >= number, seconds), [one.name for one in self._all]
            return sorted(those(), key=lambda one: one.raw.start_time_unix_nano)


@contextmanager
def received_spans() -> Iterator[Spans]:
    """Listen on a free port of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            (spans.take_metrics if self.path == "/v1/metrics" else spans.take)(body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        spans = Spans(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield spans
        finally:
            server.shutdown()
            thread.join()
