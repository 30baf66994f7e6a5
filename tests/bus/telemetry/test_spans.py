"""`traceparent` in and out, and how the spans of messages and HTTP requests end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext, StatusCode, TraceFlags
from support.acceptance import PLANNER
from support.envelopes import task_draft
from support.spans import KeptSpans

from sealbus.bus.ports import Overloaded
from sealbus.bus.telemetry.spans import HttpRequest, Processing, Sending, current_traceparent, parse_traceparent
from sealbus.envelopes.message.seal import seal

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = SpanContext(int(TRACE, 16), int(SPAN, 16), True, TraceFlags(0))


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> KeptSpans:
    return KeptSpans(monkeypatch)


@pytest.fixture(autouse=True)
def no_span_before() -> Iterator[None]:
    token = context.attach(context.Context())
    yield
    context.detach(token)


def begun(spans: KeptSpans) -> trace.Span:
    return spans.provider.get_tracer("test").start_span("span")


def ended(spans: KeptSpans) -> tuple[ReadableSpan, dict[str, object]]:
    [span] = spans.ended
    return span, dict(span.attributes or {})


@pytest.mark.parametrize(("flags", "sampled"), [("00", 0), ("01", 1), ("ff", 1), ("02", 0)])
def test_a_traceparent_names_a_span_and_whether_it_is_sampled(flags: str, sampled: int) -> None:
    parsed = parse_traceparent(f"00-{TRACE}-{SPAN}-{flags}")
    assert parsed is not None
    assert (f"{parsed.trace_id:032x}", f"{parsed.span_id:016x}", parsed.trace_flags) == (TRACE, SPAN, sampled)
    assert parsed.is_remote


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"01-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_names_no_span(text: str) -> None:
    assert parse_traceparent(text) is None


def test_the_current_span_is_written_as_it_is_read() -> None:
    assert current_traceparent() == ""
    for flags in (0, 1):
        current = SpanContext(CONTEXT.trace_id, CONTEXT.span_id, True, TraceFlags(flags))
        with trace.use_span(NonRecordingSpan(current)):
            text = current_traceparent()
        assert text == f"00-{TRACE}-{SPAN}-0{flags}"
        assert parse_traceparent(text) == current


def test_a_message_carries_its_span_beside_what_it_has_in_ext() -> None:
    draft = task_draft()._replace(ext={"note": "kept"})
    tid, ext = Sending(NonRecordingSpan(CONTEXT)).carried(draft)
    assert tid == bytes.fromhex(TRACE)
    assert ext == {"note": "kept", "traceparent": f"00-{TRACE}-{SPAN}-00"}
    assert draft.ext == {"note": "kept"}


def test_without_a_valid_span_a_message_stays_as_it_is() -> None:
    draft = task_draft()._replace(tid=bytes(16), ext={"note": "kept"})
    assert Sending(INVALID_SPAN).carried(draft) == (draft.tid, draft.ext)


@pytest.mark.parametrize("stream", ["", "TASKS"])
def test_the_span_of_a_sent_message_tells_its_id_and_where_it_is_stored(spans: KeptSpans, stream: str) -> None:
    [sealed] = seal([task_draft()], PLANNER)
    Sending(begun(spans)).sent(sealed, stream, 7)
    span, attributes = ended(spans)
    place = {"sealbus.stream": "TASKS", "sealbus.stream.sequence": 7} if stream else {}
    assert attributes == {"messaging.message.id": sealed.header.id.hex(), **place}
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(("error", "code"), [(Overloaded("full"), "overloaded"), (ValueError("x"), "ValueError")])
def test_the_span_of_a_message_that_was_not_sent_is_an_error(spans: KeptSpans, error: Exception, code: str) -> None:
    Sending(begun(spans)).failed(error)
    span, attributes = ended(spans)
    assert (span.status.status_code, attributes) == (StatusCode.ERROR, {"error.type": code})


def test_a_span_is_current_while_its_message_is_handled_and_ends_once(spans: KeptSpans) -> None:
    begun_span = begun(spans)
    processing = Processing(begun_span)
    with suppress(ValueError), processing.handling():
        assert trace.get_current_span() is begun_span
        raise ValueError("the handler failed")
    assert trace.get_current_span() is not begun_span
    processing.failed("handler_failed")
    processing.end("put off")
    processing.failed("other")
    processing.end("acknowledged")
    span, attributes = ended(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert isinstance(attributes.pop("sealbus.handled"), int)
    assert attributes == {"error.type": "handler_failed", "sealbus.settled": "put off"}


@pytest.mark.parametrize(("status", "code"), [(200, None), (404, None), (499, None), (500, "500"), (503, "503")])
def test_only_a_failure_of_the_server_makes_the_span_of_a_request_an_error(
    spans: KeptSpans, status: int, code: str | None
) -> None:
    span = begun(spans)
    request = HttpRequest(span)
    assert request.trace_id == f"{span.get_span_context().trace_id:032x}"
    request.answered("POST", "/v1/calls/{agent}", status, "r1")
    span.end()
    [kept] = spans.named("POST /v1/calls/{agent}")
    attributes = dict(kept.attributes or {})
    assert (attributes["http.response.status_code"], attributes["sealbus.request_id"]) == (status, "r1")
    assert attributes.get("error.type") == code
    assert (kept.status.status_code is StatusCode.ERROR) is (code is not None)
