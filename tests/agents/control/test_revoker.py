"""The revoker on a real server: what comes together is pushed together, by compare-and-set, and nothing live is ever lost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from support.lab import Lab, until
from support.policies import signing_key
from support.policy_bus import ANCHORS, ROOT, pushed
from support.teams import naming, revocations, signed_platform

from sealbus.agents.control.revoker import LIMITS, Revoker, RevokerLimits
from sealbus.agents.runtime.policy.push import push_signed, roll_back
from sealbus.agents.runtime.policy.revocation import KEPT, Revocation
from sealbus.agents.runtime.policy.store import PolicyStore
from sealbus.agents.runtime.policy.sync import PolicySync, policy_synced
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import stream_state
from sealbus.bus.nats.connection.connection import Connection
from sealbus.bus.streams.object_store import ONE_MESSAGE
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.errors import BusUnavailable
from sealbus.envelopes.trust.keys import SigningKey, key_id
from sealbus.policies.bundle.archive import unpack_archive
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations, revocations_of
from sealbus.policies.bundle.signing import BundleVerifier

pytestmark = pytest.mark.nats

IDP = "https://idp.example"
KEY = signing_key()
PUSHED = "sealbus_revocations_pushed_total"
FAILED = "sealbus_revocations_failed_total"


@pytest.fixture
async def store(connection: Connection) -> PolicyStore:
    """A store whose platform names KEY among its revokers."""
    found = PolicyStore(connection, "policies")
    await found.create()
    await push_signed(found, ANCHORS, "platform", naming(ROOT, {}, KEY, serial=1))
    return found


@asynccontextmanager
async def revoking(
    store: PolicyStore,
    key: SigningKey = KEY,
    *,
    counters: Counters | None = None,
    in_force: Callable[[], Revocations] = lambda: NONE_REVOKED,
    limits: RevokerLimits = LIMITS,
) -> AsyncIterator[Revoker]:
    revoker = Revoker(store, ANCHORS, key, in_force=in_force, counters=counters, limits=limits)
    task = asyncio.create_task(revoker.run())
    try:
        yield revoker
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


def session(name: str, at: int | None = None, *, issuer: str = IDP) -> Revocation:
    return Revocation(kind="session", issuer=issuer, id=name, at=wall_clock() if at is None else at)


async def listed(store: PolicyStore) -> Revocations:
    """Return what any consumer would put in force."""
    part = await store.read("revocations")
    if part is None:
        return NONE_REVOKED
    verifier = BundleVerifier(keys={key_id(KEY.public): KEY.public}, scope="revocations")
    return revocations_of(verifier.verify(part.raw).bundle)


async def test_it_is_published_before_its_caller_is_told(store: PolicyStore) -> None:
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        assert (await listed(store)).sessions == {(IDP, "s-1")}
        await revoker.revoke(Revocation(kind="user", issuer=IDP, id="alice", at=wall_clock()))
        found = await listed(store)
        assert (found.sessions, set(found.users), found.revision) == ({(IDP, "s-1")}, {(IDP, "alice")}, "revocations-2")


async def test_a_thousand_at_once_are_one_push_and_as_many_later_another(store: PolicyStore) -> None:
    counters, began = Counters(), asyncio.get_running_loop().time()
    async with revoking(store, counters=counters) as revoker:
        for turn in range(2):
            names = [f"s-{turn}-{number}" for number in range(1_000)]
            await asyncio.gather(*(revoker.revoke(session(name)) for name in names))
        seconds = asyncio.get_running_loop().time() - began
        found = await listed(store)
        assert len(found.sessions) == 2_000
        # One for each turn, whatever the machine's speed; and never more than one a second.
        assert counters.value(PUSHED) == 2 <= seconds + 1


async def test_what_comes_one_by_one_is_pushed_once_a_second(
    store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks: list[float] = []
    replace = store.objects.replace

    async def counted(name: str, content: bytes, *, last: int) -> object:
        ticks.append(asyncio.get_running_loop().time())
        return await replace(name, content, last=last)

    monkeypatch.setattr(store.objects, "replace", counted)
    async with revoking(store) as revoker, asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(revoker.revoke(session(f"s-{number}")))
            await asyncio.sleep(0.01)
    assert len((await listed(store)).sessions) == 300
    assert all(later - earlier >= LIMITS.every for earlier, later in pairwise(ticks))


async def test_what_is_said_again_is_no_push(store: PolicyStore) -> None:
    counters, one = Counters(), session("s-1")
    async with revoking(store, counters=counters) as revoker:
        for _ in range(3):
            await revoker.revoke(one)
        await revoker.revoke(session("s-2", at=wall_clock() - KEPT))
    assert counters.value(PUSHED) == 1
    assert (await listed(store)).sessions == {(IDP, "s-1")}


async def test_several_at_a_time_lose_nothing(store: PolicyStore, lab: Lab) -> None:

    async def one_of_several(number: int) -> None:
        async with (
            lab.connection("a") as connection,
            revoking(PolicyStore(connection, "policies"), limits=RevokerLimits(every=0.0)) as revoker,
        ):
            for turn in range(10):
                await revoker.revoke(session(f"s-{number}-{turn}"))

    await asyncio.gather(*(one_of_several(number) for number in range(3)))
    assert len((await listed(store)).sessions) == 30


async def test_an_operator_and_the_revoker_follow_each_other(store: PolicyStore, tmp_path: Path) -> None:
    sync = PolicySync(store, tmp_path / "cache", ANCHORS)
    async with policy_synced(sync), revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        await push_signed(store, ANCHORS, "revocations", revocations(KEY, 2, session="by-hand"))
        await until(lambda: sync.in_force.revocations.sessions == {(IDP, "by-hand")})
        # Its time is long ago: the next push lets it go.
        await revoker.revoke(session("s-2"))
        await until(lambda: sync.in_force.revocations.sessions == {(IDP, "s-2")})
        assert sync.in_force.revocations.revision == "revocations-3"
        await roll_back(store, ANCHORS, "revocations", 2, KEY)
        await revoker.revoke(session("s-3"))
        await until(lambda: sync.in_force.revocations.sessions == {(IDP, "s-3")})
        assert sync.in_force.revocations.revision == "revocations-5"
        assert not sync.problem


async def test_the_buckets_size_stays_what_it_is(store: PolicyStore, connection: Connection) -> None:
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        await revoker.revoke(session("s-2"))
        before = await stream_state(connection.jetstream, "OBJ_policies")
        await revoker.revoke(session("s-3"))
        after = await stream_state(connection.jetstream, "OBJ_policies")
    assert before is not None
    assert after is not None
    assert before.messages == after.messages


async def test_a_key_that_the_platform_does_not_name_publishes_nothing(
    store: PolicyStore, caplog: pytest.LogCaptureFixture
) -> None:
    async with revoking(store, signing_key()) as revoker:
        # It is known before anything is to be published.
        await until(lambda: "does not name the key" in revoker.problem)
        with caplog.at_level(logging.ERROR), pytest.raises(BusUnavailable):
            await revoker.revoke(session("s-1"))
        assert "1 revocations are not published" in caplog.text
        assert "s-1" not in caplog.text
    assert await store.read("revocations") is None


async def test_it_works_again_once_the_platform_names_it(store: PolicyStore) -> None:
    other = signing_key()
    async with revoking(store, other, limits=RevokerLimits(again=0.05, every=0.05)) as revoker:
        await until(lambda: bool(revoker.problem))
        await pushed(store, "platform", naming(ROOT, {}, KEY, other, serial=2), 2)
        await until(lambda: not revoker.problem)
        await revoker.revoke(session("s-1"))


async def test_without_a_platform_nothing_is_published(connection: Connection) -> None:
    store = PolicyStore(connection, "policies")
    await store.create()
    async with revoking(store) as revoker:
        await until(lambda: "no platform" in revoker.problem)
    await pushed(store, "platform", signed_platform(signing_key(), {}), 1)
    async with revoking(store) as revoker:
        await until(lambda: "signature" in revoker.problem)


@pytest.mark.parametrize("there", ["by another", "damaged", "older"])
async def test_a_list_that_nobody_believes_is_not_written_over(store: PolicyStore, there: str) -> None:
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        first = await store.read("revocations")
        assert first is not None
        await revoker.revoke(session("s-2"))
        raw = {
            "by another": revocations(signing_key(), 9),
            "damaged": first.raw[:-1],
            "older": first.raw,
        }[there]
        before = await store.read("revocations")
        assert before is not None
        assert await store.objects.replace("revocations", raw, last=before.last) is not None
        with pytest.raises(BusUnavailable):
            await revoker.revoke(session("s-3"))
        after = await store.read("revocations")
        assert after is not None
        assert after.raw == raw
        # An operator pushes the list anew, and it goes on.
        last = await store.read("revocations")
        assert last is not None
        await store.push("revocations", revocations(KEY, 10, session="by-hand"), 10, last=last.last)
        await revoker.revoke(session("s-4"))
        assert (IDP, "s-4") in (await listed(store)).sessions


async def test_a_store_that_was_emptied_ends_no_revocation(store: PolicyStore, tmp_path: Path) -> None:
    sync = PolicySync(store, tmp_path / "cache", ANCHORS)
    async with policy_synced(sync), revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        await until(lambda: bool(sync.in_force.revocations))
        info = await store.objects.info("revocations")
        assert info is not None
        await store.objects.remove(info)
        await revoker.revoke(session("s-2"))
        await until(lambda: (IDP, "s-2") in sync.in_force.revocations.sessions)
        assert sync.in_force.revocations.sessions == {(IDP, "s-1"), (IDP, "s-2")}


@pytest.mark.parametrize("there", ["older", "none"])
async def test_what_nobody_would_put_in_force_is_not_called_published(store: PolicyStore, there: str) -> None:
    """Whoever writes to the store puts it back while no revoker runs: the next one knows what is in force in its process."""
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        first = await store.read("revocations")
        await revoker.revoke(session("s-2"))
    in_force, last = await listed(store), await store.read("revocations")
    assert first is not None
    assert last is not None
    if there == "older":
        assert await store.objects.replace("revocations", first.raw, last=last.last) is not None
    else:
        info = await store.objects.info("revocations")
        assert info is not None
        await store.objects.remove(info)
    async with revoking(store, in_force=lambda: in_force) as revoker:
        with pytest.raises(BusUnavailable):
            await revoker.revoke(session("s-3"))
        assert "in force: push them again" in revoker.problem
        # As they are kept in each process's cache.
        found = await store.read("revocations")
        await store.push("revocations", last.raw, 2, last=found.last if found is not None else 0)
        await revoker.revoke(session("s-4"))
    assert (await listed(store)).sessions == {(IDP, "s-1"), (IDP, "s-2"), (IDP, "s-4")}


async def test_its_key_is_replaced_and_no_revocation_ends_by_that(store: PolicyStore, tmp_path: Path) -> None:
    """The steps of docs/runbooks.md."""
    new, counters = signing_key(), Counters()
    sync = PolicySync(store, tmp_path / "cache", ANCHORS)
    async with policy_synced(sync):
        async with revoking(store) as revoker:
            await revoker.revoke(session("s-1"))
        await push_signed(store, ANCHORS, "platform", naming(ROOT, {}, KEY, new, serial=2))
        async with revoking(store, new, counters=counters) as revoker:
            await until(
                lambda: [one.signer for one in sync.parts.parts if one.name == "revocations"] == [key_id(new.public)]
            )
            await push_signed(store, ANCHORS, "platform", naming(ROOT, {}, new, serial=3))
            await until(lambda: [one.serial for one in sync.parts.parts if one.name == "platform"] == [3])
            assert sync.in_force.revocations.sessions == {(IDP, "s-1")}
            assert counters.value(PUSHED) == 1
            await revoker.revoke(session("s-2"))
            await until(lambda: sync.in_force.revocations.sessions == {(IDP, "s-1"), (IDP, "s-2")})
        # Who starts again with the same key signs nothing anew.
        async with revoking(store, new, counters=counters) as revoker:
            await asyncio.sleep(0)  # It begins to look, before there is anything to publish.
            await revoker.revoke(session("s-2", 1))
        assert counters.value(PUSHED) == 2


async def test_what_comes_before_the_first_look_is_in_what_a_new_key_signs(store: PolicyStore) -> None:
    new = signing_key()
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
    await push_signed(store, ANCHORS, "platform", naming(ROOT, {}, KEY, new, serial=2))
    async with revoking(store, new) as revoker:
        await revoker.revoke(session("s-2"))
    part = await store.read("revocations")
    assert part is not None
    verifier = BundleVerifier(keys={key_id(new.public): new.public}, scope="revocations")
    assert revocations_of(verifier.verify(part.raw).bundle).sessions == {(IDP, "s-1"), (IDP, "s-2")}


async def test_a_serial_by_a_key_that_was_taken_away_holds_up_nobody(store: PolicyStore) -> None:
    stolen = signing_key()
    await pushed(store, "platform", naming(ROOT, {}, KEY, stolen, serial=2), 2)
    await pushed(store, "revocations", revocations(stolen, 9), 9)
    async with revoking(store) as revoker:
        await revoker.revoke(session("s-1"))
        last = await store.read("revocations")
        assert last is not None
        assert await store.objects.replace("revocations", revocations(stolen, 1 << 52), last=last.last) is not None
        await revoker.revoke(session("s-2"))
        await pushed(store, "revocations", revocations(stolen, (1 << 53) - 1), 11)
        with pytest.raises(BusUnavailable):
            await revoker.revoke(session("s-3"))
        await pushed(store, "platform", naming(ROOT, {}, KEY, serial=3), 3)
        await pushed(store, "revocations", revocations(KEY, 12, session="by-hand"), 12)
        await revoker.revoke(session("s-4"))
    assert (await listed(store)).revision == "revocations-13"


async def test_a_list_that_is_full_takes_nothing_and_drops_nothing(store: PolicyStore) -> None:
    # Random ids do not compress: some twelve thousand of these fill one message.
    async with revoking(store, limits=RevokerLimits(within=60.0)) as revoker:
        many = [session(os.urandom(64).hex()) for _ in range(3_500)]
        await asyncio.gather(*(revoker.revoke(one) for one in many))
        fitting, problem = len(many), ""
        while not problem:
            more = [session(os.urandom(64).hex()) for _ in range(3_500)]
            results = await asyncio.gather(*(revoker.revoke(one) for one in more), return_exceptions=True)
            if any(isinstance(one, BusUnavailable) for one in results):
                problem = revoker.problem
            else:
                fitting += len(more)
            assert fitting < 100_000
        assert "one message" in problem
        found = await listed(store)
        assert len(found.sessions) == fitting
        assert (IDP, many[0].id) in found.sessions


async def test_an_issuer_that_fills_the_list_leaves_room_for_every_other(store: PolicyStore) -> None:
    counters, near = Counters(), ("https://loud.example/team", "https://loud.exampl", "https://Loud.example")
    async with revoking(store, counters=counters, limits=RevokerLimits(every=0.0, within=60.0)) as revoker:
        for issuer in ("https://loud.example", "https://louder.example"):
            for turn in range(20):
                more = [session(os.urandom(128).hex(), issuer=issuer) for _ in range(3_000)]
                # In the same push as the others, which are not refused with it.
                others = [
                    asyncio.create_task(revoker.revoke(session(f"{issuer} {turn}", issuer=one))) for one in (IDP, *near)
                ]
                failed = counters.value(FAILED)
                results = await asyncio.gather(*(revoker.revoke(one) for one in more), return_exceptions=True)
                await asyncio.gather(*others)
                assert (await listed(store)).sessions >= {(one, f"{issuer} {turn}") for one in (IDP, *near)}
                refused = sum(isinstance(one, BusUnavailable) for one in results)
                assert counters.value(FAILED) - failed == refused
                if refused:
                    break
            else:
                pytest.fail("it is never too much")
            assert issuer in revoker.problem
        await revoker.revoke(session("s-2"))
        await revoker.revoke(session("s-3", issuer="https://new.example"))
    found = (await listed(store)).sessions
    assert found > {(IDP, "s-2"), ("https://new.example", "s-3")}
    # The first had most of the list, and has it still.
    assert sum(issuer == "https://loud.example" for issuer, _ in found) >= 3_000


async def test_ids_that_pack_well_are_counted_as_what_each_process_unpacks(store: PolicyStore) -> None:
    async with revoking(store, limits=RevokerLimits(every=0.0)) as revoker:
        for turn in range(20):
            more = [session(f"{'a' * 250}{turn:02}{number:04}") for number in range(3_000)]
            results = await asyncio.gather(*(revoker.revoke(one) for one in more), return_exceptions=True)
            if any(isinstance(one, BusUnavailable) for one in results):
                break
        part = await store.read("revocations")
        assert part is not None
        assert sum(len(data) for data in unpack_archive(part.raw).values()) < 4 * ONE_MESSAGE


async def test_an_issuer_whose_revocations_wait_leaves_room_for_every_other(store: PolicyStore) -> None:
    revoker = Revoker(store, ANCHORS, KEY, in_force=lambda: NONE_REVOKED, limits=RevokerLimits(waiting=20))
    waiting: list[asyncio.Task[None]] = []
    for issuer, most in (("https://loud.example", 18), ("https://louder.example", 2)):
        for number in range(most):
            waiting.append(asyncio.create_task(revoker.revoke(session(f"s-{number}", issuer=issuer))))
            await asyncio.sleep(0)
        if issuer == "https://loud.example":
            with pytest.raises(BusUnavailable, match="too many"):
                await asyncio.wait_for(revoker.revoke(session("s-x", issuer=issuer)), 5)
    task = asyncio.create_task(revoker.run())
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    task.cancel()
    await asyncio.wait({task})
    # Nothing of theirs waits any more: the first may fill its share again.
    again = [asyncio.create_task(revoker.revoke(session(f"t-{n}", issuer="https://loud.example"))) for n in range(18)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in again)
    for one in again:
        one.cancel()
    await asyncio.wait(again)


async def test_too_many_that_wait_are_told(store: PolicyStore) -> None:
    revoker = Revoker(store, ANCHORS, KEY, in_force=lambda: NONE_REVOKED, limits=RevokerLimits(waiting=2))
    waiting = [asyncio.create_task(revoker.revoke(session(name))) for name in ("s-1", "s-2")]
    await asyncio.sleep(0)
    with pytest.raises(BusUnavailable, match="too many"):
        await revoker.revoke(session("s-3"))
    for one in waiting:
        one.cancel()
    await asyncio.wait(waiting)
    # What callers have left is still to be published, and takes its place until then.
    with pytest.raises(BusUnavailable, match="too many"):
        await asyncio.wait_for(revoker.revoke(session("s-3", issuer="https://other.example")), 5)
    # Who has left is no reason to fail for those who have not.
    task = asyncio.create_task(revoker.run())
    async with asyncio.timeout(60):
        while not (await listed(store)).sessions >= {(IDP, "s-1"), (IDP, "s-2")}:  # noqa: ASYNC110  a store has no event
            await asyncio.sleep(0.01)
    await revoker.revoke(session("s-4"))
    task.cancel()
    await asyncio.wait({task})
    assert (await listed(store)).sessions >= {(IDP, "s-4")}


async def test_a_store_that_does_not_answer_is_waited_for_no_longer_than_callers_wait(
    store: PolicyStore, lab: Lab
) -> None:
    async with revoking(store, limits=RevokerLimits(within=0.2)) as revoker:
        await revoker.revoke(session("s-1"))
        lab.server.pause()
        try:
            with pytest.raises(BusUnavailable):
                await revoker.revoke(session("s-2"))
        finally:
            lab.server.resume()
        await until(lambda: not revoker.problem or "0.2 s" in revoker.problem)
