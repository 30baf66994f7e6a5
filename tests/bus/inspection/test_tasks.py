"""Tasks as an operator sees them: what their senders sealed, what their agents told, and what is neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from support.engines import ScriptedEngine, allow, deny
from support.shop import Shop, Update

from sealbus import Agent, Context
from sealbus.bus.clocks import HostClock, wall_clock
from sealbus.bus.inspection.tasks import SUBMITTED, ListedTask, TaskFilter, TaskList, task_subjects
from sealbus.envelopes.accept.live import LiveProfile
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubject
from sealbus.envelopes.trust.bundles import Trust, TrustBundles
from sealbus.testing import TestBus


def profile_of(bus: TestBus) -> LiveProfile:
    return LiveProfile(
        own=bus.names.id_of("operator"),
        names=bus.names,
        kinds=frozenset({Kind.TASK}),
        own_subjects=bus.deployment.own_subjects,
        minters=bus.deployment.minters,
    )


async def listed(
    bus: TestBus,
    wanted: TaskFilter | None = None,
    *,
    agent: str | None = None,
    most: int = 100,
    window: int = 100,
    ahead: int = 0,
    bundles: TrustBundles | None = None,
) -> list[ListedTask]:
    profile = profile_of(bus)
    tasks = TaskList(
        transport=bus.broker.connect(),
        profile=profile,
        trust=lambda: Trust(bundles=bus.edge.bundles() if bundles is None else bundles),
        clock=HostClock(lambda: wall_clock() + ahead),
        window=window,
    )
    subjects = task_subjects(profile, bus.names.id_of(agent) if agent is not None else None)
    last = len(bus.stored("TASKS"))
    return [one async for one in tasks.newest(subjects, wanted or TaskFilter(), first=1, last=last, most=most)]


@pytest.fixture
async def bus() -> AsyncIterator[TestBus]:
    """A bus with an agent at work, which denies bob; its sub-task goes to an agent that does not run."""
    engine = ScriptedEngine(lambda one: deny("not_owner") if one["context"]["user"]["id"] == "bob" else allow())
    async with TestBus(Shop().inventory, engine=engine) as running:
        client = await running.client("shop-web")
        for user in ("alice", "bob"):
            await client.submit("inventory.update", Update(item_id="42"), user=running.user(user, "shop-web"))
        await client.submit("pricing.count", Update(item_id="7"))
        await running.idle()
        yield running


async def test_each_task_is_there_with_its_state_the_newest_first(bus: TestBus) -> None:
    waiting, denied, done = await listed(bus)
    assert [one.action for one in (waiting, denied, done)] == ["pricing.count", "inventory.update", "inventory.update"]
    assert [one.status.state for one in (waiting, denied, done)] == [SUBMITTED, "rejected", "completed"]
    assert [one.user for one in (waiting, denied, done)] == ["", "bob", "alice"]
    assert denied.status.code == "denied"
    assert done.header.iss == bus.names.id_of("shop-web")
    assert [one.refused for one in (waiting, denied, done)] == ["", "", ""]
    assert [one.status.unverified for one in (waiting, denied, done)] == [(), (), ()]


@pytest.mark.parametrize("window", [1, 2, 100])
async def test_filters_show_what_they_say_whatever_the_window(bus: TestBus, window: int) -> None:
    async def actions(wanted: TaskFilter, **options: str) -> list[tuple[str, str]]:
        found = await listed(bus, wanted, window=window, agent=options.get("agent"))
        return [(one.action, one.user) for one in found]

    assert await actions(TaskFilter(), agent="pricing") == [("pricing.count", "")]
    assert await actions(TaskFilter(user="bob")) == [("inventory.update", "bob")]
    assert await actions(TaskFilter(states=frozenset({SUBMITTED}))) == [("pricing.count", "")]
    assert await actions(TaskFilter(states=frozenset({SUBMITTED, "completed"}))) == [
        ("pricing.count", ""),
        ("inventory.update", "alice"),
    ]
    assert await actions(TaskFilter(states=frozenset({"working"}))) == []
    assert await actions(TaskFilter(before=0)) == []
    assert await actions(TaskFilter(since=2**62)) == []
    newest, middle, _ = await listed(bus)
    assert len(await actions(TaskFilter(since=newest.stored))) == 1 + (middle.stored == newest.stored)


@pytest.mark.parametrize("window", [1, 100])
async def test_no_more_are_shown_than_asked_for_and_these_are_the_newest(bus: TestBus, window: int) -> None:
    assert [one.action for one in await listed(bus, most=1, window=window)] == ["pricing.count"]
    done_or_denied = TaskFilter(states=frozenset({"completed", "rejected"}))
    assert [one.user for one in await listed(bus, done_or_denied, most=1, window=window)] == ["bob"]


async def test_what_nobody_told_of_has_expired_once_its_requester_says_so(bus: TestBus) -> None:
    waiting, denied, done = await listed(bus, ahead=25 * 3_600 * SECOND)
    assert (waiting.status.state, waiting.status.code) == ("expired", "expired")
    assert [denied.status.state, done.status.state] == ["rejected", "completed"]


async def test_what_a_stranger_tells_changes_no_state_and_is_named(bus: TestBus) -> None:
    """Whoever may publish statuses can store one for any task whose id it knows: a copy of another's, or garbage."""
    waiting, denied, done = await listed(bus)
    genuine = next(one for one in bus.stored("RESULTS") if one.subject.endswith(done.header.id.hex()))
    for task in (waiting, denied):
        bus.broker.inject(f"status.shop-web.{task.header.id.hex()}", genuine.payload)
    bus.broker.inject(f"status.shop-web.{waiting.header.id.hex()}", b"\x00")
    after, denied_after, _ = await listed(bus)
    assert (after.status.state, after.status.unverified) == (SUBMITTED, ("malformed", "wrong_subject"))
    # After the final one nothing counts, whatever it is.
    assert denied_after.status == denied.status
    submitted = await listed(bus, TaskFilter(states=frozenset({SUBMITTED})))
    assert [one.header.id for one in submitted] == [waiting.header.id]


async def test_a_forged_task_is_shown_as_one_and_what_is_no_task_is_counted(bus: TestBus) -> None:
    *_, done = await listed(bus)
    stored = bus.stored("TASKS")[done.sequence - 1]
    bus.broker.inject(stored.subject, stored.payload[:-1] + b"\x00", stored.header_block)
    bus.broker.inject("task.pricing.count", stored.payload, stored.header_block)
    bus.broker.inject("task.pricing.count", b"junk")
    moved, *_ = found = await listed(bus)
    assert moved.refused == "wrong_subject"
    assert [one.refused for one in found[-3:]] == ["", "", ""]
    tasks = TaskList(
        transport=bus.broker.connect(), profile=profile_of(bus), trust=lambda: Trust(bundles=bus.edge.bundles())
    )
    assert [one async for one in tasks.newest(["task.>"], TaskFilter(), first=1, last=6, most=9)]
    assert tasks.unreadable == 2


async def test_under_a_key_that_is_gone_nothing_verifies_and_all_is_shown(bus: TestBus) -> None:
    found = await listed(bus, bundles=TrustBundles({}))
    assert {one.refused for one in found} == {"unknown_trust_domain"}
    assert [(one.status.state, one.status.unverified) for one in found] == [
        (SUBMITTED, ()),
        (SUBMITTED, ("unknown_trust_domain",)),
        (SUBMITTED, ("unknown_trust_domain",)),
    ]


async def test_who_canceled_a_task_is_told() -> None:
    agent, begun = Agent("slow"), asyncio.Event()

    @agent.task("work", retry=0)
    async def work(body: Update, ctx: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with TestBus(agent, engine=ScriptedEngine()) as bus:
        handle = await (await bus.client("shop-web")).submit(work, Update(item_id="1"))
        await begun.wait()
        await handle.cancel("no need")
        await bus.idle()
        (one,) = await listed(bus)
    assert (one.status.state, one.status.note, one.status.by) == ("canceled", "no need", one.header.iss.value)


async def test_an_own_subject_belongs_to_its_owner() -> None:
    async with TestBus(own=[]) as bus:
        owner, other = bus.names.id_of("stock"), bus.names.id_of("pricing")
        own = {
            "legacy.stock.update": OwnSubject(
                subject="legacy.stock.update", kind=Kind.TASK, owner=owner, action="stock.update"
            ),
            "legacy.sold": OwnSubject(subject="legacy.sold", kind=Kind.EVENT, owner=owner, action="stock.sold"),
        }
        profile = replace(profile_of(bus), own_subjects=own)
        assert task_subjects(profile) == ("task.>", "legacy.stock.update")
        assert task_subjects(profile, owner) == ("task.stock.>", "legacy.stock.update")
        assert task_subjects(profile, other) == ("task.pricing.>",)
