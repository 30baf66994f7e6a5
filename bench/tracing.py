"""What spans cost a message of the gate: without a provider, and with OpenTelemetry exporting to another process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from support.real_bus import real_bus

from bench.gate import QUOTE, TASKS, drain, fill
from bench.report import Figure
from sealbus import Client
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.tracing import SAMPLED
from sealbus.agents.runtime.worker import settle_collector
from sealbus.agents.sdk.messages import Origin, task_message
from sealbus.agents.sdk.sender import encoded
from sealbus.bus.telemetry.tracing import Tracer
from sealbus.policies.engines.embedded import EmbeddedEngine

__all__ = ["figures"]

ROUNDS = 5
OFF_GUARD = 1.0
ON_GUARD = 30.0
ON_GOAL = 10.0
_SINK = """
import http.server
class Sink(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def figures() -> AsyncIterator[Figure]:
    """Measure in turns, on two nodes of one identity; processor time, because other load on the machine changes waiting."""
    with tempfile.TemporaryDirectory() as folder, _sink() as port:
        async with (
            real_bus(Path(folder), "pricing", "shop-web", max_bytes=1 << 29) as bus,
            EmbeddedEngine.of_folder() as engine,
        ):
            client = Client.on(await bus.node("shop-web", engine))
            node = await bus.node("pricing", engine)
            assert node.tracer is None
            some, every = (_provider(port, share) for share in (SAMPLED, 1.0))
            settle_collector()
            await _costs(client, node, None)
            rounds = []
            for _ in range(ROUNDS):
                found = [await _costs(client, node, one) for one in (None, some, every)]
                rounds.append((min(found[0], await _costs(client, node, None)), *found[1:]))
            checks = _checks(node)
            for one in (some, every):
                one.shutdown()
    bare = statistics.median(one for one, _, _ in rounds)
    some_more, every_more = ([100 * (one[number] / one[0] - 1) for one in rounds] for number in (1, 2))
    yield Figure.of([one * 1e6 for one, _, _ in rounds], name="a task through the gate, processor time", unit="us")
    yield Figure(
        name="  spans off: what asks for them",
        value=100 * checks / bare,
        unit="%",
        guard=OFF_GUARD,
        beside=f"{checks * 1e9:.0f} ns",
    )
    yield Figure.of(some_more, name=f"  spans on, {SAMPLED:.0%} sampled: more", unit="%", guard=ON_GUARD, goal=ON_GOAL)
    yield Figure.of(every_more, name="  spans on, each one exported: more", unit="%")


def _provider(port: int, share: float) -> TracerProvider:
    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")))
    return provider


async def _costs(client: Client, node: Node, provider: TracerProvider | None) -> float:
    """Return the processor time of this process for each of the tasks that a worker on `node` handles, in seconds."""
    # The worker takes it from its node.
    node.tracer = Tracer(provider.get_tracer("sealbus")) if provider is not None else None
    await fill(client)
    began = time.process_time()
    await drain(node, status=False)
    if provider is not None:
        provider.force_flush()
    return (time.process_time() - began) / TASKS


def _checks(node: Node) -> float:
    """Return the seconds that a message pays for there being no tracer: at its sender, and where it is handled."""
    names = node.deployment.names
    message = task_message("pricing.quote", encoded(QUOTE, "application/json"), names=names, origin=Origin())
    gate, permitted, none = SimpleNamespace(tracer=None), SimpleNamespace(span=None), nullcontext()
    outbox = node.outbox

    def handled() -> None:
        if gate.tracer is not None:
            raise AssertionError
        with permitted.span.handling() if permitted.span is not None else none:
            pass
        for _ in range(4):
            if permitted.span is not None:
                raise AssertionError

    number = 200_000
    sending = min(timeit.repeat(lambda: outbox._traced(message), number=number, repeat=5))
    handling = min(timeit.repeat(handled, number=number, repeat=5))
    return (sending + handling) / number


@contextmanager
def _sink() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", _SINK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()
