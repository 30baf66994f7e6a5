"""Faults of the simulated broker: what each may lose or withhold, and what it must keep."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from sealbus.agents.dev.memory.jetstream import ConsumerConfig, Delivered
from sealbus.bus.ports import Outgoing, PubAck
from sealbus.bus.stream_names import TASKS
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.limits import SECOND
from simulation.broker import Flipped, PullRequest, SimulatedBroker, Unanswered
from simulation.loop import WORLD, SimulatedLoop

BANK = ConsumerConfig(name="bank", filters=("task.bank.>",), ack_wait=30 * SECOND, max_ack_pending=100)
COUNT = 20


@pytest.fixture
def broker() -> SimulatedBroker:
    loop = SimulatedLoop(0)  # type: ignore[abstract]  # sockets and processes are not simulated
    return SimulatedBroker(loop, start=SECOND)


def publish(broker: SimulatedBroker, number: int) -> object:
    try:
        return broker.publish(Outgoing("task.bank.pay", b"%d" % number, message_id=str(number)))
    except Unanswered as error:
        return error


def delivered(broker: SimulatedBroker, most: int = 100) -> list[int]:
    """Return the sequences of what is delivered now."""
    taken: list[int] = []

    def arrive(deliveries: Sequence[Delivered]) -> None:
        taken.extend(delivery.message.sequence for delivery in deliveries)

    request = PullRequest(WORLD, most, arrive, lambda: None)
    broker.bind(TASKS, BANK)
    broker.request(TASKS, "bank", request)
    broker.withdraw(TASKS, "bank", request)
    return taken


def stored(broker: SimulatedBroker) -> list[bytes]:
    return [message.payload for message in broker.streams[TASKS].after(1, (">",))]


def test_without_a_leader_nothing_is_acknowledged_and_nothing_acknowledged_is_lost(broker: SimulatedBroker) -> None:
    for number in range(COUNT):
        assert isinstance(publish(broker, number), PubAck)
    broker.elect(TASKS, 5.0, 0.0)
    at_once = [publish(broker, number) for number in range(COUNT, 2 * COUNT)]
    assert all(isinstance(answer, Unanswered) for answer in at_once)
    taken_in = len(stored(broker)) - COUNT
    assert 0 < taken_in < COUNT
    broker.loop.now += 1.0
    later = [publish(broker, number) for number in range(2 * COUNT, 3 * COUNT)]
    assert {type(answer) for answer in later} == {Unanswered, BusUnavailable}
    with pytest.raises(Unanswered):
        broker.led(TASKS)
    assert broker.led("STATE") is broker.streams["STATE"]
    broker.loop.now += 5.0
    assert len(stored(broker)) == COUNT + taken_in
    assert stored(broker)[:COUNT] == [b"%d" % number for number in range(COUNT)]
    # A sender that has heard nothing repeats: what was taken in is a duplicate.
    again = [publish(broker, number) for number in range(COUNT, 2 * COUNT)]
    assert sum(isinstance(answer, PubAck) and answer.duplicate for answer in again) == taken_in
    assert len(stored(broker)) == 2 * COUNT


def test_a_cell_that_is_down_is_reached_by_nobody_and_its_requests_end(broker: SimulatedBroker) -> None:
    ended: list[int] = []
    broker.bind(TASKS, BANK)
    broker.request(TASKS, "bank", PullRequest(WORLD, 1, lambda _: ended.append(0), lambda: ended.append(1)))
    broker.go_down(3.0)
    assert not broker.is_reached(by_others=False)
    assert not broker.is_reached(by_others=True)
    publish(broker, 1)
    broker.loop.run_until(broker.loop.create_task(asyncio.sleep(6.0)), most=10)
    assert ended == [1]
    assert broker.is_reached(by_others=True)
    assert delivered(broker) == [1]


def test_a_cell_that_is_apart_is_reached_by_its_own_hosts_alone(broker: SimulatedBroker) -> None:
    broker.apart_until = 3.0
    assert broker.is_reached(by_others=False)
    assert not broker.is_reached(by_others=True)


def test_acknowledgements_that_were_not_replicated_come_again(broker: SimulatedBroker) -> None:
    for number in range(2 * COUNT):
        publish(broker, number)
    for sequence in delivered(broker, COUNT):
        broker.acknowledge(TASKS, "bank", sequence)
    broker.loop.now += 3.0
    for sequence in delivered(broker, COUNT):
        broker.acknowledge(TASKS, "bank", sequence)
    broker.elect(TASKS, 5.0, 2.0)
    with pytest.raises(Unanswered):
        delivered(broker)
    broker.loop.now += 6.0
    again = delivered(broker)
    assert 0 < len(again) < COUNT
    assert all(sequence > COUNT for sequence in again)


@pytest.mark.parametrize("empty", [False, True])
def test_a_consumer_whose_server_is_away_comes_back_with_its_state_or_without(
    broker: SimulatedBroker, empty: bool
) -> None:
    for number in range(3):
        publish(broker, number)
    assert delivered(broker, 2) == [1, 2]
    broker.acknowledge(TASKS, "bank", 1)
    back = broker.send_away(TASKS, "bank", 5.0)
    broker.acknowledge(TASKS, "bank", 2)
    with pytest.raises(Unanswered):
        delivered(broker)
    with pytest.raises(Unanswered):
        broker.consumer(TASKS, "bank")
    broker.loop.now += 40.0
    back(empty)
    assert delivered(broker) == ([1, 2, 3] if empty else [2, 3])


def test_restored_streams_are_younger_than_their_messages(broker: SimulatedBroker) -> None:
    publish(broker, 1)
    before = broker.streams[TASKS].created
    broker.loop.now += 10.0
    restored = {stream.stream: stream for stream in broker.restore()}
    assert restored.keys() == broker.streams.keys()
    created = broker.streams[TASKS].created
    assert (restored[TASKS].before, restored[TASKS].created, restored[TASKS].last) == (before, created, 1)
    message = broker.streams[TASKS].get(1)
    assert message is not None
    assert before <= message.time < created
    # As after the server's restart: ids are known.
    assert publish(broker, 1) == PubAck(TASKS, 1, duplicate=True)


@pytest.mark.parametrize("part", list(Flipped))
def test_what_a_flipped_bit_loses(broker: SimulatedBroker, part: Flipped) -> None:
    for number in range(COUNT):
        publish(broker, number)
    before = stored(broker)
    lost, damaged = broker.flip(TASKS, part)
    after, numbers = stored(broker), {message.sequence for message in lost}
    kept = [payload for number, payload in enumerate(before, 1) if number not in numbers]
    match part:
        case Flipped.BODY:
            assert len(lost) == 1
            assert after == kept
        case Flipped.HEADERS:
            assert not lost
            changed = [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
            assert changed == [message.sequence for message in damaged]
            assert len(changed) == 1
        case Flipped.RECORD:
            assert lost
            assert after == before[: COUNT - len(lost)]
