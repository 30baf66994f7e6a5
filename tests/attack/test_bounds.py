"""Each bound of SECURITY.md's table, flooded on a real server with real permissions: honest work goes on.

Each test has the rogue store more than the bound in question, and then has others do what the flood would prevent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel
from support.engines import ScriptedEngine
from support.floods import FULL, GROUNDS, ROOM, Ground, flooded_bus
from support.lab import until

from sealbus import Agent, Client, Context, RemoteError, TaskHandle
from sealbus.agents.control.notary.key_book import KeyBookWriter
from sealbus.agents.dev.workload_api.authority import DevelopmentAuthority
from sealbus.agents.edge.a2a.kept_tasks import MOST_LISTED, KeptTasks
from sealbus.agents.edge.oauth.tokens.access_token import AccessToken
from sealbus.agents.edge.v1.task_owners import TaskOwners
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.schedules import book_of, scheduler_of
from sealbus.agents.runtime.worker import Worker
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.status_reader import AskedTask, StatusLimits
from sealbus.bus.nats.transport import NatsTransport
from sealbus.bus.ports import Outgoing, Overloaded
from sealbus.bus.routing.retry import Retry, RetryPolicy
from sealbus.bus.sending.answer import CallExpired
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State
from sealbus.bus.streams import held as held_module
from sealbus.bus.streams.key_book import KEY_BOOK_TYPE, KeyBook, key_book_subject
from sealbus.bus.work import verb_room
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, ParkedTasks
from sealbus.bus.work.cancel import room
from sealbus.bus.work.cancel.kept import KEPT_STOP_TYPE
from sealbus.bus.work.cancel.stop import STOPS, StopPlace
from sealbus.bus.work.idempotency.replay_guard import MOST as MOST_USES
from sealbus.bus.work.idempotency.replay_guard import SLOTS, ReplayGuard
from sealbus.bus.work.schedules.book import Schedule, ScheduleBook, ScheduleChange
from sealbus.bus.work.schedules.endpoint import MOST
from sealbus.bus.work.schedules.request import Planned, ScheduleRequest, ScheduleState, encode_schedule
from sealbus.bus.work.schedules.rule import Every
from sealbus.envelopes.accept.open_request import STATUSES, PendingRequest
from sealbus.envelopes.errors import StateUnavailable
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.log.trust_history import TrustHistory
from sealbus.envelopes.records.notary import BundleRecord
from sealbus.envelopes.trust.spiffe_id import TrustDomain

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]

FLOOD = 13_000
"""As many as an agent stores in two seconds."""
AGENTS = ("works", "shop", "market", "notary", "clerk", "edge")


class Job(BaseModel):
    number: int = 0


@dataclass
class Works:
    """An agent whose tasks wait for a second try, and are done then."""

    handled: list[int] = field(default_factory=list)
    blocked: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def agent(self) -> Agent:
        works = Agent("works")

        @works.task("later")
        async def later(job: Job, ctx: Context) -> None:
            self.handled.append(job.number)
            raise Retry(after=3_000.0, note="later")

        @works.task("soon", once=True)
        async def soon(job: Job, ctx: Context) -> int:
            self.handled.append(job.number)
            return job.number

        @works.task("block")
        async def block(job: Job, ctx: Context) -> None:
            self.blocked.set()
            await self.leave.wait()

        return works


@pytest.fixture(params=GROUNDS)
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    async with flooded_bus(tmp_path, request.param, *AGENTS) as made:
        yield made


async def ended(handle: TaskHandle) -> State:
    async with aclosing(handle.statuses()) as statuses:
        found = [status async for status in statuses]
    return found[-1].state


def stop_places(agent: str, requester: str, number: int) -> list[str]:
    return [f"state.{agent}.stop.{secrets.token_hex(32)}.{requester}" for _ in range(number)]


def stop_place(requester: str, number: int) -> StopPlace:
    """Return the place of a requester's cancel of `nothing`, at the agent `works`."""
    return StopPlace(agent="works", requester=requester, digest=number.to_bytes(32))


def full_only_for(worker: Worker, refused: Mapping[StopPlace, bool]) -> bool:
    """Return whether the worker has no room exactly for the places that are said to be refused."""
    return {place: worker.parts.stops.full_for(place) for place in refused} == refused


# Cancels


async def test_bytes_in_the_places_of_cancels_take_no_room_from_them(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    async with ground.workers(works.agent):
        await ground.plant(stop_places("works", "shop", FLOOD))
        handle = await shop.submit("works.later", Job(number=1))
        await until(lambda: works.handled == [1])
        await handle.cancel("enough")
        assert await ended(handle) is State.CANCELED
        # What is not canceled is done, whether its place was flooded or not.
        assert await (await shop.submit("works.soon", Job(number=2))).result(int) == 2


async def test_bytes_over_a_cancel_do_not_undo_it_however_many_others_there_are(ground: Ground) -> None:
    """A process that starts later has never seen the cancel, and has no room to note each place."""
    works, shop = Works(), await ground.client()
    quick = WorkerLimits(concurrency=1, ack_wait=2.0, drain=0.1)
    async with ground.workers(works.agent, limits=quick):
        await shop.submit("works.block", Job())
        await until(works.blocked.is_set)
        handles = [await shop.submit("works.soon", Job(number=number)) for number in range(3)]
        for handle in handles:
            await handle.cancel("enough")
    places = [f"state.works.stop.{handle.digest.hex()}.shop" for handle in handles]
    await ground.plant([*stop_places("works", "shop", FLOOD), *places])
    works.leave.set()
    async with ground.workers(works.agent):
        for handle in handles:
            assert await ended(handle) is State.CANCELED
        assert await (await shop.submit("works.soon", Job(number=9))).result(int) == 9
    assert works.handled == [9]


async def test_two_requesters_fill_no_room_but_their_own(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes of one agent count alike, by the order of the stream."""
    monkeypatch.setattr(room, "OF_REQUESTER", 40)
    works, shop = Works(), await ground.client()
    senders = [await ground.client(name) for name in ("market", "clerk")]
    async with ground.workers(works.agent, works.agent) as replicas:

        async def cancel(sender: Client, number: int) -> str:
            asked = nothing(ground, "works", number)
            try:
                await sender.node.sending.cancel(asked, reason="of nothing", timeout=60.0)
            except RemoteError as error:
                return str(error.code)
            return ""

        found = [
            await asyncio.gather(*[cancel(sender, start + number) for number in range(80)])
            for start, sender in ((1_000, senders[0]), (2_000, senders[1]))
        ]
        for codes in found:
            assert sorted(codes) == [""] * 40 + ["overloaded"] * 40
        for name, start, codes in zip(("market", "clerk"), (1_000, 2_000), found, strict=True):
            # A place has no room once its requester's is full, unless it is taken.
            refused = {stop_place(name, start + number): bool(code) for number, code in enumerate(codes)}
            for replica in replicas:
                await until(partial(full_only_for, replica, refused))
        handle = await shop.submit("works.later", Job(number=1))
        await until(lambda: works.handled == [1])
        await handle.cancel("enough")
        assert await ended(handle) is State.CANCELED


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_8192_cancels_of_one_requester_are_in_force_and_the_next_is_refused(ground: Ground) -> None:
    """Nothing is lowered. Who is refused is told so before anything is stored; nobody else notices."""
    works, shop, market = Works(), await ground.client(), await ground.client("market")
    async with ground.workers(works.agent) as [worker]:

        async def cancel(number: int) -> None:
            await market.node.sending.cancel(nothing(ground, "works", number), reason="of nothing", timeout=60.0)

        for start in range(1, room.OF_REQUESTER + 1, 256):
            await asyncio.gather(*[cancel(start + number) for number in range(256)])
        over = room.OF_REQUESTER + 1

        async def stored() -> tuple[int, int]:
            # Of STATE the stops alone: how far consumers were acknowledged is stored there every few seconds.
            return await ground.stored("HELD"), await ground.under("STATE", STOPS)

        before = await stored()
        assert before[1] == room.OF_REQUESTER
        with pytest.raises(RemoteError) as refused:
            await cancel(over)
        assert refused.value.code == "overloaded"
        assert await stored() == before
        assert full_only_for(worker, {stop_place("market", number): number == over for number in range(1, over + 1)})
        handle = await shop.submit("works.later", Job(number=1))
        await until(lambda: works.handled == [1])
        await handle.cancel("enough")
        assert await ended(handle) is State.CANCELED


@pytest.mark.parametrize(("of_agent", "in_memory"), [(8, 100), (100, 8)])
async def test_cancels_that_a_process_does_not_keep_are_in_force_all_the_same(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, of_agent: int, in_memory: int
) -> None:
    """What follows from a task is canceled with it, at an agent whose memory is full of other cancels."""
    monkeypatch.setattr(room, "OF_AGENT", of_agent)
    monkeypatch.setattr(room, "IN_MEMORY", in_memory)
    works, market = Works(), Agent("market")
    asked = asyncio.Event()

    @market.task("ask")
    async def ask(job: Job, ctx: Context) -> int:
        handle = await ctx.submit("works.soon", job)
        asked.set()
        return await handle.result(int)

    shop = await ground.client()
    async with ground.workers(market):
        for number in range(20):
            await shop.node.sending.cancel(nothing(ground, "market", number), reason="of nothing")
        handle = await shop.submit("market.ask", Job(number=1))
        await asked.wait()
        await handle.cancel("enough")
    async with ground.workers(works.agent) as [worker]:
        assert await (await shop.submit("works.soon", Job(number=9))).result(int) == 9
        assert worker.node.counters.value("sealbus_stops_unkept_total") == 21 - 8
    assert 1 not in works.handled
    assert 9 in works.handled


def nothing(ground: Ground, agent: str, number: int) -> AskedTask:
    """Return a task that nobody sent."""
    end = wall_clock() + 3_600 * SECOND
    pending = PendingRequest(digest=number.to_bytes(32), id=bytes(16), aud=ground.bus.names.id_of(agent), end=end)
    return AskedTask(pending=pending, action=f"{agent}.ask")


async def test_forgeries_about_one_cancel_withhold_its_message_alone(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, shop = Works(), await ground.client()
    first, second = [await shop.submit("works.soon", Job(number=number)) for number in (1, 2)]
    place = f"held.works.stop.{first.digest.hex()}.shop"
    forged = ground.forged(place, "works", KEPT_STOP_TYPE)
    await ground.plant([place] * (held_module.FORGERIES + 1), forged)
    # Without bytes in STATE nobody asks.
    await ground.plant([f"state.works.stop.{first.digest.hex()}.shop"])
    async with ground.workers(works.agent):
        assert await second.result(int) == 2
        if not ground.detours:
            assert await first.result(int) == 1
        else:
            status = await first.status()
            assert status is None or not status.final
            assert works.handled == [2]


# Values that outlive a day


async def scheduled(ground: Ground, book: ScheduleBook, name: str) -> None:
    """Store a schedule as its owner does."""
    planned = Planned(
        action="works.soon",
        body=Content(b"{}", "application/json"),
        when=Every(seconds=60, start=0),
        until=wall_clock() + 10**12,
    )
    body = encode_schedule(ScheduleRequest(name=name, state=ScheduleState.ON, planned=planned))
    change = ScheduleChange(bytes(32), ground.bus.names.id_of("shop"), wall_clock())
    schedule = Schedule(
        name=name,
        state=ScheduleState.ON,
        planned=planned,
        body=body,
        grant=change,
        change=change,
        order=(wall_clock(), 1),
        since=wall_clock(),
    )
    assert await book.store(schedule, None)


@pytest.mark.parametrize("form", ["junk", "forged"])
async def test_what_is_stored_under_other_names_takes_no_schedule_from_an_owner(ground: Ground, form: str) -> None:
    node = await ground.bus.node("clerk", ScriptedEngine())
    await scheduled(ground, book_of(node), "nightly")
    place = "held.clerk.schedule.made-up"
    forged = ground.forged(place, "clerk", "application/vnd.sealbus.held-schedule.v1")
    number = held_module.FORGERIES + 1
    await ground.plant([place] * number, forged if form == "forged" else b"junk")
    await ground.plant([f"held.clerk.schedule.m{number}" for number in range(number)])
    # A process that starts now.
    later = await ground.bus.node("clerk", ScriptedEngine())
    assert list(await book_of(later).all()) == ["nightly"]
    scheduler = scheduler_of(later)
    running = asyncio.create_task(scheduler.run())
    await until(lambda: list(scheduler.known) == ["nightly"], seconds=30.0)
    # It learns of a new one, too.
    await scheduled(ground, book_of(node), "daily")
    await until(lambda: sorted(scheduler.known) == ["daily", "nightly"], seconds=30.0)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("form", ["junk", "forged"])
async def test_what_is_stored_beside_a_key_book_does_not_make_the_past_unknown(ground: Ground, form: str) -> None:
    bus, notary = ground.bus, ground.bus.names.id_of("notary")
    node, reading = await bus.node("notary", ScriptedEngine()), await bus.node("clerk", ScriptedEngine())
    subject = key_book_subject("notary")
    forged = ground.forged(subject, "notary", KEY_BOOK_TYPE, rec=[b"junk"])
    flood = [subject] * (held_module.FORGERIES + 1)
    await ground.plant(flood, forged if form == "forged" else b"junk")
    record = BundleRecord(
        trust_domain=bus.names.trust_domain, current=wall_clock() - SECOND, jwt=bus.authority.jwt_bundle()
    )
    writer = KeyBookWriter(identity=node.identity, transport=node.transport, names=bus.names, clock=wall_clock)
    running = asyncio.create_task(writer.write_books(TrustHistory([record])))

    def reader() -> KeyBook:
        return KeyBook(
            reading.transport, notaries=[notary], trust=reading.trust, names=bus.names, caches=reading.caches
        )

    async def known(reader: KeyBook) -> None:
        """Wait until a process knows the past: it may need several readings, each of which goes on where it was."""
        while True:
            try:
                assert await reader.at(wall_clock())
            except StateUnavailable:
                await asyncio.sleep(0.5)
            else:
                return

    async with asyncio.timeout(120):
        first = reader()
        await known(first)
        await ground.plant(flood, forged if form == "forged" else b"junk")
        # One that knows it, and one that starts behind two floods.
        assert await first.at(wall_clock())
        await known(reader())
    running.cancel()
    await asyncio.wait([running])
    assert writer.problem == ""


async def test_forgeries_of_one_parked_task_hide_no_other(ground: Ground) -> None:
    node = await ground.bus.node("works", ScriptedEngine())
    tasks = ParkedTasks(node.held, identity=node.identity, names=ground.bus.names)
    digest, other = secrets.token_bytes(32), secrets.token_bytes(32)
    place = f"held.works.task.managers.{digest.hex()}"
    await ground.plant([place] * (held_module.FORGERIES + 1), ground.forged(place, "works", PARKED_TYPE))
    assert await tasks.find(other) is None
    if ground.detours:
        with pytest.raises(StateUnavailable):
            await tasks.find(digest)


# Values by key, and statuses


async def test_bytes_in_the_places_of_claims_block_no_other_effect(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    await ground.plant([f"state.works.effect.{secrets.token_hex(32)}" for _ in range(FLOOD)])
    async with ground.workers(works.agent):
        assert await (await shop.submit("works.soon", Job(number=1))).result(int) == 1


async def test_statuses_that_do_not_verify_hide_no_result(ground: Ground) -> None:
    """Any agent may publish to the statuses of any requester."""
    works, shop = Works(), await ground.client()
    handle = await shop.submit("works.soon", Job(number=1))
    subject = f"status.shop.{handle.message_id}"
    transport = NatsTransport(ground.bus.connections["rogue"])
    for _ in range(10):
        acks = await transport.publish([Outgoing(subject=subject, payload=b"junk") for _ in range(500)], deadline=10.0)
        assert not [one for one in acks if isinstance(one, Exception)]
    async with ground.workers(works.agent):
        assert await handle.result(int) == 1
    assert await (await ground.client()).handle(handle.text).result(int) == 1


async def test_proofs_of_possession_are_used_once_after_their_places_were_flooded(ground: Ground) -> None:
    node = await ground.bus.node("edge", ScriptedEngine())

    def guard() -> ReplayGuard:
        return ReplayGuard("dpop", node.site)

    before, now = secrets.token_bytes(16), wall_clock()
    known = guard()
    assert await known.use(before, made=now, until=now + 60 * SECOND)
    await ground.plant([f"state.edge.dpop.{number}" for number in range(SLOTS)])
    # One that was used before the flood is not used again, by whatever process.
    for one in (known, guard()):
        with suppress(StateUnavailable):
            assert not await one.use(before, made=now, until=now + 60 * SECOND)
    # One that is made later is used once, by a process that has seen nothing else.
    later, made = secrets.token_bytes(16), wall_clock() + 6 * SECOND
    assert await guard().use(later, made=made, until=made + 60 * SECOND)
    assert not await guard().use(later, made=made, until=made + 60 * SECOND)


async def test_bytes_among_the_tasks_of_a_user_take_no_place_in_its_list(ground: Ground) -> None:
    node = await ground.bus.node("edge", ScriptedEngine())
    owners = TaskOwners(node)
    kept, user = KeptTasks(node, owners), person("alice")
    await kept.keep("0" * 32, "a context", agent="works", token=user)
    place = f"state.edge.a2a.task.{owners.place(user)}.works."
    await ground.plant([f"{place}{'f' * 24}{number:08x}" for number in range(MOST_LISTED + 1)])
    assert await kept.newest(agent="works", token=user) == {"0" * 32: "a context"}
    # The user's own take it: the newest are listed, and everybody else's.
    other = person("bob")
    await kept.keep("0" * 32, "a context", agent="works", token=other)
    for number in range(1, MOST_LISTED + 1):
        await kept.keep(f"{number:032x}", "a context", agent="works", token=user)
    listed = await kept.newest(agent="works", token=user)
    assert sorted(listed) == [f"{number:032x}" for number in range(1, MOST_LISTED + 1)]
    assert list(await kept.newest(agent="works", token=other)) == ["0" * 32]


def person(name: str) -> AccessToken:
    return AccessToken(
        issuer="https://idp.example.org",
        subject=name,
        name=name,
        client="web",
        session="s",
        auth_time=None,
        scope=(),
        claims={},
        tenant=None,
        acr=None,
        amr=None,
        issued=0,
        expires=0,
    )


async def test_a_value_that_is_full_of_uses_refuses_its_own_and_no_others(ground: Ground) -> None:
    node = await ground.bus.node("edge", ScriptedEngine())
    guard = ReplayGuard("dpop", node.site)
    now, until_then = wall_clock(), wall_clock() + 600 * SECOND
    same = [b"\0\0" + secrets.token_bytes(14) for _ in range(MOST_USES + 1)]
    for one in same[:-1]:
        assert await guard.use(one, made=now, until=until_then)
    with pytest.raises(StateUnavailable):
        await guard.use(same[-1], made=now, until=until_then)
    assert await guard.use(b"\0\1" + bytes(14), made=now, until=until_then)
    assert not await guard.use(same[0], made=now, until=until_then)


async def test_statuses_beyond_those_that_count_do_not_hide_the_last_one(ground: Ground) -> None:
    talks = Agent("market")

    @talks.task("talk")
    async def talk(job: Job, ctx: Context) -> int:
        for number in range(STATUSES + 10):
            await ctx.progress(f"{number} done")
        return job.number

    shop = await ground.client()
    async with ground.workers(talks):
        handle = await shop.submit("market.talk", Job(number=7))
        assert await handle.result(int) == 7
        async with aclosing(handle.statuses()) as statuses:
            found = [status async for status in statuses]
    assert len(found) == STATUSES + 1
    assert found[-1].state is State.COMPLETED


async def test_a_process_that_waits_for_too_many_answers_sends_nothing_more(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    reader = shop.node.status_reader
    reader.limits = StatusLimits(readers=2)  # type: ignore[misc]  # final for everybody but this test
    async with ground.workers(works.agent):
        blocked = [await shop.submit("works.block", Job()) for _ in range(2)]
        waiting = [asyncio.create_task(handle.result(object)) for handle in blocked]
        await until(lambda: reader.reading == 2)
        before = await ground.stored("TASKS")
        with pytest.raises(Overloaded):
            await blocked[0].cancel("enough")
        assert await ground.stored("TASKS") == before
        # Others are not harmed, and it goes on once an answer has come.
        other = await ground.client("market")
        assert await (await other.submit("works.soon", Job(number=1))).result(int) == 1
        works.leave.set()
        await asyncio.gather(*waiting)
        assert await (await shop.submit("works.soon", Job(number=2))).result(int) == 2


async def test_calls_that_do_not_verify_take_no_room_from_those_that_do(ground: Ground) -> None:
    shop = await ground.client()
    async with ground.workers(prices(), limits=WorkerLimits(replay_entries=5)) as [worker]:
        NatsTransport(ground.bus.connections["rogue"]).send(
            [Outgoing(subject="call.market.price", payload=b"junk %d" % number) for number in range(1_000)]
        )
        await until(lambda: worker.node.counters.value("sealbus_refused_total", code="malformed") >= 1_000)
        assert [await shop.call("market.price", Job(number=one), returns=int) for one in range(5)] == [*range(5)]
        # Its callers can fill it, until what it remembers has expired. It forgets none.
        with pytest.raises(CallExpired):
            await shop.call("market.price", Job(number=6), returns=int, timeout=1.0)
        assert worker.node.counters.value("sealbus_refused_total", code="overloaded") == 1


@pytest.mark.slow
async def test_an_owner_with_too_many_schedules_keeps_those_that_it_has(ground: Ground) -> None:
    """Its requesters fill its room together; another owner has room of its own."""
    works, clerk = Works(), Agent("clerk")
    async with ground.workers(works.agent, clerk) as [worker, other]:
        own, shop = await ground.client("works"), await ground.client("clerk")
        names = [f"s{number}" for number in range(MOST)]
        for start in range(0, MOST, 64):
            some = names[start : start + 64]
            await asyncio.gather(
                *[own.schedules.add(name, "works.soon", Job(), every=80_000, timeout=60.0) for name in some]
            )
        with pytest.raises(RemoteError) as refused:
            await own.schedules.add("one-more", "works.soon", Job(), every=80_000, timeout=60.0)
        assert refused.value.code == "too_many_schedules"
        assert sorted(worker.schedules.known) == sorted(names)
        await shop.schedules.add("nightly", "works.soon", Job(), every=80_000, timeout=60.0)
        assert list(other.schedules.known) == ["nightly"]
        await own.schedules.remove("s0")
        await own.schedules.add("one-more", "works.soon", Job(), every=80_000, timeout=60.0)


# Streams that are full


def prices() -> Agent:
    market = Agent("market")

    @market.call("price")
    async def price(job: Job, ctx: Context) -> int:
        return job.number

    return market


async def test_full_tasks_refuse_senders_and_stop_nothing_else(ground: Ground) -> None:
    works, shop, own = Works(), await ground.client(), await ground.client("works")
    waiting = [await shop.submit("works.soon", Job(number=number)) for number in range(3)]
    await ground.fill("TASKS", "task.works.soon")
    with pytest.raises(Overloaded):
        await shop.submit("works.soon", Job(number=9))
    async with ground.workers(works.agent, prices()):
        # What is stored is done, calls are answered, events are emitted.
        assert [await handle.result(int) for handle in waiting] == [0, 1, 2]
        assert await shop.call("market.price", Job(number=5), returns=int) == 5
        await own.emit("done", Job())
        await ground.resize(TASKS=ROOM)
        assert await (await shop.submit("works.soon", Job(number=4))).result(int) == 4


async def test_full_events_refuse_who_emits_and_stop_nothing_else(ground: Ground) -> None:
    works, shop, own = Works(), await ground.client(), await ground.client("works")
    await ground.fill("EVENTS", "event.rogue.made-up")
    with pytest.raises(Overloaded):
        await own.emit("done", Job())
    async with ground.workers(works.agent):
        assert await (await shop.submit("works.soon", Job(number=1))).result(int) == 1
        await ground.resize(EVENTS=ROOM)
        await own.emit("done", Job())


async def test_full_results_keep_results_back_until_there_is_room(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    await ground.fill("RESULTS", "status.shop.made-up")
    async with ground.workers(works.agent, prices()):
        handle = await shop.submit("works.soon", Job(number=1))
        await until(lambda: works.handled == [1])
        assert await handle.status() is None
        assert await shop.call("market.price", Job(number=5), returns=int) == 5
        await ground.resize(RESULTS=ROOM)
        assert await handle.result(int) == 1
    assert works.handled == [1]


async def test_a_full_audit_stops_all_handling_until_there_is_room(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    async with ground.workers(works.agent, prices()) as [worker, _]:
        await ground.fill("AUDIT", "audit.rogue")
        with pytest.raises(RemoteError) as refused:
            await shop.call("market.price", Job(number=5), returns=int)
        assert refused.value.code == "audit_unavailable"
        handle = await shop.submit("works.soon", Job(number=1))
        await until(lambda: worker.not_ready().get("audit") == "overloaded")
        assert not works.handled
        await ground.resize(AUDIT=ROOM)
        assert await handle.result(int) == 1
        assert await shop.call("market.price", Job(number=5), returns=int) == 5
    assert works.handled == [1]


async def test_a_full_state_holds_up_effects_and_nothing_else(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    await ground.fill("STATE", "state.rogue.{number}")
    async with ground.workers(works.agent) as [worker]:
        handle = await shop.submit("works.soon", Job(number=1))
        await until(lambda: worker.node.counters.value("sealbus_put_off_total", cause="passing") > 0)
        assert not works.handled
        later = await shop.submit("works.later", Job(number=2))
        await until(lambda: works.handled == [2])
        canceling = asyncio.create_task(later.cancel("enough"))
        await ground.resize(STATE=ROOM)
        assert await handle.result(int) == 1
        await canceling
        assert await ended(later) is State.CANCELED
    assert works.handled == [2, 1]


async def test_a_full_held_holds_up_schedules_and_nothing_else(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    await ground.fill("HELD", "held.rogue.{number}")
    async with ground.workers(works.agent) as [worker]:
        own = await ground.client("works")
        adding = asyncio.create_task(own.schedules.add("nightly", "works.soon", Job(), every=10_000))
        await until(lambda: worker.node.counters.value("sealbus_put_off_total", cause="passing") > 0)
        assert not worker.schedules.known
        assert await (await shop.submit("works.soon", Job(number=1))).result(int) == 1
        await ground.resize(HELD=ROOM)
        await adding
        assert list(worker.schedules.known) == ["nightly"]


@pytest.mark.parametrize(("stream", "subject"), [("DEAD", "dead.rogue.made-up"), ("REFUSALS", "refused.rogue")])
async def test_a_flood_of_dead_letters_or_refusals_drops_old_ones_and_stops_nothing(
    ground: Ground, stream: str, subject: str
) -> None:
    """Any agent may store them under its own name."""
    await ground.resize(**{stream: FULL})
    works, shop = Works(), await ground.client()
    async with ground.workers(works.agent) as [worker]:
        before = await ground.stored(stream)
        assert not await ground.send([subject] * 300, bytes(10_000))
        assert await ground.stored(stream) == before + 300
        # What is refused is counted and sampled beside the flood.
        assert not await ground.send(["task.works.soon"])
        await until(lambda: worker.node.counters.value("sealbus_refused_total", code="malformed") == 1)
        assert await (await shop.submit("works.soon", Job(number=2))).result(int) == 2


# Messages that are put off

PLACES = WorkerLimits(max_ack_pending=64)
"""Of these 32 are for verbs that are awaited, 16 for what failed, and one for unknown keys."""


async def test_tasks_of_an_unknown_key_take_no_place_from_those_that_verify(ground: Ground) -> None:
    works, shop = Works(), await ground.client()
    stranger = replace(ground.bus, authority=DevelopmentAuthority(TrustDomain("example.org")))
    thief = Client.on(await stranger.node("market", ScriptedEngine()))
    for _ in range(4):
        await asyncio.gather(*[thief.submit("works.soon", Job(), life=80_000) for _ in range(250)])
    async with ground.workers(works.agent) as [worker]:
        handles = [await shop.submit("works.soon", Job(number=number)) for number in range(1, 21)]
        assert [await handle.result(int) for handle in handles] == list(range(1, 21))
        refused = worker.node.counters.value("sealbus_no_place_total", cause="unauthenticated")
        assert refused >= 1_000 // 2
    assert 0 not in works.handled


async def test_tasks_for_verbs_that_are_awaited_leave_room_to_other_senders(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None comes again while others come first, however slow the machine is: while it is handled anew, it counts for nobody.
    monkeypatch.setattr(verb_room, "VERB_AWAITED", RetryPolicy(initial_interval=60.0, jitter=0.0))
    works, shop, market = Works(), await ground.client(), await ground.client("market")
    await asyncio.gather(*[market.submit("works.absent", Job(number=number)) for number in range(40)])
    async with ground.workers(works.agent, limits=PLACES) as [worker]:
        # A sender that has taken as much as it leaves to others has no room: what else it sent fails at once.
        await until(lambda: worker.node.counters.value("sealbus_no_place_total", cause="unknown_verb") >= 40 - 16)
        other = await shop.submit("works.absent", Job(number=41))
        async with aclosing(other.statuses()) as statuses:
            first = await anext(statuses)
        assert (first.state, first.code) == (State.WORKING, "unknown_verb")
        assert await (await shop.submit("works.soon", Job(number=1))).result(int) == 1


@pytest.mark.slow
async def test_tasks_that_keep_failing_hold_up_their_agent_until_there_is_room_and_no_call(ground: Ground) -> None:
    works, shop, market = Agent("works"), await ground.client(), await ground.client("market")
    down, done = [True], list[int]()

    @works.task("work", retry=100)
    async def work(job: Job, ctx: Context) -> int:
        if job.number == 0 and down:
            raise Retry(after=10.0, note="down")
        done.append(job.number)
        return job.number

    @works.call("price")
    async def price(job: Job, ctx: Context) -> int:
        return job.number

    async with ground.workers(works, limits=PLACES) as [worker]:
        for _ in range(40):
            await market.submit("works.work", Job())
        await until(lambda: "put_off" in worker.notes())
        handle = await shop.submit("works.work", Job(number=7))
        for number in range(20):
            assert await shop.call("works.price", Job(number=number), returns=int) == number
        # Nothing new is taken until those that failed come again.
        assert not done
        down.clear()
        assert await handle.result(int) == 7
        await until(lambda: len(done) == 41)
