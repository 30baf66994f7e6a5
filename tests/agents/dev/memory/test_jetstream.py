"""The model of JetStream keeps each rule of a server by itself, and answers generated operations as a server does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path

import pytest
from support import jetstream_operations
from support.jetstream_operations import compare, plan
from support.plain_servers import plain_client

from sealbus.agents.dev.memory.jetstream import (
    EXPECTED_OF_SUBJECT,
    MAXIMUM_BYTES,
    MESSAGE_ID,
    WRONG_SEQUENCE,
    Ack,
    Consumer,
    ConsumerConfig,
    Delivered,
    NotModelled,
    PublishRefused,
    Stream,
    StreamConfig,
    stored_size,
)
from sealbus.bus.streams.declared import declared_streams
from sealbus.envelopes.limits import SECOND

START = 1_000 * SECOND
WAIT = 30 * SECOND

SEED = 20261130
OPERATIONS = 300
"""Operations that are compared here at least; `make model-operations` compares many."""


def short_sequences() -> Iterator[int]:
    """Yield the seeds of sequences that take the least time. There are always more, for what a busy machine makes late."""
    return (seed for seed in count(SEED) if plan(seed).rounds == 3)


def stream(**settings: object) -> Stream:
    config = StreamConfig(name="S", subjects=("s.>",), **settings)  # type: ignore[arg-type]  # checked there
    return Stream(config, created=START)


def publish(
    target: Stream,
    subject: str = "s.a",
    *,
    size: int = 0,
    identifier: str = "",
    expected: int | None = None,
    now: int = START,
) -> Ack:
    headers = {MESSAGE_ID: identifier} if identifier else {}
    if expected is not None:
        headers[EXPECTED_OF_SUBJECT] = str(expected)
    return target.publish(subject, b"", b"x" * size, headers, now=now)


def sequences(target: Stream, first: int = 1) -> list[int]:
    return [message.sequence for message in target.after(first, ["s.>"])]


def consumer(target: Stream, *filters: str, name: str = "c", most: int = 1_000, start: int = 1) -> Consumer:
    config = ConsumerConfig(name=name, filters=filters or ("s.>",), ack_wait=WAIT, max_ack_pending=most, start=start)
    return Consumer(target, config)


def short(deliveries: Sequence[Delivered]) -> list[tuple[int, int]]:
    return [(delivered.message.sequence, delivered.count) for delivered in deliveries]


def test_a_stream_is_as_it_is_declared() -> None:
    declared = {one.name: one for one in declared_streams({"TASKS": 5, "AUDIT": 6}, replicas=3)}
    state, dead = (StreamConfig.of_declared(declared[name]) for name in ("STATE", "DEAD"))
    assert (state.name, state.subjects, state.per_subject, state.replicas) == ("STATE", ("state.>",), 1, 3)
    assert (state.max_age, state.window, state.discard) == (86_700 * SECOND, 120 * SECOND, "new")
    assert (dead.discard, dead.per_subject, StreamConfig.of_declared(declared["TASKS"]).max_bytes) == ("old", -1, 5)


def test_messages_are_numbered_and_kept_as_they_came() -> None:
    tried = stream()
    block = b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n"
    assert tried.publish("s.a", block, b"x", {MESSAGE_ID: "1"}, now=START) == Ack(1, duplicate=False)
    assert publish(tried, "s.b") == Ack(2, duplicate=False)
    assert tried.get(1) == (1, "s.a", block, b"x", START)
    assert (tried.last, len(tried), tried.first(), tried.get(3)) == (2, 2, 1, None)
    assert tried.bytes == 30 + 3 + 4 + len(block) + 1 + 30 + 3


def test_an_id_is_remembered_for_the_window() -> None:
    tried = stream(window=5 * SECOND)
    publish(tried)
    publish(tried, identifier="1")
    assert publish(tried, "s.b", identifier="1", now=START + 5 * SECOND - 1) == Ack(2, duplicate=True)
    assert publish(tried, identifier="1", now=START + 5 * SECOND) == Ack(3, duplicate=False)


def test_a_refused_message_leaves_no_id() -> None:
    tried = stream()
    with pytest.raises(PublishRefused):
        publish(tried, identifier="1", expected=1)
    assert publish(tried, identifier="1") == Ack(1, duplicate=False)


def test_the_last_sequence_of_a_subject_is_compared() -> None:
    tried = stream()
    assert publish(tried, expected=0).sequence == 1
    publish(tried, "s.b")
    assert publish(tried, expected=1).sequence == 3
    with pytest.raises(PublishRefused, match="wrong last sequence: 3") as refused:
        publish(tried, expected=1)
    assert refused.value.code == WRONG_SEQUENCE
    assert tried.last == 3


@pytest.mark.parametrize("replicas", [1, 3])
def test_replicas_look_for_the_id_before_the_sequence(replicas: int) -> None:
    tried = stream(replicas=replicas)
    publish(tried, identifier="1", expected=0)
    if replicas == 3:
        assert publish(tried, identifier="1", expected=0) == Ack(1, duplicate=True)
    else:
        with pytest.raises(PublishRefused, match="wrong last sequence"):
            publish(tried, identifier="1", expected=0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Rollup": "sub"},
        {MESSAGE_ID: "1", "Nats-TTL": "5s", "X-Other": "1"},
        {EXPECTED_OF_SUBJECT: "-1"},
        {EXPECTED_OF_SUBJECT: ""},
    ],
)
def test_what_is_not_modelled_is_refused(headers: dict[str, str]) -> None:
    tried = stream()
    with pytest.raises(NotModelled):
        tried.publish("s.a", b"", b"", headers, now=START)
    tried.publish("s.a", b"", b"", {"X-Other": "1"}, now=START)


def test_a_full_stream_refuses_the_new_or_drops_the_old() -> None:
    size = stored_size("s.a", b"", b"x")
    new, old = stream(max_bytes=2 * size), stream(max_bytes=2 * size, discard="old")
    for tried in (new, old):
        publish(tried, size=1)
        publish(tried, size=1)
    with pytest.raises(PublishRefused, match="maximum bytes exceeded") as refused:
        publish(new)
    assert refused.value.code == MAXIMUM_BYTES
    assert (sequences(new), new.last, new.bytes) == ([1, 2], 2, 2 * size)
    assert publish(old, size=1).sequence == 3
    assert (sequences(old), old.first(), old.bytes) == ([2, 3], 2, 2 * size)


def test_a_message_that_is_too_large_for_a_stream_drops_itself() -> None:
    tried = stream(max_bytes=100, discard="old")
    publish(tried)
    assert publish(tried, size=200).sequence == 2
    assert (len(tried), tried.bytes, tried.first(), tried.last_of("s.a")) == (0, 0, 3, 0)
    assert publish(tried).sequence == 3


def test_only_some_messages_of_a_subject_are_kept() -> None:
    tried = stream(per_subject=2)
    for subject in ("s.a", "s.b", "s.a", "s.a"):
        publish(tried, subject)
    assert sequences(tried) == [2, 3, 4]
    assert (tried.last_of("s.a"), tried.last_of("s.b"), tried.last_of("s.c")) == (4, 2, 0)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_full_stream_replaces_a_value_by_one_of_its_size_if_it_has_no_replicas(replicas: int) -> None:
    tried = stream(max_bytes=2 * stored_size("s.a", b"", b"x"), per_subject=1, replicas=replicas)
    publish(tried, "s.a", size=1)
    publish(tried, "s.b", size=1)
    if replicas == 1:
        assert publish(tried, "s.a", size=1).sequence == 3
        assert sequences(tried) == [2, 3]
    for subject, size in (("s.b", 2), ("s.c", 1), *([("s.a", 1)] if replicas == 3 else [])):
        with pytest.raises(PublishRefused, match="maximum bytes"):
            publish(tried, subject, size=size)


def test_old_messages_leave() -> None:
    tried = stream(max_age=10 * SECOND)
    publish(tried, identifier="1")
    publish(tried, now=START + SECOND)
    tried.expire(START + 10 * SECOND - 1)
    assert sequences(tried) == [1, 2]
    tried.expire(START + 10 * SECOND)
    assert sequences(tried) == [2]
    assert publish(tried, identifier="1", now=START + 60 * SECOND) == Ack(1, duplicate=True)
    assert (len(tried), tried.first(), tried.last_of("s.a")) == (0, 3, 0)


def test_messages_are_found_from_a_sequence_on_by_subject() -> None:
    tried = stream()
    for subject in ("s.a", "s.b.x", "s.a", "s.b.y"):
        publish(tried, subject)
    assert [message.sequence for message in tried.after(2, ["s.a", "s.b.*"])] == [2, 3, 4]
    assert [message.sequence for message in tried.after(0, ["s.b.*"])] == [2, 4]
    assert sequences(tried, 5) == []


def test_a_consumer_delivers_what_its_filters_match_in_order() -> None:
    tried = stream()
    taker = consumer(tried, "s.a", "s.c")
    for subject in ("s.a", "s.b", "s.c", "s.a"):
        publish(tried, subject)
    assert taker.undelivered == 3
    taken = taker.take(2, now=START)
    assert [delivered.number for delivered in taken] == [1, 2]
    assert short(taken) == [(1, 1), (3, 1)]
    assert (taker.undelivered, taker.pending) == (1, 2)
    assert short(taker.take(5, now=START)) == [(4, 1)]
    assert taker.take(5, now=START) == []
    publish(tried)
    assert short(taker.take(5, now=START)) == [(5, 1)]


def test_a_consumer_starts_where_it_is_told() -> None:
    tried = stream()
    taker = consumer(tried, start=4)
    for _ in range(3):
        publish(tried)
        assert taker.take(5, now=START) == []
    publish(tried)
    assert short(taker.take(5, now=START)) == [(4, 1)]


def test_no_more_is_pending_than_allowed_but_repeated_ones_come() -> None:
    tried = stream()
    taker = consumer(tried, most=2)
    for _ in range(4):
        publish(tried)
    assert short(taker.take(5, now=START)) == [(1, 1), (2, 1)]
    assert taker.take(5, now=START) == []
    taker.nak(1, now=START)
    assert short(taker.take(5, now=START)) == [(1, 2)]
    taker.ack(1)
    assert short(taker.take(5, now=START)) == [(3, 1)]


def test_what_is_not_acknowledged_comes_again_with_its_count() -> None:
    tried = stream()
    taker = consumer(tried)
    for _ in range(3):
        publish(tried)
    taker.take(3, now=START)
    taker.ack(2)
    assert taker.take(3, now=START + WAIT - 1) == []
    assert taker.due() == START + WAIT
    assert short(taker.take(1, now=START + WAIT)) == [(1, 2)]
    assert taker.queued == (3,)
    assert short(taker.take(3, now=START + 2 * WAIT - 1)) == [(3, 2)]
    assert short(taker.take(3, now=START + 2 * WAIT)) == [(1, 3)]
    taker.ack(1)
    taker.ack(3)
    assert (taker.pending, taker.due(), taker.take(3, now=START + 9 * WAIT)) == (0, None, [])


def test_what_is_overdue_comes_by_time_then_by_sequence_after_what_is_queued() -> None:
    tried = stream()
    taker = consumer(tried)
    for _ in range(4):
        publish(tried)
    taker.take(4, now=START)
    taker.nak(4, now=START)
    taker.nak(2, delay=SECOND, now=START)
    taker.working(1, now=START + SECOND)
    assert short(taker.take(9, now=START + 2 * WAIT)) == [(4, 2), (2, 2), (3, 2), (1, 2)]


def test_a_delayed_message_waits_even_if_it_was_queued() -> None:
    tried = stream()
    taker = consumer(tried)
    publish(tried)
    publish(tried)
    taker.take(2, now=START)
    for sequence in (2, 1, 2):
        taker.nak(sequence, now=START)
    assert taker.queued == (2, 1)
    taker.nak(2, delay=SECOND, now=START)
    assert short(taker.take(9, now=START)) == [(1, 2)]
    assert taker.take(9, now=START + SECOND - 1) == []
    assert short(taker.take(9, now=START + SECOND)) == [(2, 2)]


def test_work_in_hand_puts_off_what_is_not_queued() -> None:
    tried = stream()
    taker = consumer(tried)
    publish(tried)
    publish(tried)
    taker.take(2, now=START)
    taker.nak(1, now=START)
    assert taker.due() == START + WAIT
    taker.working(1, now=START + 5)
    taker.working(2, now=START + 5)
    assert taker.due() == START + 5 + WAIT
    taker.nak(2, now=START)
    assert taker.due() is None
    assert taker.queued == (1, 2)


def test_nothing_happens_to_what_is_not_pending() -> None:
    tried = stream()
    taker = consumer(tried)
    publish(tried)
    for sequence in (1, 2):
        taker.ack(sequence)
        taker.nak(sequence, now=START)
        taker.nak(sequence, delay=1, now=START)
        taker.working(sequence, now=START)
    assert (taker.due(), taker.queued) == (None, ())
    assert short(taker.take(9, now=START)) == [(1, 1)]
    taker.ack(1)
    taker.nak(1, now=START)
    assert taker.take(9, now=START + WAIT) == []


def test_a_lost_acknowledgement_queues_what_was_delivered() -> None:
    tried = stream()
    taker = consumer(tried)
    for _ in range(4):
        publish(tried)
    taker.take(3, now=START)
    taker.ack(1)
    taker.ack(3)
    tried.remove(2)
    for sequence in (3, 1, 2, 4, 3):
        taker.lose_ack(sequence)
    assert (taker.pending, taker.queued) == (2, (3, 1))
    assert short(taker.take(9, now=START)) == [(3, 2), (1, 2), (4, 1)]


def test_what_leaves_the_stream_leaves_the_consumer() -> None:
    tried = stream(per_subject=1)
    taker, other = consumer(tried, most=1), consumer(tried, name="other")
    publish(tried, "s.a")
    publish(tried, "s.b")
    taker.take(1, now=START)
    other.take(2, now=START)
    other.nak(1, now=START)
    publish(tried, "s.a")
    assert (taker.pending, other.pending, other.queued) == (0, 1, ())
    assert short(taker.take(9, now=START)) == [(2, 1)]
    assert short(other.take(9, now=START + WAIT)) == [(2, 2), (3, 1)]


def test_a_consumer_takes_the_place_of_one_with_its_name() -> None:
    tried = stream(max_age=WAIT)
    former = consumer(tried)
    publish(tried)
    former.take(1, now=START)
    later = consumer(tried)
    later.take(1, now=START)
    tried.expire(START + WAIT)
    assert (former.pending, later.pending) == (1, 0)


def test_what_is_lost_is_numbered_again_and_the_ids_with_it() -> None:
    tried = stream()
    for number in (1, 2, 3):
        publish(tried, identifier=f"{number}")
    taker, behind = consumer(tried), consumer(tried, name="behind")
    taker.take(3, now=START)
    behind.take(1, now=START)
    taker.nak(3, now=START)
    taker.ack(1)
    assert [message.sequence for message in tried.truncate(1)] == [2, 3]
    assert (tried.last, sequences(tried), taker.pending, taker.queued, behind.pending) == (1, [1], 0, (), 1)
    assert publish(tried, identifier="1") == Ack(1, duplicate=True)
    assert publish(tried, identifier="3") == Ack(2, duplicate=False)
    assert short(taker.take(9, now=START)) == [(2, 1)]
    assert short(behind.take(9, now=START)) == [(2, 1)]


def test_a_loss_repeats_what_was_acknowledged_after_the_last_that_is_pending() -> None:
    tried = stream()
    for _ in range(5):
        publish(tried)
    taker = consumer(tried)
    taker.take(5, now=START)
    for sequence in (1, 4):
        taker.ack(sequence)
    tried.truncate(4)
    assert taker.pending == 2
    assert short(taker.take(9, now=START)) == [(4, 1)]
    taker.ack(4)
    tried.truncate(4)
    assert taker.take(9, now=START) == []
    tried.truncate(3)
    assert (taker.pending, taker.take(9, now=START)) == (2, [])


def test_an_emptied_stream_that_loses_its_end_goes_on_before_it() -> None:
    tried = stream(max_age=SECOND)
    for _ in range(3):
        publish(tried)
    tried.expire(START + SECOND)
    assert (tried.first(), tried.truncate(1), tried.first()) == (4, [], 2)
    assert publish(tried).sequence == 2
    assert sequences(tried) == [2]


def test_a_replicated_consumer_is_not_set_back() -> None:
    tried = stream(replicas=3)
    publish(tried)
    publish(tried)
    _, ahead, _ = (consumer(tried, name=name) for name in ("behind", "ahead", "idle"))
    ahead.take(1, now=START)
    tried.truncate(1)
    publish(tried)
    ahead.take(1, now=START)
    with pytest.raises(NotModelled, match="ahead"):
        tried.truncate(1)
    assert tried.last == 2


def test_deadlines_that_do_not_hold_are_forgotten() -> None:
    tried = stream()
    taker = consumer(tried)
    for _ in range(300):
        publish(tried)
    taker.take(300, now=START)
    for sequence in range(2, 301):
        taker.ack(sequence)
    for later in range(500):
        taker.working(1, now=START + later)
    assert taker.due() == START + 499 + WAIT
    assert short(taker.take(9, now=START + 499 + WAIT)) == [(1, 2)]


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan(SEED) == plan(SEED)
    assert len({plan(SEED + number).stream.max_bytes for number in range(100)}) == 4
    assert {plan(number, replicas=3).direct for number in range(100)} == {False}


@pytest.mark.nats
async def test_a_server_answers_generated_operations_alike(tmp_path: Path) -> None:
    async with plain_client(tmp_path) as client:
        comparison = await compare(client, short_sequences(), operations=OPERATIONS, at_once=12)
    assert comparison.differences == []
    assert comparison.operations.total() >= OPERATIONS
    assert set(comparison.operations) == {
        "publish", "take", "ack", "nak", "delay", "working", "term", "read", "count", "inspect"
    }  # fmt: skip


class _Hasty(Consumer):
    """A consumer that delivers again at once."""

    def nak(self, sequence: int, *, delay: int = 0, now: int) -> None:
        super().nak(sequence, now=now)


class _Forgetful(Stream):
    """A stream that forgets the last message id."""

    def publish(self, subject: str, block: bytes, payload: bytes, headers: Mapping[str, str], *, now: int) -> Ack:
        kept = {name: value for name, value in headers.items() if value != "m7"}
        return super().publish(subject, block, payload, kept, now=now)


@pytest.mark.nats
async def test_a_planted_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_operations, "Consumer", _Hasty)
    monkeypatch.setattr(jetstream_operations, "Stream", _Forgetful)
    found: set[str] = set()
    seeds = takewhile(lambda seed: not {"publish", "take"} <= found, short_sequences())
    async with plain_client(tmp_path) as client:
        await compare(client, seeds, at_once=12, on_difference=lambda seed, text: found.add(text.split(" ")[0]))
