"""Places for what is put off: a share for each cause, and room again when a delay is over."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import cast

import pytest

from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.places import Cause, Places

DELIVERY = Delivery(subject="task.a.run", payload=b"", header_block=b"")


@dataclass
class Retried:
    """A pull that only notes how long it was asked to wait."""

    delays: list[float] = field(default_factory=list)

    def retry(self, delivery: Delivery, delay: float) -> None:
        self.delays.append(delay)


@dataclass
class Hands:
    """A clock that the test moves."""

    time: float = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def places(hands: Hands, counters: Counters) -> Places:
    return Places(512, counters=counters, clock=hands)


def put_off(places: Places, cause: Cause, seconds: float = 1.0, pull: Retried | None = None) -> bool:
    return places.put_off(cause, DELIVERY, cast("Pull", pull or Retried()), seconds)


def test_unauthenticated_messages_have_their_share_and_no_more(places: Places, counters: Counters) -> None:
    pull, cause = Retried(), Cause.UNAUTHENTICATED
    assert [put_off(places, cause, pull=pull) for _ in range(9)] == [True] * 8 + [False]
    assert pull.delays == [1.0] * 8
    assert counters.value("sealbus_put_off_total", cause=cause.value) == 8
    assert counters.value("sealbus_no_place_total", cause=cause.value) == 1


def test_the_shares_of_16_processes_leave_half_of_the_standard_consumer_free(hands: Hands) -> None:
    places = Places(WorkerLimits().max_ack_pending, counters=Counters(), clock=hands)
    while put_off(places, Cause.UNAUTHENTICATED):
        pass
    assert places.waiting(Cause.UNAUTHENTICATED) == 128
    assert WorkerLimits().max_ack_pending // 2 > 16 * (128 + 2_048)


def test_a_place_is_free_again_once_its_delay_is_over(places: Places, hands: Hands) -> None:
    for seconds in range(8):
        assert put_off(places, Cause.UNAUTHENTICATED, float(8 - seconds))
    assert not put_off(places, Cause.UNAUTHENTICATED)
    hands.time = 3.0
    assert places.waiting(Cause.UNAUTHENTICATED) == 5
    assert put_off(places, Cause.UNAUTHENTICATED)


def test_a_consumer_of_few_has_one_place(hands: Hands) -> None:
    places = Places(1, counters=Counters(), clock=hands)
    assert [put_off(places, Cause.UNAUTHENTICATED) for _ in range(2)] == [True, False]


async def test_what_fails_for_a_passing_reason_is_never_given_up_but_nothing_new_is_taken(
    places: Places, caplog: pytest.LogCaptureFixture
) -> None:
    real = Places(512, counters=Counters())
    await real.room()
    assert all(put_off(real, Cause.PASSING, 0.05) for _ in range(130))
    assert "nothing new is taken: 130 deliveries are put off" in real.notes()["put_off"]
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(60):
            await real.room()
    assert "nothing new is taken" in caplog.text
    assert real.notes() == {}


def test_the_notes_say_what_waits(places: Places) -> None:
    assert places.notes() == {}
    put_off(places, Cause.UNAUTHENTICATED)
    assert places.notes() == {
        "keys": "1 deliveries wait for keys or trust domains that are not known",
    }
