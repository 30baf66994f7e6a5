"""The outbox: one signature for what waits, the same bytes until the PubAck, then a new id with the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.bus.clocks import BusClock, wall_clock
from sealbus.bus.ports import (
    DuplicateFirstAttempt,
    NotAcknowledged,
    NotPermitted,
    Outgoing,
    Overloaded,
    PubAck,
    StreamRefused,
    uuid7,
)
from sealbus.bus.sending import outbox as outbox_module
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, OutboxLimits
from sealbus.envelopes.errors import BusUnavailable, Code, IdentityUnavailable, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import parse_header
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, Sealed, Sealer
from sealbus.envelopes.message.wire import Envelope, parse_envelope
from sealbus.envelopes.trust.spiffe_id import SpiffeId, TrustDomain

INVENTORY = SpiffeId("spiffe://example.org/agent/inventory")
QUICK = OutboxLimits(ack_wait=0.05, pause=0.0)


def task(body: bytes = b"{}", **changes: object) -> OutgoingMessage:
    message = OutgoingMessage(
        Draft(
            kind=Kind.TASK,
            to="task.inventory.update",
            aud=INVENTORY,
            body=body,
            typ="application/json",
        ),
        life=60 * SECOND,
        end_after=120 * SECOND,
    )
    return message.with_entries(**changes)


class Flaky(MemoryTransport):
    """Answers attempts by a script: an exception, or `None` to store the message."""

    def __init__(self, broker: MemoryBroker, script: Sequence[Exception | str | None] = ()) -> None:
        super().__init__(broker)
        self.script = list(script)
        self.attempts: list[list[Outgoing]] = []

    async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
        self.attempts.append(list(messages))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Exception):
            return [step] * len(messages)
        answers = await super().publish(messages, deadline=deadline)
        return [BusUnavailable("silence")] * len(messages) if step == "lost ack" else answers

    def envelopes(self) -> list[Envelope]:
        return [parse_envelope(one.payload) for attempt in self.attempts for one in attempt]


class Clock:
    """The host's clock, moved by the test."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return wall_clock() + self.ahead


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    made.add_stream("TASKS", ["task.>"])
    return made


@pytest.fixture
def identity() -> MemoryIdentity:
    authority = DevelopmentAuthority(TrustDomain("example.org"))
    return MemoryIdentity(authority, SpiffeId("spiffe://example.org/agent/shop-web"))


def outbox(identity: MemoryIdentity, transport: MemoryTransport, *, clock: Callable[[], int] = wall_clock) -> Outbox:
    return Outbox(identity=identity, transport=transport, clock=BusClock(clock), limits=QUICK)


async def test_what_waits_together_is_signed_once(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    transport = Flaky(broker)
    async with outbox(identity, transport) as box:
        posted = await asyncio.gather(*(box.publish(task(b"%d" % number)) for number in range(32)))
    assert [one.ack.sequence for one in posted if one.ack] == list(range(1, 33))
    assert {one.proof.size for one in transport.envelopes()} == {32}
    assert len({one.proof.signature for one in transport.envelopes()}) == 1


async def test_one_bad_message_does_not_stop_the_others(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    async with outbox(identity, Flaky(broker)) as box:
        good, bad = await asyncio.gather(
            box.publish(task()), box.publish(task(to="task..update")), return_exceptions=True
        )
    assert isinstance(bad, SealError)
    assert not isinstance(good, BaseException)


async def test_what_is_not_acknowledged_is_told_until_something_is(
    broker: MemoryBroker, identity: MemoryIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of that kind of subject; a lost connection is no silence, and a refusal is an answer."""
    silence = NotAcknowledged("silence")
    transport = Flaky(broker, [BusUnavailable("no connection"), silence, silence])
    async with outbox(identity, transport) as box:
        with pytest.raises(BusUnavailable):
            await box.publish(task(), within=0)
        assert list(box.unstored) == []
        with pytest.raises(BusUnavailable):
            await box.publish(task(), within=0)
        assert list(box.unstored) == ["task"]
        await box.publish(task())
        assert list(box.unstored) == []
        transport.script = [silence, StreamRefused("full", 10077)]
        with pytest.raises(Overloaded):
            await box.publish(task())
        assert list(box.unstored) == []
        transport.script = [silence]
        with pytest.raises(BusUnavailable):
            await box.publish(task(), within=0)
        monkeypatch.setattr(outbox_module, "RECENT", -1.0)
        assert list(box.unstored) == []


async def test_a_lost_ack_repeats_the_same_bytes(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    transport = Flaky(broker, ["lost ack"])
    async with outbox(identity, transport) as box:
        posted = await box.publish(task())
    assert posted.ack is not None
    assert posted.ack.duplicate
    first, second = transport.attempts
    assert first == second
    assert len(broker.streams["TASKS"].stored) == 1


async def test_a_duplicate_in_answer_to_the_first_attempt_is_an_error(
    broker: MemoryBroker, identity: MemoryIdentity
) -> None:
    taken = bytes.fromhex("01900000000070008000000000000001")
    broker.inject("task.inventory.update", b"planted", message_id=taken.hex())
    async with outbox(identity, Flaky(broker)) as box:
        with pytest.raises(DuplicateFirstAttempt) as refused:
            await box.publish(task(id=taken))
    assert refused.value.code is Code.REPLAYED


async def test_a_repeat_that_must_not_be_taken_for_ours_is_refused(
    broker: MemoryBroker, identity: MemoryIdentity
) -> None:
    transport = Flaky(broker, ["lost ack"])
    async with outbox(identity, transport) as box:
        with pytest.raises(DuplicateFirstAttempt):
            await box.publish(task(id=uuid7(wall_clock())), repeat_is_ours=False)


async def test_another_process_of_ours_may_have_sent_a_message_of_this_id(
    broker: MemoryBroker, identity: MemoryIdentity
) -> None:
    message = task(id=uuid7(wall_clock()))
    async with outbox(identity, broker.connect()) as box:
        first = await box.publish(message)
        second = await box.publish(message, duplicate_is_ours=True)
        assert first.ack is not None
        assert second.ack == first.ack._replace(duplicate=True)
        assert len(broker.streams["TASKS"].stored) == 1
        with pytest.raises(DuplicateFirstAttempt):
            await box.publish(message)


async def test_after_half_a_minute_it_is_sealed_anew_with_the_same_key(
    broker: MemoryBroker, identity: MemoryIdentity
) -> None:
    clock = Clock()

    class Aging(Flaky):
        async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
            clock.ahead += 31 * SECOND
            return await super().publish(messages, deadline=deadline)

    transport = Aging(broker, [BusUnavailable("away")])
    async with outbox(identity, transport, clock=clock) as box:
        await box.publish(task())
    first, second = (parse_header(one.header) for one in transport.envelopes())
    assert first.id != second.id
    assert first.idm == second.idm == first.id.hex()
    assert second.iat > first.iat


async def test_a_message_with_its_own_id_is_never_sealed_anew(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    clock = Clock()

    class Aging(Flaky):
        async def publish(self, messages: Sequence[Outgoing], *, deadline: float) -> Sequence[PubAck | Exception]:
            clock.ahead += 31 * SECOND
            return await super().publish(messages, deadline=deadline)

    transport = Aging(broker, [BusUnavailable("away")] * 3)
    async with outbox(identity, transport, clock=clock) as box:
        with pytest.raises(BusUnavailable, match="could be repeated"):
            await box.publish(task(id=uuid7(wall_clock())))
    assert len(transport.attempts) == 1


async def test_a_full_stream_is_overloaded_at_once(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    broker.fail("TASKS", StreamRefused("full", 10_077))
    transport = Flaky(broker)
    async with outbox(identity, transport) as box:
        with pytest.raises(Overloaded):
            await box.publish(task())
    assert len(transport.attempts) == 1


async def test_another_refusal_keeps_its_code(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    broker.fail("TASKS", StreamRefused("sealed", 10_109))
    async with outbox(identity, Flaky(broker)) as box:
        with pytest.raises(StreamRefused) as refused:
            await box.publish(task())
    assert refused.value.err_code == 10_109


async def test_what_the_server_does_not_permit_is_not_tried_again(
    broker: MemoryBroker, identity: MemoryIdentity
) -> None:
    """A violation stays one until an operator acts: a sender that waits half a minute learns nothing more."""
    transport = Flaky(broker, [NotPermitted("task.inventory.update: not permitted to publish")])
    async with outbox(identity, transport) as box:
        with pytest.raises(NotPermitted):
            await box.publish(task())
    assert len(transport.attempts) == 1


async def test_silence_ends_at_the_senders_deadline(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    transport = Flaky(broker, [BusUnavailable("silence")] * 1_000_000)
    async with outbox(identity, transport) as box:
        with pytest.raises(BusUnavailable, match="not acknowledged in time"):
            await box.publish(task(), within=0.05)


async def test_without_a_credential_nothing_is_sent(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    class Bare(MemoryIdentity):
        def sealer(self) -> Sealer:
            raise IdentityUnavailable("no credential with enough life left")

    bare = Bare(DevelopmentAuthority(TrustDomain("example.org")), identity.spiffe_id)
    transport = Flaky(broker)
    async with outbox(bare, transport) as box:
        with pytest.raises(IdentityUnavailable):
            await box.publish(task())
    assert transport.attempts == []


async def test_a_core_message_is_told_before_it_leaves(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    told: list[Sealed] = []

    class Watching(MemoryTransport):
        def send(self, messages: Sequence[Outgoing]) -> None:
            assert [one.wire for one in told] == [one.payload for one in messages]
            super().send(messages)

    async with outbox(identity, Watching(broker)) as box:
        posted = await box.send(task(to="task.inventory.read"), leaving=told.append)
    assert posted.ack is None
    assert told == [posted.sealed]


async def test_a_core_message_that_cannot_leave_is_an_error(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    class Down(MemoryTransport):
        def send(self, messages: Sequence[Outgoing]) -> None:
            raise BusUnavailable("not connected")

    async with outbox(identity, Down(broker)) as box:
        with pytest.raises(BusUnavailable):
            await box.send(task())


async def test_leaving_sends_what_waits_first_and_takes_no_more(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    box = outbox(identity, Flaky(broker))
    async with box:
        waiting = [asyncio.ensure_future(box.publish(task())) for _ in range(5)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert len(broker.streams["TASKS"].stored) == 5
    with pytest.raises(BusUnavailable, match="closed"):
        await box.publish(task())


async def test_a_sender_that_gave_up_is_not_published_again(broker: MemoryBroker, identity: MemoryIdentity) -> None:
    transport = Flaky(broker, [BusUnavailable("away")] * 2)
    async with outbox(identity, transport) as box:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await box.publish(task())
    assert not broker.streams["TASKS"].stored
