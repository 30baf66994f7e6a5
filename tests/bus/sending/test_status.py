"""What a status says, as bytes and back: one reading of each, and none of what no writer could mean."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import FINAL, PER_DELIVERY, STATUS_TYPE, State, Status, encode, parse, sequence_of
from sealbus.envelopes.denial import DENIERS, REMEDIES, Denier, Remedy, RemedyKind
from sealbus.envelopes.errors import BadBody

RESULT = Content(body=b'{"a":1}', typ="application/json")
PLANNER = Denier("spiffe://example.org/agent/planner", "planner.plan", "denied")
STOCK = Denier("spiffe://example.org/agent/stock", "stock.update", "denied")
OTHERS = [state for state in State if state is not State.COMPLETED]


def read(status: Status) -> Status:
    said = encode(status)
    return parse(said.body, said.typ, fin=status.final, sequence=status.sequence)


@pytest.mark.parametrize("state", OTHERS)
def test_every_state_comes_back_as_it_was(state: State) -> None:
    status = Status(
        state=state,
        code="denied",
        reasons=("not_owner", "ü"),
        note="a line",
        remedies=(Remedy(kind=RemedyKind.LOGIN, acr="urn:x:2", max_age=300),),
        via=(PLANNER, STOCK),
        sequence=7,
    )
    assert read(status) == status
    assert encode(status).typ == STATUS_TYPE
    assert status.final is (state in FINAL)


def test_a_completed_status_is_its_result() -> None:
    status = Status(state=State.COMPLETED, result=RESULT, sequence=3)
    assert encode(status) == RESULT
    assert read(status) == status
    assert status.final


def test_the_largest_denial_is_no_larger_than_what_is_read() -> None:
    denier = Denier("spiffe://example.org/" + "a" * 2_027, "a" * 256, "d" * 64)
    remedy = Remedy(kind=RemedyKind.ASK, whom='"' * 256)
    status = Status(
        state=State.REJECTED,
        code="d" * 64,
        reasons=('"' * 256,) * 32,
        note='"' * 256,
        remedies=(remedy,) * REMEDIES,
        via=(denier,) * DENIERS,
    )
    assert read(status) == status


@pytest.mark.parametrize(
    "members", [{"remedy": "login"}, {"remedy": [{"kind": "bribe"}, 7]}, {"via": [["a", "b", "c"]]}]
)
def test_invalid_remedies_and_chains_are_left_out(members: dict[str, object]) -> None:
    status = parse(said("rejected", code="denied", **members), STATUS_TYPE, fin=True, sequence=0)
    assert status == Status(state=State.REJECTED, code="denied")


def test_what_is_not_said_is_left_out() -> None:
    assert encode(Status(state=State.WORKING)).body == b'{"state":"working"}'


def said(state: object = "failed", **more: object) -> bytes:
    return json.dumps({"state": state, **more}).encode()


@pytest.mark.parametrize(
    ("body", "fin"),
    [
        (b"", True),
        (b"null", True),
        (b"[]", True),
        (b"{}", True),
        (b'{"state":"failed","state":"working"}', True),
        (said("done"), True),
        (said(None), True),
        (said("completed"), True),
        (said("failed"), False),
        (said("working"), True),
        (said(code=7), True),
        (said(code="Not A Code"), True),
        (said(reasons="no"), True),
        (said(reasons=[1]), True),
        (said(reasons=["r"] * 33), True),
        (said(note="n" * 257), True),
        (said(note="a\nb"), True),
        (said(more=1), True),
        (b" " * 65_537 + said(), True),
    ],
)
def test_what_no_writer_could_mean_is_refused(body: bytes, fin: bool) -> None:
    with pytest.raises(BadBody):
        parse(body, STATUS_TYPE, fin=fin, sequence=0)


def test_a_result_whose_status_is_not_final_is_refused() -> None:
    with pytest.raises(BadBody):
        parse(b"{}", "application/json", fin=False, sequence=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": State.COMPLETED},
        {"state": State.FAILED, "result": RESULT},
        {"state": State.COMPLETED, "result": RESULT, "code": "denied"},
        {"state": State.COMPLETED, "result": Content(body=b"", typ=STATUS_TYPE)},
        {"state": State.FAILED, "code": "9"},
        {"state": State.FAILED, "reasons": ("x" * 257,)},
        {"state": State.WORKING, "note": "\x07"},
        {"state": State.WORKING, "sequence": -1},
        {"state": State.COMPLETED, "result": RESULT, "via": (PLANNER,)},
        {"state": State.REJECTED, "remedies": (Remedy(kind=RemedyKind.LOGIN),) * 5},
        {"state": State.REJECTED, "via": (PLANNER,) * 9},
    ],
)
def test_what_no_status_can_be_is_not_made(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Status(**fields)  # type: ignore[arg-type]


def test_a_result_is_not_shown() -> None:
    assert RESULT.body.decode() not in repr(Status(state=State.COMPLETED, result=RESULT))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_a_status_or_refused(body: bytes, fin: bool) -> None:
    try:
        status = parse(body, STATUS_TYPE, fin=fin, sequence=1)
    except BadBody:
        return
    assert read(status) == status


def test_numbers_of_later_deliveries_are_higher() -> None:
    assert sequence_of(1, 0) == 0
    assert sequence_of(1, PER_DELIVERY - 1) < sequence_of(2, 0)
    assert sequence_of(2**40, PER_DELIVERY - 1) < 2**32


@pytest.mark.parametrize(("delivery", "number"), [(0, 0), (1, -1), (1, PER_DELIVERY)])
def test_there_are_no_other_numbers(delivery: int, number: int) -> None:
    with pytest.raises(ValueError, match="deliveries count"):
        sequence_of(delivery, number)
