"""Work: it stands among the unsettled until its delivery is settled, once, or a call is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from support.audit import opened

from sealbus.bus.ports import Delivery, Pull
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import HandlerOptions, Permitted, Route
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.places import Places
from sealbus.envelopes.message.kinds import Kind

ROUTE = Route(
    kind=Kind.TASK,
    subject="task.a.run",
    action="a.run",
    endpoint=None,
    options=HandlerOptions(retry=RetryPolicy()),
)
PERMITTED = Permitted(message=opened(), value=None, route=ROUTE, leaf=b"", sent=[], cancellation=Cancellation())
DELIVERY = Delivery(subject="task.a.run", payload=b"", header_block=b"")


class Consumer:
    """A pull that keeps what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        assert list(deliveries) == [DELIVERY]
        self.asked.append(("ack", 0))

    def retry(self, delivery: Delivery, delay: float) -> None:
        assert delivery is DELIVERY
        self.asked.append(("retry", delay))

    def working(self, delivery: Delivery) -> None:
        assert delivery is DELIVERY
        self.asked.append(("working", 0))


def work(pull: Consumer | None, unsettled: dict[Work, None]) -> Work:
    return Work(PERMITTED, DELIVERY, cast("Pull | None", pull), unsettled)


def test_it_is_unsettled_until_it_is_acknowledged() -> None:
    unsettled: dict[Work, None] = {}
    pull = Consumer()
    one, other = work(pull, unsettled), work(pull, unsettled)
    one.alive()
    one.ack()
    assert [*unsettled] == [other]
    assert pull.asked == [("working", 0), ("ack", 0)]


def test_it_is_unsettled_until_it_is_put_off() -> None:
    unsettled: dict[Work, None] = {}
    pull = Consumer()
    work(pull, unsettled).put_off(2.5, Places(8_192, counters=Counters()))
    assert not unsettled
    assert pull.asked == [("retry", 2.5)]


def test_a_call_is_among_them_and_does_not_come_again() -> None:
    unsettled: dict[Work, None] = {}
    call = work(None, unsettled)
    assert [*unsettled] == [call]
    call.alive()
    call.ack()
    assert not unsettled
    with pytest.raises(TypeError):
        call.put_off(1.0, Places(8_192, counters=Counters()))
