"""The spans of one message and of one HTTP request, and the text by which a span is passed on.

A message carries its span to its recipient as `traceparent` (W3C Trace Context) in `ext`. The trace id there equals the
header's `tid`. No attribute of a span holds a payload, a token or a user.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags

from sealbus.envelopes.message.fields import ExtValue
from sealbus.envelopes.message.seal import Draft, Sealed

TRACEPARENT: Final = "traceparent"
"""Name of the HTTP header field, and of the entry in a message's `ext`."""
MICROSECOND: Final = 1_000
"""Nanoseconds, in which OpenTelemetry writes times."""
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_FAILED: Final = 500
"""The lowest HTTP status that reports a failure of the server."""


class Sending:
    """The span of one message that is being sent."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def carried(self, draft: Draft) -> tuple[bytes | None, Mapping[str, ExtValue] | None]:
        """Return `tid` and `ext` of the message, with this span; unchanged if the provider makes no spans."""
        context = self._span.get_span_context()
        if not context.is_valid:
            return draft.tid, draft.ext
        return context.trace_id.to_bytes(16), {**(draft.ext or {}), TRACEPARENT: _format_traceparent(context)}

    def sent(self, sealed: Sealed, stream: str = "", sequence: int = 0) -> None:
        """End the span of a message that was sent, and stored in `stream` if it is durable."""
        if self._span.is_recording():
            attributes: dict[str, str | int] = {"messaging.message.id": sealed.header.id.hex()}
            if stream:
                attributes |= {"sealbus.stream": stream, "sealbus.stream.sequence": sequence}
            self._span.set_attributes(attributes)
        self._span.end()

    def failed(self, error: BaseException) -> None:
        """End the span of a message that was not sent, or may not have been sent."""
        _set_error(self._span, str(getattr(error, "code", type(error).__name__)))
        self._span.end()


class Processing:
    """The span of one message that was opened here, until it is settled."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @contextmanager
    def handling(self) -> Generator[None, None, None]:
        """Make this the current span while the handler runs, so that the handler's messages follow from it."""
        token = current.attach(trace.set_span_in_context(self._span))
        try:
            yield
        finally:
            current.detach(token)
            self._span.set_attribute("sealbus.handled", now())

    def failed(self, code: str) -> None:
        """Note why its handler failed, or did not run."""
        if self._span.is_recording():
            _set_error(self._span, code)

    def end(self, settled: str) -> None:
        """End the span; `settled` says how the delivery was settled. A second call changes nothing."""
        if self._span.is_recording():
            self._span.set_attribute("sealbus.settled", settled)
            self._span.end()


class HttpRequest:
    """The span of one HTTP request."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """The id of the trace, in hex digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def answered(self, method: str, route: str, status: int, request_id: str) -> None:
        """Note how the request was answered; `route` is the pattern of its path, which we declared."""
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
            _set_error(self._span, str(status))


def current_traceparent() -> str:
    """Return the `traceparent` of the current span; empty without one."""
    context = trace.get_current_span().get_span_context()
    return _format_traceparent(context) if context.is_valid else ""


def parse_traceparent(text: str) -> SpanContext | None:
    """Return the span that a `traceparent` names; `None` if the text is malformed."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    context = SpanContext(int(match[1], 16), int(match[2], 16), True, TraceFlags(int(match[3], 16) & 1))
    return context if context.is_valid else None


def now() -> int:
    """Return the time in microseconds since the Unix epoch."""
    return time.time_ns() // MICROSECOND


def _format_traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def _set_error(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))
