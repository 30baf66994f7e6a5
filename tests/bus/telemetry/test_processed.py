"""The span of a processed message tells the steps, the verdict and the record, and nothing that is not known."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from support.acceptance import Delivery, Message
from support.envelopes import NOW
from support.spans import KeptSpans

from sealbus.bus.telemetry.processed import ProcessedMessage
from sealbus.envelopes.limits import SECOND

PROCESSED = ProcessedMessage(
    Delivery().accept(Message()),
    action="inventory.update",
    opened=NOW + 2 * SECOND,
    decided=NOW + 3 * SECOND,
    recorded=NOW + 5 * SECOND,
    verdict="denied",
    revision="r1",
)
RECORD = ("sealbus.decision", "sealbus.record.stream", "sealbus.record.sequence")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> KeptSpans:
    return KeptSpans(monkeypatch)


def span_of(spans: KeptSpans, processed: ProcessedMessage) -> ReadableSpan:
    spans.tracer.processing(processed).end("acknowledged")
    return spans.named("process inventory.update")[-1]


def test_a_span_begins_when_the_message_was_opened_and_tells_the_decision(spans: KeptSpans) -> None:
    """All by the clock of the host, whatever clock the message went by."""
    span = span_of(spans, PROCESSED)
    attributes = dict(span.attributes or {})
    recorded = attributes["sealbus.recorded"]
    assert isinstance(recorded, int)
    assert span.start_time == (recorded - 3 * SECOND) * 1_000
    assert attributes["sealbus.decided"] == recorded - 2 * SECOND
    assert span.end_time is not None
    assert 0 <= span.end_time // 1_000 - recorded < 60 * SECOND
    assert (attributes["sealbus.verdict"], attributes["sealbus.policy.revision"]) == ("denied", "r1")
    assert attributes["sealbus.action"] == "inventory.update"
    assert not attributes.keys() & set(RECORD)
    assert "u-1001" not in repr(attributes)


def test_the_record_and_its_place_are_told_if_they_are_known(spans: KeptSpans) -> None:
    recorded = dict(span_of(spans, PROCESSED._replace(record=bytes(31) + b"\1")).attributes or {})
    assert recorded["sealbus.decision"] == "00" * 31 + "01"
    assert "sealbus.record.stream" not in recorded
    stored = dict(span_of(spans, PROCESSED._replace(record=bytes(32), place=("AUDIT", 7))).attributes or {})
    assert [stored[name] for name in RECORD] == ["00" * 32, "AUDIT", 7]


def test_the_span_of_a_resumed_task_links_to_its_approval(spans: KeptSpans) -> None:
    trace_id = bytes(15) + b"\7"
    approval = PROCESSED.message.header._replace(tid=trace_id)
    before, after = (span_of(spans, PROCESSED._replace(approval=header)) for header in (None, approval))
    assert len(after.links) == len(before.links) + 1
    assert after.links[-1].context.trace_id == 7
