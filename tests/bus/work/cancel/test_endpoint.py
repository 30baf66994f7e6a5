"""What handles cancels: one stop for each message and requester, written once, and over bytes that are no stop of ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast

import pytest
from support.acceptance import INVENTORY, PLANNER, TRUST, Delivery, Message
from support.envelopes import NAMES, NOW
from support.faulty_transport import OUTRUN, FaultyTransport
from support.sites import site_of

from sealbus.agents.dev.memory.broker import MemoryBroker
from sealbus.bus.routing.retry import Refused
from sealbus.bus.routing.routes import Permitted, control_route
from sealbus.bus.sending.cancel import CancelRequest, CancelRole, encode_cancel
from sealbus.bus.streams.key_value import KeyValue
from sealbus.bus.work.cancel.endpoint import CancelEndpoint
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.cancel.stop import Stop, StopPlace, parse, place_of
from sealbus.envelopes.errors import BadBody, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.trust.caches import Caches
from sealbus.policies.decision.request import Resource

REQUEST = CancelRequest(digest=bytes(range(32)), action="inventory.update", end=NOW + 7, reason="enough")


@dataclass
class Room:
    """Stops of a process that has room for a stop before it is stored, and after it was."""

    before: bool = True
    after: bool = True
    admitted: list[tuple[Stop, int]] = field(default_factory=list)

    def full_for(self, place: StopPlace) -> bool:
        assert (place.agent, place.requester) == ("inventory", "planner")
        return not self.before

    async def admits(self, stop: Stop, sequence: int) -> bool:
        self.admitted.append((stop, sequence))
        return self.after


@dataclass
class Site:
    """The endpoint of one agent, on a broker in memory."""

    now: int = NOW
    stops: Room = field(default_factory=Room)
    ended: list[Stop] = field(default_factory=list)

    async def parked(self, stop: Stop) -> None:
        self.ended.append(stop)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.transport = FaultyTransport(self.broker)
        self.endpoint = CancelEndpoint(
            site_of(self.transport, lambda: self.now),
            stops=cast("Stops", self.stops),
            end_parked=self.parked,
        )

    async def handle(self, request: CancelRequest = REQUEST) -> None:
        permitted = SimpleNamespace(value=request, message=Delivery().accept(Message()))
        assert await self.endpoint.handle(cast("Permitted", permitted)) is None

    def stored(self) -> list[Stop]:
        found = []
        for one in self.broker.streams["STATE"].stored:
            place = place_of(one.subject)
            assert place is not None
            assert one.arrival is not None
            stop = parse(one.payload, place, stored=one.arrival.stored, names=NAMES, trust=TRUST, caches=Caches())
            found.append(stop)
        return found


@pytest.fixture
def site() -> Site:
    return Site()


async def test_a_cancel_becomes_a_stop_of_its_sender(site: Site) -> None:
    await site.handle()
    [stop] = site.stored()
    assert (stop.agent, stop.by, stop.digest) == (INVENTORY, PLANNER.iss, REQUEST.digest)
    assert (stop.action, stop.role, stop.reason, stop.end) == (
        REQUEST.action,
        REQUEST.role,
        REQUEST.reason,
        REQUEST.end,
    )
    assert (stop.at, stop.cancel) == (NOW, Delivery().accept(Message()).header.digest)


async def test_it_is_written_once(site: Site) -> None:
    await site.handle()
    site.now += 1
    await site.handle()
    assert len(site.stored()) == 1


async def test_one_that_stops_more_replaces_one_that_stops_less_and_not_the_other_way_round(site: Site) -> None:
    operator = CancelRequest(digest=REQUEST.digest, action=REQUEST.action, end=REQUEST.end, role=CancelRole.OPERATOR)
    await site.handle()
    await site.handle(operator)
    await site.handle()
    assert [one.role for one in site.stored()] == [CancelRole.REQUESTER, CancelRole.OPERATOR]


async def test_one_of_another_action_is_replaced(site: Site) -> None:
    """Whoever named a wrong action can name the right one: a stop of a wrong action stops nothing."""
    await site.handle(CancelRequest(digest=REQUEST.digest, action="inventory.read", end=REQUEST.end))
    await site.handle()
    assert [one.action for one in site.stored()] == ["inventory.read", "inventory.update"]


async def test_one_that_would_be_forgotten_too_early_is_replaced(site: Site) -> None:
    for end in (NOW + 8, NOW + 7, NOW + 9):
        await site.handle(replace(REQUEST, end=end))
    assert [one.end for one in site.stored()] == [NOW + 8, NOW + 9]


async def test_bytes_in_its_place_are_replaced(site: Site) -> None:
    await site.handle()
    [stop] = site.stored()
    other = Site()
    other.broker.inject(stop.place(NAMES).subject, b"\x90")
    await other.handle()
    found = await KeyValue(other.broker.connect()).get(stop.place(NAMES).subject)
    assert found is not None
    place = stop.place(NAMES)
    found_stop = parse(found.payload, place, stored=found.stored, names=NAMES, trust=TRUST, caches=Caches())
    assert found_stop.by == PLANNER.iss


async def test_one_that_somebody_stored_again_is_replaced(site: Site) -> None:
    """No process counts it, so that the cancel must not count as stored."""
    await site.handle()
    [old] = site.broker.streams["STATE"].stored
    site.now += 61 * SECOND
    site.broker.inject(old.subject, old.payload)
    await site.handle()
    [*_, new] = site.broker.streams["STATE"].stored
    place = place_of(new.subject)
    assert place is not None
    assert parse(new.payload, place, stored=site.now, names=NAMES, trust=TRUST, caches=Caches()).at == site.now


async def test_one_without_room_is_refused_before_it_is_stored(site: Site) -> None:
    site.stops.before = False
    with pytest.raises(Refused) as refused:
        await site.handle()
    assert refused.value.code == "overloaded"
    assert (site.stored(), site.ended) == ([], [])


async def test_one_that_others_left_no_room_for_is_refused_and_never_comes_into_force(site: Site) -> None:
    site.stops.after = False
    with pytest.raises(Refused) as refused:
        await site.handle()
    assert refused.value.code == "overloaded"
    [stop, over] = site.stored()
    assert site.stops.admitted == [(stop, 1)]
    assert (over.end, replace(over, end=stop.end, at=stop.at)) == (0, stop)
    assert site.ended == []
    # It can be canceled once there is room.
    site.stops.after = True
    await site.handle()
    assert [one.end for one in site.stored()] == [REQUEST.end, 0, REQUEST.end]
    assert len(site.ended) == 1


async def test_one_that_was_stored_is_confirmed_only_if_it_has_room(site: Site) -> None:
    """A process that stored it may have died before it looked."""
    await site.handle()
    site.stops.after = False
    with pytest.raises(Refused):
        await site.handle()
    assert site.stops.admitted[0] == site.stops.admitted[1]


async def test_who_writes_all_the_time_has_it_tried_again(site: Site) -> None:
    site.transport.refusal = OUTRUN
    with pytest.raises(StateUnavailable):
        await site.handle()
    site.broker.inject("state.inventory.stop." + REQUEST.digest.hex() + ".planner", b"\x90")
    with pytest.raises(StateUnavailable):
        await site.handle()


async def test_the_policy_is_asked_about_what_is_canceled(site: Site) -> None:
    body = encode_cancel(REQUEST)
    value = site.endpoint.decode(body.body, body.typ)
    assert value == REQUEST
    assert site.endpoint.properties(value) == {"action": "inventory.update", "role": "requester", "reason": "enough"}
    assert await site.endpoint.resource(value) == Resource(type="task", id=REQUEST.digest.hex())
    assert site.endpoint.stream(cast("Permitted", None)) is None
    with pytest.raises(BadBody):
        site.endpoint.properties("another value")


def test_its_route_is_the_agents_own(site: Site) -> None:
    route = control_route(site.endpoint, "inventory", "cancel")
    assert (route.subject, route.action) == ("control.inventory.cancel", "inventory._cancel")
    assert route.loads_resource
    assert route.options.retry.maximum_attempts is None
