"""The body of a cancel: comes back as it was, and anything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.bus.sending.cancel import CANCEL_TYPE, CancelRequest, CancelRole, encode_cancel, parse_cancel
from sealbus.envelopes.errors import BadBody

REQUEST = CancelRequest(digest=bytes(range(32)), action="inventory.update", end=7, reason="zuviel é 🙂")


@pytest.mark.parametrize("role", list(CancelRole))
@pytest.mark.parametrize("reason", ["", "enough", "é" * 128])
def test_it_comes_back_as_it_was(role: CancelRole, reason: str) -> None:
    request = CancelRequest(digest=bytes(32), action="a.b", end=2**53 - 1, role=role, reason=reason)
    body = encode_cancel(request)
    assert body.typ == CANCEL_TYPE
    assert parse_cancel(body.body, body.typ) == request


@pytest.mark.parametrize(
    "wrong",
    [
        {"digest": bytes(31)},
        {"action": ""},
        {"action": "inventory.*"},
        {"action": "inventory update"},
        {"reason": "x" * 257},
        {"reason": "a\nb"},
        {"reason": None},
        {"reason": b"x"},
        {"end": -1},
        {"end": 2**53},
        {"end": 1.5},
        {"end": True},
    ],
)
def test_what_cannot_be_canceled_is_not_made(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  several texts
        CancelRequest(**{"digest": bytes(32), "action": "a.b", "end": 7, **wrong})  # type: ignore[arg-type]


SAID = json.loads(encode_cancel(REQUEST).body)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"v": "1"},
        {"task": "0f"},
        {"task": SAID["task"].upper()},
        {"task": 7},
        {"role": "king"},
        {"role": ["operator"]},
        {"action": "*"},
        {"action": None},
        {"reason": 1},
        {"reason": "a\u0000"},
        {"end": "7"},
        {"end": -1},
        {"end": 7.0},
        {"end": True},
        {"more": "x"},
    ],
)
def test_another_body_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(BadBody):
        parse_cancel(json.dumps({**SAID, **changes}).encode(), CANCEL_TYPE)


@pytest.mark.parametrize("name", sorted(SAID))
def test_every_member_is_needed(name: str) -> None:
    with pytest.raises(BadBody):
        parse_cancel(json.dumps({key: value for key, value in SAID.items() if key != name}).encode(), CANCEL_TYPE)


def test_another_type_or_too_much_is_refused() -> None:
    body = encode_cancel(REQUEST).body
    with pytest.raises(BadBody):
        parse_cancel(body, "application/json")
    with pytest.raises(BadBody):
        parse_cancel(body + b" " * 4_096, CANCEL_TYPE)


@given(st.binary(max_size=200))
def test_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(BadBody):
        parse_cancel(data, CANCEL_TYPE)
