"""Spans of what is sent and handled, by OpenTelemetry's conventions for messaging; made only if a process has a provider.

Two spans a message: `send` at who sends it, and `process` at who handles it, from when it was opened until it is settled.
What lies between (decided, recorded, handled) are times in the attributes of `process`: a span costs as much as a decision.
A message carries its span to its recipient as `traceparent` (W3C Trace Context) in `ext`, whose trace id is the header's
`tid`.

No attribute holds a payload, a token or a user. What a message says of spans is for whoever looks at traces, and decides
nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.message.freshness import StreamArrival
from sealbus.envelopes.message.header import ExtValue, Header
from sealbus.envelopes.message.seal import Draft, Sealed

__all__ = [
    "TRACEPARENT",
    "HttpRequest",
    "Processing",
    "Sending",
    "Tracer",
    "current_traceparent",
    "has_provider",
    "parent_of",
]

TRACEPARENT: Final = "traceparent"
"""Name of the header field of HTTP, and of the entry in a message's `ext`."""
_PARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SYSTEM: Final = {"messaging.system": "nats"}
_MICROSECOND: Final = 1_000
_FAILED: Final = 500
"""From this status on an answer of HTTP says that the server failed."""


def has_provider() -> bool:
    """Return whether somebody has set a provider of spans; the API alone makes none, and costs all the same."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


class Sending:
    """The span of one message that is being sent."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def carried(self, draft: Draft) -> tuple[bytes | None, Mapping[str, ExtValue] | None]:
        """Return `tid` and `ext` of the message; as they are where the provider makes no spans."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return draft.tid, draft.ext
        return context.trace_id.to_bytes(16), {**(draft.ext or {}), TRACEPARENT: _text(context)}

    def sent(self, sealed: Sealed, stream: str = "", sequence: int = 0) -> None:
        """End the span of a message that was sent, and stored in `stream` if it is durable."""
        if self._span.is_recording():
            attributes: dict[str, str | int] = {"messaging.message.id": sealed.header.id.hex()}
            if stream:
                attributes |= {"sealbus.stream": stream, "sealbus.stream.sequence": sequence}
            self._span.set_attributes(attributes)
        self._span.end()

    def failed(self, error: BaseException) -> None:
        """End the span of a message that was not sent, or of which that is not known."""
        _fail(self._span, str(getattr(error, "code", type(error).__name__)))
        self._span.end()


class Processing:
    """The span of one message that was opened here, until it is settled."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @contextmanager
    def handling(self) -> Generator[None, None, None]:
        """Make it the span of what the handler does, and note when that ends: what is sent meanwhile follows from it."""
        token = current.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            current.detach(token)
            self._span.set_attribute("sealbus.handled", _now())

    def failed(self, code: str) -> None:
        """Note why its handler failed, or was not run."""
        if self._span.is_recording():
            _fail(self._span, code)

    def end(self, settled: str) -> None:
        """End the span with what became of the delivery. What is settled already stays as it is."""
        if self._span.is_recording():
            self._span.set_attribute("sealbus.settled", settled)
            self._span.end()


class HttpRequest:
    """The span of one request of HTTP."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hex digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def answered(self, method: str, route: str, status: int, request_id: str) -> None:
        """Note how the request was answered; `route` is the pattern of a path of ours."""
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                "sealbus.request_id": request_id,
            }
        )
        if status >= _FAILED:
            _fail(self._span, str(status))


class Tracer:
    """Makes the spans of one process."""

    def __init__(self, tracer: trace.Tracer | None = None) -> None:
        self._tracer = tracer or trace.get_tracer("sealbus")

    def sending(self, draft: Draft) -> Sending:
        """Begin the span of a message that follows from the current span, in its trace or in that of the message's `tid`."""
        context, trace_id = None, draft.tid
        if trace_id is not None and int.from_bytes(trace_id) != trace.get_current_span().get_span_context().trace_id:
            # A chain goes on, and nothing that is known here has begun it.
            context = _remote(int.from_bytes(trace_id), int.from_bytes(trace_id[:8]))
        span = self._tracer.start_span(
            f"send {draft.to}",
            context,
            SpanKind.PRODUCER,
            {
                **_SYSTEM,
                "messaging.operation.type": "send",
                "messaging.operation.name": "send",
                "messaging.destination.name": draft.to,
            },
        )
        return Sending(span)

    def processing(
        self,
        message: VerifiedMessage,
        *,
        action: str,
        opened: int,
        decided: int,
        code: str | None,
        revision: str,
        record: bytes = b"",
        place: tuple[str, int] | None = None,
        after: Header | None = None,
    ) -> Processing:
        """Begin the span of a message that was decided on; times are microseconds since the Unix epoch.

        `record` is the leaf of the decision's record, `place` where it is stored, `code` why the message is not handled.
        `after` is the approval that a parked task goes on by.
        """
        header, arrival = message.header, message.arrival
        parent = parent_of(header)
        links = [parent] if isinstance(arrival, StreamArrival) else []
        if after is not None:
            links.append(parent_of(after))
        attributes: dict[str, str | int] = {
            **_SYSTEM,
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": header.to,
            "messaging.message.id": header.id.hex(),
            "sealbus.action": action,
            "sealbus.sender": header.iss.value,
            "sealbus.verdict": code or "allow",
            "sealbus.policy.revision": revision,
            "sealbus.decided": decided,
            "sealbus.recorded": _now(),
        }
        if message.context is not None:
            attributes["messaging.message.conversation_id"] = message.context.txn.hex()
        if record:
            attributes["sealbus.decision"] = record.hex()
        if place is not None:
            attributes["sealbus.record.stream"], attributes["sealbus.record.sequence"] = place
        if isinstance(arrival, StreamArrival):
            attributes["sealbus.received"] = arrival.stored
            attributes["sealbus.delivery"] = arrival.delivery
        span = self._tracer.start_span(
            f"process {action}",
            trace.set_span_in_context(NonRecordingSpan(parent)) if parent is not None else Context(),
            SpanKind.CONSUMER,
            attributes,
            [Link(one) for one in links if one is not None],
            opened * _MICROSECOND,
        )
        return Processing(span)

    @contextmanager
    def request(self, parent: str) -> Generator[HttpRequest, None, None]:
        """Make the span of one HTTP request, which follows from its `traceparent` if that is well-formed."""
        found = _parse(parent)
        context = trace.set_span_in_context(NonRecordingSpan(found)) if found is not None else Context()
        span = self._tracer.start_span("request", context, SpanKind.SERVER)
        token = current.attach(trace.set_span_in_context(span))
        try:
            yield HttpRequest(span)
        finally:
            current.detach(token)
            span.end()


def current_traceparent() -> str:
    """Return the `traceparent` of what is being handled; empty without a span."""
    context = trace.get_current_span().get_span_context()
    return _text(context) if context.is_valid else ""


def parent_of(header: Header) -> SpanContext | None:
    """Return the span that a message was sent by; made up from the message where it says its trace alone."""
    if header.tid is None or not any(header.tid):
        return None
    said = (header.ext or {}).get(TRACEPARENT)
    found = _parse(said) if isinstance(said, str) else None
    if found is not None and found.trace_id == int.from_bytes(header.tid):
        return found
    return SpanContext(int.from_bytes(header.tid), int.from_bytes(header.digest[:8]) or 1, True, _SAMPLED)


def _remote(trace_id: int, span_id: int) -> Context:
    context = SpanContext(trace_id, span_id or 1, True, _SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(context)) if context.is_valid else Context()


def _parse(text: str) -> SpanContext | None:
    found = _PARENT.fullmatch(text)
    if found is None:
        return None
    context = SpanContext(int(found[1], 16), int(found[2], 16), True, TraceFlags(int(found[3], 16) & 1))
    return context if context.is_valid else None


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def _now() -> int:
    return time.time_ns() // _MICROSECOND
