"""What is kept of a request, and its handle."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from support.acceptance import EDGE_ID, PLANNER
from support.envelopes import HOUR, MINUTE, NAMES, NOW, agent, call_draft, event_draft, message_id, task_draft

from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.message.seal import seal
from sealbus.envelopes.trust.spiffe_id import SpiffeId

TASK = PendingRequest(digest=b"d" * 32, id=message_id(1), aud=agent("inventory"), end=NOW + HOUR)
CALL = PendingRequest(
    digest=b"d" * 32, id=message_id(1), aud=agent("pricing"), end=NOW + MINUTE, rpl="_INBOX.planner.1"
)


def test_of_a_task_and_of_a_call() -> None:
    task, call = seal([task_draft(), call_draft(2)], PLANNER)
    assert PendingRequest.of(task.header) == PendingRequest(
        digest=task.header.digest, id=message_id(1), aud=agent("inventory"), end=NOW + HOUR
    )
    assert PendingRequest.of(call.header) == PendingRequest(
        digest=call.header.digest, id=message_id(2), aud=agent("pricing"), end=NOW + MINUTE, rpl="_INBOX.planner.2"
    )


def test_of_nothing_else() -> None:
    [plain, directed] = seal([event_draft(), event_draft(2)._replace(aud=agent("planner"))], PLANNER)
    for sealed in (plain, directed):
        with pytest.raises(SealError, match="a event has no answer"):
            PendingRequest.of(sealed.header)


def test_where_answers_arrive() -> None:
    assert CALL.answers_to(agent("planner"), NAMES) == "_INBOX.planner.1"
    assert TASK.answers_to(agent("planner"), NAMES) == f"status.planner.{message_id(1).hex()}"
    assert TASK.answers_to(EDGE_ID, NAMES) == f"status.{NAMES.token(EDGE_ID)}.{message_id(1).hex()}"


@pytest.mark.parametrize("request_", [TASK, CALL])
def test_a_handle_is_read_back(request_: PendingRequest) -> None:
    assert PendingRequest.parse(request_.encode()) == request_
    text = request_.to_text()
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert PendingRequest.from_text(text) == request_


def test_the_longest_handle_is_read_back() -> None:
    longest = PendingRequest(
        digest=b"d" * 32,
        id=message_id(1),
        aud=SpiffeId("spiffe://example.org/" + "a" * 2_027),
        end=2**53 - 1,
        rpl="_INBOX." + "p" * 248,
    )
    assert PendingRequest.from_text(longest.to_text()) == longest


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": b"d"},
        {"id": b"i"},
        {"end": -1},
        {"rpl": "_INBOX.*"},
    ],
)
def test_fields_have_limits(changes: dict[str, Value]) -> None:
    fields: dict[str, object] = {"digest": b"d" * 32, "id": message_id(1), "aud": agent("pricing"), "end": NOW}
    with pytest.raises(SealError):
        PendingRequest(**(fields | changes))  # type: ignore[arg-type]  # fields of their own types


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"dig": b"d"},
        {"dig": "d"},
        {"aud": "pricing"},
        {"rpl": ""},
        {"x": 1},
    ],
)
def test_bytes_that_are_no_handle_are_malformed(changes: dict[str, Value]) -> None:
    value = decode(CALL.encode())
    assert isinstance(value, dict)
    handle = encode(value | changes)
    with pytest.raises(EnvelopeError) as caught:
        PendingRequest.parse(handle)
    assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)
    with pytest.raises(EnvelopeError):
        PendingRequest.from_text(urlsafe_b64encode(handle).rstrip(b"=").decode())


def test_a_handle_has_a_size() -> None:
    with pytest.raises(EnvelopeError, match="too large"):
        PendingRequest.parse(b"\xc4" * 4_097)


def test_text_that_is_no_handle_is_malformed() -> None:
    text = CALL.to_text()
    for other in ("", "A", text + "=", text[:5] + "!" + text[5:], text + "\n", "é", "A" * 8_193, text[:-4]):
        with pytest.raises(EnvelopeError) as caught:
            PendingRequest.from_text(other)
        assert (caught.value.code, caught.value.step) == (Code.MALFORMED, 0)
