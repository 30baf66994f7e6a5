"""The stops in force: read as they come, counted for each requester, forgotten in time; forged ones stop and undo nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.acceptance import EDGE_ID, INVENTORY, ISSUER, PLANNER, TRUST, Delivery, Message, header_block, root_task
from support.envelopes import HOUR, MINUTE, NAMES, NOW, message_id
from support.identity import StaticIdentity
from support.lab import until
from support.sites import site_of
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus import loop_turns, ports
from sealbus.bus.clocks import BusClock
from sealbus.bus.ports import Transport
from sealbus.bus.routing.cancellation import Canceled, Cancellation
from sealbus.bus.routing.routes import Permitted
from sealbus.bus.sending.cancel import CancelRole
from sealbus.bus.streams.declared import KEPT_SECONDS
from sealbus.bus.streams.held import Held
from sealbus.bus.telemetry import Counters
from sealbus.bus.work.cancel import in_force as module
from sealbus.bus.work.cancel import room as room_module
from sealbus.bus.work.cancel.in_force import Stops
from sealbus.bus.work.cancel.kept import KeptStops
from sealbus.bus.work.cancel.stop import Stop, sign
from sealbus.envelopes.accept.live import VerifiedMessage
from sealbus.envelopes.errors import BusUnavailable, StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.wire import Ancestor
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.envelopes.trust.caches import Caches
from sealbus.envelopes.trust.spiffe_id import SpiffeId

OWN = ISSUER.sealer(INVENTORY)


def message(detached: bool = False, ancestors: tuple[Ancestor, ...] | None = None, **fields: object) -> VerifiedMessage:
    """Return a task of the planner's for the inventory, which follows from one of the edge's for the planner."""
    fields |= {"ext": {"_det": True}} if detached else {}
    sent = Message(fields=fields) if ancestors is None else Message(fields=fields, ancestors=ancestors)
    return Delivery(header_block=header_block(cast("bytes", fields.get("id", message_id(2))))).accept(sent)


def stop_of(header: Header, **fields: object) -> Stop:
    assert header.aud is not None
    action = header.to.removeprefix("task.")
    return replace(
        Stop(
            agent=header.aud,
            digest=header.digest,
            action=action,
            by=header.iss,
            role=CancelRole.REQUESTER,
            reason="enough",
            end=NOW + HOUR,
            at=NOW,
            cancel=bytes(32),
        ),
        **fields,  # type: ignore[arg-type]
    )


@dataclass
class Site:
    """One process that reads stops, on a broker in memory and a clock."""

    now: int = NOW
    trust: Trust = TRUST
    past: tuple[Trust, ...] = ()
    counters: Counters = field(default_factory=Counters)

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("STATE", ["state.>"])
        self.broker.add_stream("HELD", ["held.>"])
        self.stops = self.process(INVENTORY)

    def process(self, own: SpiffeId, *, required: bool = True, transport: Transport | None = None) -> Stops:
        """Return the stops as a process of `own` reads them."""
        site = site_of(
            transport or self.broker.connect(),
            lambda: self.now,
            identity=StaticIdentity(ThrowawayCa("example.org"), own.value),
            trust=lambda: self.trust,
            counters=self.counters,
        )
        return Stops(site, kept=self.kept(own), past=self, required=required)

    def kept(self, own: SpiffeId) -> KeptStops:
        """Return HELD as `own` reads and writes it."""
        held = Held(
            self.broker.connect(),
            trust=lambda: self.trust,
            names=NAMES,
            caches=Caches(),
            clock=BusClock(lambda: self.now),
        )
        identity = StaticIdentity(ThrowawayCa("example.org"), own.value, sealer=lambda: ISSUER.sealer(own))
        return KeptStops(held, identity=identity, names=NAMES, own_subjects={})

    async def keep(self, stop: Stop) -> None:
        """Have a stop kept in HELD, as its agent does before a cancel is confirmed."""
        await self.kept(stop.agent).keep(replace(stop, at=self.now))

    async def at(self, time: int) -> tuple[Trust, ...]:
        """Return what is known of the past."""
        if not self.past:
            raise StateUnavailable("no key book")
        return self.past

    @asynccontextmanager
    async def reading(self, own: SpiffeId = INVENTORY) -> AsyncIterator[Stops]:
        stops = self.stops if own == INVENTORY else self.process(own)
        running = asyncio.create_task(stops.run())
        await stops.current.wait()
        try:
            yield stops
        finally:
            running.cancel()
            await asyncio.wait([running])

    def put(self, stop: Stop, stored: bytes | None = None, *, at: int | None = None) -> None:
        made = replace(stop, at=self.now if at is None else at)
        sealed = stored if stored is not None else sign(made, ISSUER.sealer(stop.agent))
        self.broker.inject(stop.place(NAMES).subject, sealed)


@pytest.fixture
def site() -> Site:
    return Site()


BY = Canceled(PLANNER.iss, "enough")


async def test_what_was_stored_before_and_what_comes_later_is_known(site: Site) -> None:
    first, second = message(), message(id=message_id(3))
    site.put(stop_of(first.header))
    async with site.reading() as stops:
        assert (stops.find(first), stops.find(second)) == (BY, None)
        site.put(stop_of(second.header))
        await until(lambda: stops.find(second) == BY)


async def test_it_reaches_what_follows_from_it(site: Site) -> None:
    found, apart = message(), message(detached=True)
    [root, _] = found.chain
    async with site.reading() as stops:
        site.put(stop_of(root))
        await until(lambda: stops.find(found) == Canceled(EDGE_ID, "enough"))
        # It is detached from what was canceled, and still may be canceled itself.
        assert stops.find(apart) is None
        site.put(stop_of(apart.header))
        await until(lambda: stops.find(apart) == BY)


async def test_each_that_is_about_a_message_is_looked_at(site: Site) -> None:
    """Anybody may cancel what is not theirs: it stops nothing, and hides nothing that does."""
    for number, strangers in enumerate(([PLANNER.iss, INVENTORY], [INVENTORY, PLANNER.iss])):
        found = message(id=message_id(5 + number))
        async with site.reading() as stops:
            for who in strangers:
                site.put(stop_of(found.header, by=who))
            await read(site, stops)
            assert stops.find(found) == BY


async def read(site: Site, stops: Stops) -> None:
    """Wait until a process has taken in all that is stored: it suspects a message once it has read junk in its place."""
    last = message(id=message_id(10_000 + len(site.broker.streams["STATE"].stored)))
    site.put(stop_of(last.header), b"\x90")
    await until(lambda: stops.suspects(last))


async def test_a_forged_one_stops_nothing_and_has_held_asked(site: Site) -> None:
    found = message()
    [root, header] = found.chain
    async with site.reading() as stops:
        site.put(stop_of(header), b"\x90")
        site.put(stop_of(root), sign(stop_of(root), OWN))
        await read(site, stops)
        assert stops.find(found) is None
        assert await stops.met(permitted(found)) is None
        assert site.counters.value("sealbus_stops_asked_total") == 2
        assert stops.suspects(found)


@pytest.mark.parametrize("over", [0, 1], ids=["the message", "what it follows from"])
async def test_bytes_over_a_stop_do_not_undo_it_for_a_process_that_never_saw_it(site: Site, over: int) -> None:
    found, apart = message(), message(detached=True)
    header = found.chain[1 - over]
    await site.keep(stop_of(header))
    site.put(stop_of(header), b"\x90")
    async with site.reading() as stops:
        assert stops.find(found) is None
        assert await stops.met(permitted(found)) == Canceled(header.iss, "enough")
        if over:
            assert await stops.met(permitted(apart)) is None


async def test_a_stop_of_another_action_stored_again_over_one_does_not_undo_it(site: Site) -> None:
    found = message()
    await site.keep(stop_of(found.header))
    site.put(stop_of(found.header, action="inventory.read"))
    async with site.reading() as stops:
        assert await stops.met(permitted(found)) == BY


async def test_nothing_begins_while_held_does_not_say(site: Site) -> None:
    found = message()
    site.put(stop_of(found.header), b"\x90")
    away = site.broker.streams.pop("HELD")
    async with site.reading() as stops:
        with pytest.raises(StateUnavailable, match="the stops in HELD"):
            await stops.met(permitted(found))
        assert await stops.met(permitted(message(id=message_id(3)))) is None
        site.broker.streams["HELD"] = away
        # One that does not verify yet, as its key may be new.
        site.trust = Trust(bundles=TrustBundles([]))
        site.broker.inject(f"held.inventory.stop.{found.header.digest.hex()}.planner", b"junk")
        assert await stops.met(permitted(found)) is None
        site.trust = TRUST
        await site.keep(stop_of(found.header))
        site.trust = Trust(bundles=TrustBundles([]))
        with pytest.raises(StateUnavailable, match="a moment ago"):
            await stops.met(permitted(found))


async def test_planted_bytes_take_no_room_from_stops(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "OF_REQUESTER", 2)
    found = message()
    forged = sign(stop_of(found.header), ISSUER.sealer(PLANNER.iss))
    async with site.reading() as stops:
        for number in range(1_000):
            site.put(stop_of(found.header, digest=number.to_bytes(32)), b"\x90" if number % 2 else forged)
        assert not stops.full_for(stop_of(found.header).place(NAMES))
        site.put(stop_of(found.header))
        await until(lambda: stops.find(found) == BY)
        assert site.counters.value("sealbus_stops_total") == 1


async def test_a_genuine_one_is_not_undone_by_bytes_stored_over_it(site: Site) -> None:
    found = message()
    [root, _] = found.chain
    async with site.reading() as stops:
        site.put(stop_of(root))
        await until(lambda: stops.find(found) is not None)
        site.put(stop_of(root), b"\x90")
        for _ in range(5):
            await asyncio.sleep(0)
        assert stops.find(found) == Canceled(EDGE_ID, "enough")


async def test_one_that_is_stored_again_later_neither_counts_nor_undoes_one_that_does(site: Site) -> None:
    first, second = message(), message(id=message_id(3))
    async with site.reading() as stops:
        site.now += 61 * SECOND
        [root, header] = first.chain
        site.put(stop_of(root), at=NOW)
        site.put(stop_of(header))
        site.put(stop_of(header, reason="before"), at=NOW)
        site.put(stop_of(second.header))
        await until(lambda: stops.find(second) == BY)
        assert stops.find(first) == BY
        assert stops.find(message(id=message_id(4))) is None


async def test_one_whose_key_comes_late_counts_then(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROVED_AGAIN", 0.01)
    found = message()
    site.trust = Trust(bundles=TrustBundles([]))
    async with site.reading() as stops:
        site.put(stop_of(found.chain[0]))
        for _ in range(5):
            await asyncio.sleep(0)
        assert stops.find(found) is None
        site.trust = TRUST
        await until(lambda: stops.find(found) == Canceled(EDGE_ID, "enough"))


async def test_only_so_many_whose_keys_come_late_are_looked_at_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROVED_AGAIN", 0.01)
    monkeypatch.setattr(module, "UNPROVED_OF_AGENT", 3)
    monkeypatch.setattr(module, "UNPROVED", 5)
    messages = [message(id=message_id(3 + number)) for number in range(4)]
    own = [stop_of(one.header) for one in messages]
    others = [replace(one, agent=PLANNER.iss) for one in own]
    site.trust = Trust(bundles=TrustBundles([]))
    async with site.reading() as stops:
        for one in (*own, *others):
            site.put(one)
        await read(site, stops)
        site.trust = TRUST
        await until(lambda: site.counters.value("sealbus_stops_total") == 5)
        # Those that came into force have left their room to this one. When it does, the others have been passed over.
        last = message(id=message_id(9))
        site.trust = Trust(bundles=TrustBundles([]))
        site.put(stop_of(last.header))
        await read(site, stops)
        site.trust = TRUST
        await until(lambda: stops.find(last) == BY)
        assert [stops.find(one) for one in messages] == [BY, BY, BY, None]
        assert site.counters.value("sealbus_stops_total") == 6


async def test_one_whose_key_is_gone_counts_by_what_is_known_of_the_past(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROVED_AGAIN", 0.01)
    found = message()
    site.trust = Trust(bundles=TrustBundles([]))
    async with site.reading() as stops:
        site.put(stop_of(found.chain[0]))
        await read(site, stops)
        assert stops.find(found) is None
        site.past = (Trust(bundles=TrustBundles([])), TRUST)
        await until(lambda: stops.find(found) == Canceled(EDGE_ID, "enough"))


def permitted(message: VerifiedMessage) -> Permitted:
    return cast("Permitted", SimpleNamespace(message=message, cancellation=Cancellation()))


async def test_running_work_is_told_and_ended_work_is_not(site: Site) -> None:
    running, ended = permitted(message()), permitted(message())
    async with site.reading() as stops:
        assert await stops.met(running) is None
        assert await stops.met(ended) is None
        stops.leave(ended)
        site.put(stop_of(running.message.header))
        await until(lambda: running.cancellation.canceled == BY)
        assert ended.cancellation.canceled is None
        assert await stops.met(ended) == BY


async def test_one_that_is_on_its_way_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    found, other = message(), message(id=message_id(3))
    async with site.reading() as stops:
        waiting = asyncio.create_task(stops.expected(found))
        site.put(stop_of(other.header))
        await until(lambda: stops.find(other) == BY)
        assert not waiting.done()
        site.put(stop_of(found.header))
        assert await waiting == BY
        monkeypatch.setattr(module, "CURRENT_WITHIN", 0.01)
        assert await stops.expected(message(id=message_id(4))) is None


async def test_what_was_put_off_is_told_once_and_not_after_it_was_taken_up(site: Site) -> None:
    told: list[Canceled] = []
    waits, again = message(), message(id=message_id(3))
    async with site.reading() as stops:
        stops.put_off(waits, 60.0, told.append)
        stops.put_off(again, 60.0, told.append)
        assert await stops.met(permitted(again)) is None
        site.put(stop_of(again.header))
        site.put(stop_of(waits.header))
        await until(lambda: told == [BY])
        site.put(stop_of(waits.header))
        for _ in range(5):
            await asyncio.sleep(0)
        assert told == [BY]


async def test_what_was_canceled_before_it_was_put_off_is_told_at_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that comes between the end of a try and the wait for the next one finds nothing that it could interrupt."""
    told: list[Canceled] = []
    waits, later = message(), message(id=message_id(3))
    monkeypatch.setattr(module, "PUT_OFF_BYTES", len(later.body) + module.HEADERS)
    async with site.reading() as stops:
        site.put(stop_of(waits.header))
        await until(lambda: stops.find(waits) == BY)
        stops.put_off(waits, 60.0, told.append)
        assert told == [BY]
        # It takes no room from what waits.
        stops.put_off(later, 60.0, told.append)
        site.put(stop_of(later.header))
        await until(lambda: told == [BY, BY])


async def test_all_that_was_put_off_is_looked_at(site: Site) -> None:
    waiting = [message(id=message_id(3 + number)) for number in range(3)]
    told: list[int] = []
    async with site.reading() as stops:
        for number, one in enumerate(waiting):
            stops.put_off(one, 60.0, lambda _, number=number: told.append(number))  # type: ignore[misc]
        for one in waiting[::-1]:
            site.put(stop_of(one.header))
        await until(lambda: sorted(told) == [0, 1, 2])


async def test_only_so_much_of_what_was_put_off_is_watched(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUT_OFF_BYTES", 2 * module.HEADERS + 100)
    told: list[Canceled] = []
    messages = [message(id=message_id(3 + number)) for number in range(4)]
    async with site.reading() as stops:
        for one in messages[:3]:
            stops.put_off(one, 60.0, told.append)
        # The time of those before is over: they were delivered again, elsewhere.
        site.now += 61 * SECOND
        stops.put_off(messages[3], 60.0, told.append)
        for one in messages:
            site.put(stop_of(one.header))
        await until(lambda: told == [BY])


async def test_nothing_begins_while_it_is_not_known_what_was_canceled(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CURRENT_WITHIN", 0.01)
    with pytest.raises(StateUnavailable):
        await site.stops.met(permitted(message()))
    async with site.reading() as stops:
        stops.current.clear()
        waiting = asyncio.create_task(stops.met(permitted(message())))
        await asyncio.sleep(0)
        stops.current.set()
        assert await waiting is None


async def test_nothing_begins_before_what_came_while_the_loop_stood_still_is_known(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers that block follow each other without a turn of the event loop: each would begin as if nothing had come."""
    monkeypatch.setattr(loop_turns, "STILL_WITHIN", 0.2)
    monkeypatch.setattr(loop_turns, "TURN", 0.01)
    async with site.reading() as stops:
        await asyncio.sleep(0.02)
        assert await stops.met(permitted(message())) is None
        site.put(stop_of(message().header))
        time.sleep(0.3)  # noqa: ASYNC251  a handler that blocks
        assert await stops.met(permitted(message())) == BY


async def test_who_wants_to_work_without_a_server_begins_nevertheless(site: Site) -> None:
    site.stops = site.process(INVENTORY, required=False)
    waits = message()
    assert await site.stops.met(permitted(waits)) is None
    async with site.reading() as stops:
        site.put(stop_of(waits.header))
        await until(lambda: stops.find(waits) == BY)
        stops.current.clear()
        assert await stops.met(permitted(waits)) == BY


class AwayOnce(MemoryTransport):
    """A transport whose first read fails."""

    away = True

    def read(
        self, stream: str, subjects: Sequence[str], **options: Any
    ) -> AsyncGenerator[Sequence[ports.Delivery], None]:
        if self.away:
            self.away = False
            raise BusUnavailable("away")
        return super().read(stream, subjects, **options)


async def test_reading_goes_on_after_a_failure(site: Site) -> None:
    site.stops = site.process(INVENTORY, transport=AwayOnce(site.broker))
    site.put(stop_of(message().header))
    async with site.reading() as stops:
        await until(lambda: stops.find(message()) == BY)


async def test_each_requester_has_room_of_its_own(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "OF_REQUESTER", 2)
    messages = [message(id=message_id(3 + number)) for number in range(3)]
    root = root_task()
    async with site.reading() as stops:
        for one in messages:
            site.put(stop_of(one.header))
        await read(site, stops)
        assert [stops.find(one) for one in messages] == [BY, BY, None]
        assert stops.full_for(stop_of(messages[2].header).place(NAMES))
        # One that is known already takes no further room.
        assert not stops.full_for(stop_of(messages[0].header).place(NAMES))
        site.put(stop_of(messages[0].header, reason="again"))
        await until(lambda: stops.find(messages[0]) == Canceled(PLANNER.iss, "again"))
        # Another requester, and another agent.
        site.put(stop_of(messages[2].header, by=EDGE_ID, role=CancelRole.OPERATOR))
        await until(lambda: stops.find(messages[2]) == Canceled(EDGE_ID, "enough"))
        site.put(stop_of(root.header))
        await until(lambda: stops.find(message(id=message_id(9))) == Canceled(EDGE_ID, "enough"))
        assert [stops.find(one) for one in messages[:2]] == [Canceled(PLANNER.iss, "again"), BY]


async def test_one_that_has_no_room_comes_into_force_nowhere(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its agent does not confirm it, and does not keep it in HELD."""
    monkeypatch.setattr(room_module, "OF_REQUESTER", 1)
    first, second = message(), message(id=message_id(3))
    async with site.reading() as stops:
        stored = [stop_of(one.header) for one in (first, second)]
        running = permitted(second)
        assert await stops.met(running) is None
        for one in stored:
            site.put(one)
        assert [await stops.admits(one, number) for number, one in enumerate(stored, 1)] == [True, False]
        assert running.cancellation.canceled is None
        assert await stops.met(permitted(second)) is None
        # What has ended is over, whatever room there is.
        site.put(over := stop_of(message(id=message_id(4)).header, end=0))
        assert await stops.admits(over, 3)


async def test_what_its_own_process_has_not_read_is_not_confirmed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CURRENT_WITHIN", 0.01)
    async with site.reading() as stops:
        with pytest.raises(StateUnavailable, match="was not read"):
            await stops.admits(stop_of(message().header), 1)
        site.put(stop_of(message().header), b"\x90")
        await read(site, stops)
        with pytest.raises(StateUnavailable, match="does not verify"):
            await stops.admits(stop_of(message().header), 1)


@pytest.mark.parametrize(("of_agent", "in_memory"), [(2, 9), (9, 2)])
async def test_stops_of_other_agents_beyond_memory_are_in_force_by_held(
    site: Site, monkeypatch: pytest.MonkeyPatch, of_agent: int, in_memory: int
) -> None:
    monkeypatch.setattr(room_module, "OF_AGENT", of_agent)
    monkeypatch.setattr(room_module, "IN_MEMORY", in_memory)
    messages = [message(id=message_id(3 + number)) for number in range(4)]
    told: list[Canceled] = []
    async with site.reading(PLANNER.iss) as stops:
        for one in messages[:2]:
            site.put(stop_of(one.header))
        await read(site, stops)
        running = permitted(messages[2])
        assert await stops.met(running) is None
        stops.put_off(messages[3], 60.0, told.append)
        for one in messages[2:]:
            await site.keep(stop_of(one.header))
            site.put(stop_of(one.header))
        await until(lambda: running.cancellation.canceled == BY and told == [BY])
        assert [stops.find(one) for one in messages] == [BY, BY, None, None]
        assert await stops.met(permitted(messages[3])) == BY
        monkeypatch.setattr(module, "CURRENT_WITHIN", 0.05)
        assert await stops.expected(messages[3]) == BY
        assert site.counters.value("sealbus_stops_unkept_total") == 2
        # Those of the own agent are kept.
        for one in messages[:3]:
            site.put(stop_of(one.header, agent=PLANNER.iss, digest=one.header.digest[::-1], by=EDGE_ID))
        await until(lambda: site.counters.value("sealbus_stops_total") == 5)


async def test_they_are_forgotten_when_nothing_that_they_concern_can_come(site: Site) -> None:
    old, forged = message(), message(id=message_id(3))
    async with site.reading() as stops:
        site.put(stop_of(old.header, end=2**53 - 1))
        site.put(stop_of(forged.header), b"\x90")
        await until(lambda: stops.find(old) == BY and stops.suspects(forged))
        site.now += KEPT_SECONDS * SECOND - 1
        assert not stops.full_for(stop_of(old.header).place(NAMES))
        assert stops.find(old) == BY
        assert stops.suspects(forged)
        site.now += 2 * SECOND
        assert not stops.full_for(stop_of(old.header).place(NAMES))
        assert not stops.suspects(old)
        assert not stops.suspects(forged)


async def test_one_is_forgotten_soon_after_the_end_of_what_it_stops(site: Site) -> None:
    """Calls that are left end within a minute: a stop for each must not take up the room for a day."""
    short, long = message(), message(id=message_id(3))
    place = stop_of(message(id=message_id(4)).header).place(NAMES)
    async with site.reading() as stops:
        site.put(stop_of(short.header, end=NOW + SECOND))
        site.put(stop_of(long.header, end=2**53 - 1))
        await until(lambda: stops.find(short) == stops.find(long) == BY)
        site.now += (room_module.KEPT_AFTER + 2) * SECOND
        assert not stops.full_for(place)
        assert (stops.find(short), stops.find(long)) == (None, BY)
        # A version that is older than the one that is known does not count.
        site.put(stop_of(short.header, end=NOW + 300 * SECOND))
        site.put(stop_of(short.header, end=NOW + 200 * SECOND), at=site.now - 1)
        await read(site, stops)
        site.now = NOW + 290 * SECOND
        assert not stops.full_for(place)
        assert stops.find(short) == BY
        site.now = NOW + KEPT_SECONDS * SECOND + 1
        assert not stops.full_for(place)
        assert not stops.suspects(short)
        assert not stops.suspects(long)


async def test_one_that_says_that_it_is_over_ends_one_in_its_place(site: Site) -> None:
    found = message()
    async with site.reading() as stops:
        site.put(stop_of(found.header))
        await until(lambda: stops.find(found) == BY)
        site.now += MINUTE
        site.put(stop_of(found.header, end=0))
        await until(lambda: stops.find(found) is None)
        # It may have been stored again over one that counts: HELD knows.
        assert stops.suspects(found)
