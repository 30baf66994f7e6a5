"""Makes spans by OpenTelemetry's conventions for messaging; used only in a process that has a provider of spans.

A message has two spans. Its sender makes `send`. Its recipient makes `process`, from when the message was opened until it is
settled. The steps between (decided, recorded, handled) are times in the attributes of `process`, because a span costs as much
as a decision. Trace fields of a message decide nothing; they are only for readers of traces.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from sealbus.bus.telemetry.processed import ProcessedMessage
from sealbus.bus.telemetry.spans import (
    MICROSECOND,
    TRACEPARENT,
    HttpRequest,
    Processing,
    Sending,
    now,
    parse_traceparent,
)
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.seal import Draft

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def has_provider() -> bool:
    """Return whether the process has set a provider of spans. OpenTelemetry's API alone makes no spans, at the same cost."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class Tracer:
    """Makes the spans of one process."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer("sealbus")

    def sending(self, draft: Draft) -> Sending:
        """Begin the span of a message. It follows from the current span, unless the message's `tid` names another trace."""
        context, trace_id = None, draft.tid
        if trace_id is not None and int.from_bytes(trace_id) != trace.get_current_span().get_span_context().trace_id:
            # The message continues a chain whose first span this process does not know.
            context = _remote(int.from_bytes(trace_id), int.from_bytes(trace_id[:8]))
        span = self._tracer.start_span(f"send {draft.to}", context, SpanKind.PRODUCER, _messaging("send", draft.to))
        return Sending(span)

    def processing(self, processed: ProcessedMessage) -> Processing:
        """Begin the span of a recorded message, at the time when it was opened.

        The span of a resumed task also links to its approval.
        """
        message, action = processed.message, processed.action
        # Other times of a span are the host's.
        recorded = now()
        beside = recorded - processed.recorded
        header, arrival = message.header, message.arrival
        parent = parent_of(header)
        links = [parent] if isinstance(arrival, StreamArrival) else []
        if processed.approval is not None:
            links.append(parent_of(processed.approval))
        attributes: dict[str, str | int] = {
            **_messaging("process", header.to),
            "messaging.message.id": header.id.hex(),
            "sealbus.action": action,
            "sealbus.sender": header.iss.value,
            "sealbus.verdict": processed.verdict,
            "sealbus.policy.revision": processed.revision,
            "sealbus.decided": processed.decided + beside,
            "sealbus.recorded": recorded,
        }
        if message.context is not None:
            attributes["messaging.message.conversation_id"] = message.context.txn.hex()
        if processed.record:
            attributes["sealbus.decision"] = processed.record.hex()
        if processed.place is not None:
            attributes["sealbus.record.stream"], attributes["sealbus.record.sequence"] = processed.place
        if isinstance(arrival, StreamArrival):
            attributes["sealbus.received"] = arrival.stored
            attributes["sealbus.delivery"] = arrival.delivery
        span = self._tracer.start_span(
            f"process {action}",
            _child_of(parent),
            SpanKind.CONSUMER,
            attributes,
            [Link(link) for link in links if link is not None],
            (processed.opened + beside) * MICROSECOND,
        )
        return Processing(span)

    @contextmanager
    def request(self, parent: str) -> Generator[HttpRequest, None, None]:
        """Make the span of one HTTP request, which follows from its `traceparent` if that is well-formed."""
        span = self._tracer.start_span("request", _child_of(parse_traceparent(parent)), SpanKind.SERVER)
        token = current.attach(trace.set_span_in_context(span))
        try:
            yield HttpRequest(span)
        finally:
            current.detach(token)
            span.end()


def parent_of(header: Header) -> SpanContext | None:
    """Return the span in which a message was sent.

    If the message has a `tid` without a `traceparent` of that trace, the span is made up from the message's digest.
    """
    if header.tid is None or not any(header.tid):
        return None
    text = (header.ext or {}).get(TRACEPARENT)
    context = parse_traceparent(text) if isinstance(text, str) else None
    if context is not None and context.trace_id == int.from_bytes(header.tid):
        return context
    return SpanContext(int.from_bytes(header.tid), int.from_bytes(header.digest[:8]) or 1, True, _SAMPLED)


def _messaging(operation: str, subject: str) -> dict[str, str]:
    return {
        "messaging.system": "nats",
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
        "messaging.destination.name": subject,
    }


def _child_of(parent: SpanContext | None) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else Context()


def _remote(trace_id: int, span_id: int) -> Context:
    context = SpanContext(trace_id, span_id or 1, True, _SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(context)) if context.is_valid else Context()
