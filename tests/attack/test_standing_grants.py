"""Standing grants under attack: nothing is done in a user's name that they have not granted to this edge, there and then."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from independent import verify_export as independent
from pydantic import BaseModel
from support.bus_export import exported
from support.edge import Door, door
from support.memory_files import MemoryFiles

from sealbus import Agent, Context, RemoteError
from sealbus.agents.dev.memory.identity import MemoryIdentity
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.evidence.verify import verify_export
from sealbus.bus.sending.message import Content
from sealbus.bus.streams.signed_value import signed
from sealbus.bus.work.schedules.request import (
    Planned,
    ScheduleRequest,
    ScheduleState,
    encode_schedule,
    schedule_message,
)
from sealbus.bus.work.schedules.rule import Every
from sealbus.bus.work.schedules.standing import standing_draft, standing_name
from sealbus.envelopes.encoding.codec import decode, encode
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import SubjectType, mint_context, parse_payload
from sealbus.envelopes.message.wire import Statement

DAY = 86_400 * SECOND
HELD = "application/vnd.sealbus.held-schedule.v1"


class Item(BaseModel):
    item_id: str = "1"


DONE: list[tuple[str, str]] = []
agent = Agent("inventory")


@agent.task("count")
async def count(body: Item, ctx: Context) -> None:
    assert ctx.user is not None
    DONE.append((ctx.user.sub, body.item_id))


@pytest.fixture
async def edge() -> AsyncIterator[Door]:
    DONE.clear()
    async with door(agent, schedules=True) as running:
        assert running.edge.scheduling is not None
        running.bus.workers["edge"] = running.edge.scheduling
        yield running


async def grant(edge: Door, **claims: Any) -> Any:
    now = edge.edge.node.clock() // SECOND
    said = {"name": "often", "action": "inventory.count", "body": {}, "when": {"every": 60}, "grants": []}
    fresh = {"iat": now, "exp": now + 600, "auth_time": now, "scope": "sealbus:schedule"}
    return await edge.post("/v1/schedules", said, **{**fresh, **claims})


def context(edge: Door, **changes: Any) -> Statement:
    """Return a context as this edge mints it for somebody who may grant."""
    said: dict[str, Any] = {"scope": ("sealbus:schedule",), "login_age": 1.0, **changes}
    now = edge.edge.node.clock()
    return mint_user(edge.bus.edge.sealer(), DevUser("alice", **said), trust_domain=edge.bus.trust_domain, now=now)


def wanted(edge: Door, user: Statement | None, **changes: Any) -> ScheduleRequest:
    now = edge.edge.node.clock()
    planned = {
        "action": "inventory.count",
        "body": Content(b"{}", "application/json"),
        "when": Every(seconds=60, start=now),
        "until": now + DAY,
        "grants": (),
    }
    name = standing_name(parse_payload((user or context(edge)).payload), "often")
    return ScheduleRequest(name=name, planned=Planned(**{**planned, **changes}))


async def told(edge: Door, request: ScheduleRequest, user: Statement | None, by: str = "edge") -> None:
    """Have `by` ask the edge for a schedule, past its routes; raises what it answers."""
    node = (await edge.bus.client(by)).node
    message = schedule_message(request, owner=edge.edge.node.own, names=edge.bus.names, statement=user)
    await node.sending.tell(message, timeout=60)


async def refused(edge: Door, request: ScheduleRequest, user: Statement | None, by: str = "edge") -> None:
    with pytest.raises(RemoteError) as caught:
        await told(edge, request, user, by)
    assert caught.value.code == "bad_body"
    assert edge.bus.stored("HELD") == []


async def test_what_meets_the_floors_is_kept(edge: Door) -> None:
    user = context(edge)
    await told(edge, wanted(edge, user), user)
    assert len(edge.bus.stored("HELD")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"when": Every(seconds=59, start=0)},
        {"grants": None},
        {"partition": "p"},
        {"action": "hidden.work"},
    ],
)
async def test_what_a_user_may_not_grant_is_not_kept(edge: Door, changes: Mapping[str, Any]) -> None:
    user = context(edge)
    await refused(edge, wanted(edge, user, **changes), user)


async def test_a_grant_of_91_days_is_not_kept(edge: Door) -> None:
    user = context(edge)
    await refused(edge, wanted(edge, user, until=edge.edge.node.clock() + 91 * DAY), user)


@pytest.mark.parametrize(
    "changes",
    [{"scope": ()}, {"login_age": 361.0}, {"login_age": None}, {"session": "standing-00"}, {"typ": SubjectType.CLIENT}],
)
async def test_a_context_that_may_not_grant_grants_nothing(edge: Door, changes: dict[str, Any]) -> None:
    user = context(edge, **changes)
    await refused(edge, wanted(edge, user), user)


async def test_no_schedule_acts_for_nobody_or_for_whom_another_brings(edge: Door) -> None:
    await refused(edge, wanted(edge, None), None)
    await refused(edge, wanted(edge, None), None, by="boss")
    theirs = edge.bus.user("alice", "boss", scope=["sealbus:schedule"], login_age=1.0)
    await refused(edge, wanted(edge, theirs), theirs, by="boss")


async def test_nobody_replaces_or_removes_what_is_anothers(edge: Door) -> None:
    await grant(edge, sub="alice")
    [kept] = edge.bus.stored("HELD")
    name = kept.subject.rpartition(".")[2]
    mallory = mint_user(
        edge.bus.edge.sealer(),
        DevUser("mallory", scope=("sealbus:schedule",), login_age=1.0),
        trust_domain=edge.bus.trust_domain,
        now=edge.edge.node.clock(),
    )
    planned = wanted(edge, None).planned
    for request in (
        ScheduleRequest(name=name, planned=planned),
        ScheduleRequest(name=name, state=ScheduleState.REMOVED),
    ):
        with pytest.raises(RemoteError, match="bad_body"):
            await told(edge, request, mallory)
    assert len(edge.bus.stored("HELD")) == 1


async def test_what_is_planted_or_swapped_does_nothing(edge: Door) -> None:
    await grant(edge, sub="alice")
    [genuine] = edge.bus.stored("HELD")
    parts = decode(genuine.payload, items=5, step=0)
    assert isinstance(parts, list)
    payload, extra = parts[0], parts[-1]
    assert isinstance(payload, bytes)
    assert isinstance(extra, bytes)
    keys = decode(payload, step=0, text_bytes=2_048)
    assert isinstance(keys, dict)
    bob = genuine.subject.replace(genuine.subject.rpartition(".")[2], "0" * 24 + "-often")
    boss = MemoryIdentity(edge.bus.authority, edge.bus.names.id_of("boss")).sealer()
    other = encode_schedule(wanted(edge, None, body=Content(b'{"item_id":"evil"}', "application/json"))).body
    for subject in (bob, genuine.subject):
        # Alice's in another's place; hers with another body; all of it signed by somebody else.
        edge.bus.broker.inject(subject, genuine.payload)
        edge.bus.broker.inject(subject, encode([*parts[:-1], other]))
        planted = encode({**keys, "sub": subject, "n": 9}, text_bytes=2_048)
        edge.bus.broker.inject(subject, encode([*signed(planted, HELD, boss), extra]))
    assert await edge.bus.advance(65) == 1
    assert DONE == [("alice", "1")]


async def test_a_removed_grant_that_is_stored_again_stays_removed(edge: Door) -> None:
    await grant(edge, sub="alice")
    [genuine] = edge.bus.stored("HELD")
    fields = edge.authorized(sub="alice")
    assert (await edge.http.delete("/v1/schedules/often", headers=fields)).status_code == 204
    edge.bus.broker.inject(genuine.subject, genuine.payload)
    assert (await edge.bus.advance(180), DONE) == (0, [])


async def test_what_the_edge_holds_without_a_user_is_not_sent(edge: Door) -> None:
    """Nor does another owner send what says that it is for a user: it has nobody who could be asked."""
    await grant(edge, sub="alice")
    grants = edge.edge.scheduling
    assert grants is not None
    [schedule] = (await grants.schedules.book.all()).values()
    assert schedule.user
    grants.schedules._standing = None
    assert (await edge.bus.advance(65), DONE) == (0, [])


async def test_no_token_has_a_session_of_a_standing_grant() -> None:
    async with door(agent, row={"session_claim": "sid"}) as edge:
        answer = await edge.post("/v1/tasks/inventory/count", {}, sid="standing-" + "0" * 32)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_token")


def judged(edge: Door) -> list[str]:
    """Return what both verifiers find in an export of what was recorded."""
    files, root, text = exported(edge.bus)
    ours = {(one.place, str(one.code)) for one in verify_export(MemoryFiles(files), root, processes=1).findings}
    theirs = {(place, code) for place, code, _ in independent.verify(files, independent.read_root(text)).findings}
    assert ours == theirs
    return sorted(code for _, code in ours)


async def test_an_export_shows_what_each_tick_rests_on_and_what_rests_on_nothing(edge: Door) -> None:
    await grant(edge, sub="alice", region="north", amr=["pwd"], acr="gold")
    await grant(edge, sub="bob")
    assert await edge.bus.advance(65) == 2
    await grant(edge, sub="alice")
    assert (await edge.http.delete("/v1/schedules/often", headers=edge.authorized(sub="bob"))).status_code == 204
    assert await edge.bus.advance(125) == 2
    assert judged(edge) == []
    # An edge that lies: the context of a grant that stands, for something else, and one for a grant that nobody gave.
    scheduling = edge.edge.scheduling
    assert scheduling is not None
    [alice] = [one for one in scheduling.schedules.known.values() if one.state is ScheduleState.ON]
    node = edge.edge.node
    for digest, body in ((alice.grant.digest, b'{"item_id":"evil"}'), (bytes(32), b"{}")):
        now = node.clock()
        draft = standing_draft(
            parse_payload(alice.user), digest, transaction=bytes(16), now=now, start=60 * SECOND, life=60 * SECOND
        )
        message = scheduling.schedules.tasks.compose(
            replace(alice.planned, body=Content(body, "application/json")), mint_context(draft, node.identity.sealer())
        )
        await node.outbox.publish(message.with_entries(re=digest, ext={"_tick": now}), within=60.0)
    await edge.bus.idle()
    assert DONE[-2:] == [("alice", "evil"), ("alice", "1")]
    assert judged(edge) == ["bad_grant"] * 2
