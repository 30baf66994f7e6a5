"""Stops as bytes: believed only from the agent in whose place they are, and about what it was asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.acceptance import EDGE_ID, INVENTORY, ISSUER, PLANNER, TRUST, root_task
from support.envelopes import HOUR, NAMES, NOW

from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.work.cancel.stop import Stop, StopPlace, parse, place_of, sign
from sealbus.envelopes.encoding.codec import Value, decode, encode
from sealbus.envelopes.errors import Code, EnvelopeError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

OWN = ISSUER.sealer(INVENTORY)
HEADER = root_task().header
assert HEADER.aud is not None
STOP = Stop(
    agent=INVENTORY,
    digest=bytes(range(32)),
    action="inventory.update",
    by=EDGE_ID,
    role=CancelRole.REQUESTER,
    reason="enough",
    end=NOW + HOUR,
    at=NOW,
    cancel=b"c" * 32,
)
PLACE = STOP.place(NAMES)


def read(raw: bytes, place: StopPlace = PLACE, *, stored: int = NOW) -> Stop:
    return parse(raw, place, stored=stored, names=NAMES, trust=TRUST, caches=Caches())


@pytest.mark.parametrize("role", list(CancelRole))
def test_it_comes_back_as_it_was(role: CancelRole) -> None:
    stop = replace(STOP, role=role)
    assert read(sign(stop, OWN)) == stop


def test_its_subject_says_whose_it_is_about_what_and_from_whom() -> None:
    assert PLACE.subject == f"state.inventory.stop.{STOP.digest.hex()}.{NAMES.token(EDGE_ID)}"
    assert place_of(PLACE.subject) == PLACE


@pytest.mark.parametrize(
    "subject",
    ["state.inventory.effect.aa", PLACE.subject.upper(), PLACE.subject + ".x", PLACE.subject.replace("stop", "stops")],
)
def test_other_subjects_are_no_places_of_stops(subject: str) -> None:
    assert place_of(subject) is None


def test_one_that_another_signed_does_not_count() -> None:
    with pytest.raises(EnvelopeError) as caught:
        read(sign(STOP, PLANNER))
    assert (caught.value.code, caught.value.step) == (Code.BAD_SIGNATURE, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"agent": SpiffeId("spiffe://example.org/agent/other")},
        {"by": SpiffeId("spiffe://example.org/agent/other")},
        {"digest": bytes(32)},
    ],
)
def test_one_in_anothers_place_does_not_count(other: dict[str, object]) -> None:
    """A genuine stop that somebody stores again elsewhere stops nothing there."""
    stop = replace(STOP, **other)  # type: ignore[arg-type]
    with pytest.raises(EnvelopeError) as caught:
        read(sign(stop, ISSUER.sealer(stop.agent)))
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize(
    ("late", "counts"),
    [(-5 * SECOND - 1, False), (-5 * SECOND, True), (0, True), (60 * SECOND, True), (60 * SECOND + 1, False)],
)
def test_one_counts_only_if_it_was_stored_when_it_was_made(late: int, counts: bool) -> None:
    """Else a key whose credential has ended would sign stops for the past, and an old stop could be stored again."""
    if counts:
        assert read(sign(STOP, OWN), stored=NOW + late) == STOP
    else:
        with pytest.raises(EnvelopeError) as caught:
            read(sign(STOP, OWN), stored=NOW + late)
        assert caught.value.code is Code.REPLAYED


def test_it_is_an_array_of_four() -> None:
    parts = decode(sign(STOP, OWN), text_bytes=8_192, step=0)
    assert isinstance(parts, list)
    for array in (parts[:3], [*parts, b"x"], [*parts, 1]):
        with pytest.raises(EnvelopeError) as caught:
            read(encode(array, text_bytes=8_192))
        assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize("part", range(4))
def test_every_part_counts(part: int) -> None:
    parts = decode(sign(STOP, OWN), text_bytes=8_192, step=0)
    assert isinstance(parts, list)
    damaged: list[Value] = [
        one + b"x" if at == part and isinstance(one, bytes) else one for at, one in enumerate(parts)
    ]
    with pytest.raises(EnvelopeError):
        read(encode(damaged, text_bytes=8_192))


def test_a_changed_payload_does_not_count() -> None:
    stored = sign(STOP, OWN)
    assert stored.count(b"requester") == 1
    with pytest.raises(EnvelopeError):
        read(stored.replace(b"enough", b"nought"))


@given(st.binary(max_size=300))
def test_bytes_raise_nothing_else(stored: bytes) -> None:
    with pytest.raises(EnvelopeError):
        read(stored)


@pytest.mark.parametrize(
    "fields",
    [
        {"digest": b"short"},
        {"cancel": b""},
        {"at": -1},
        {"end": -1},
        {"action": ""},
        {"action": "inventory.*"},
        {"reason": "a\nb"},
        {"reason": "x" * 257},
    ],
)
def test_what_no_stop_can_be_is_not_made(fields: dict[str, object]) -> None:
    with pytest.raises(SealError):
        replace(STOP, **fields)  # type: ignore[arg-type]


def near(own: SpiffeId) -> list[SpiffeId]:
    """Return IDs that are like `own`: with more behind it, of another trust domain, in upper case."""
    return [
        SpiffeId(text)
        for text in (f"{own}2", own.value.replace(".org", ".com"), own.value[:-1] + own.value[-1].upper())
    ]


ABOUT = replace(STOP, digest=HEADER.digest, agent=HEADER.aud, by=HEADER.iss, action="planner.plan")


def test_it_concerns_what_its_agent_was_asked_for_by_who_cancels() -> None:
    assert ABOUT.concerns(HEADER, {})
    assert replace(ABOUT, by=INVENTORY, role=CancelRole.OPERATOR).concerns(HEADER, {})


@pytest.mark.parametrize(
    "other",
    [
        {"digest": bytes(32)},
        {"digest": HEADER.digest[:-1] + bytes([HEADER.digest[-1] ^ 1])},
        *({"agent": other} for other in near(HEADER.aud)),
        {"agent": SpiffeId("spiffe://example.org/agent/other")},
        *({"by": other} for other in near(HEADER.iss)),
        {"by": INVENTORY},
        *({"action": other} for other in ("planner.replan", "planner.pla", "planner.plan2", "planner.Plan")),
    ],
)
def test_it_concerns_nothing_else(other: dict[str, object]) -> None:
    assert not replace(ABOUT, **other).concerns(HEADER, {})  # type: ignore[arg-type]


def test_one_about_a_subject_without_an_action_concerns_nothing() -> None:
    assert not ABOUT.concerns(HEADER._replace(to="status.inventory.x"), {})
