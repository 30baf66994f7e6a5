"""One reading of a task's statuses: what counts, what a result is decided by, and when the task has expired."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from support.acceptance import ISSUER, TRUST, Message, statement
from support.engines import ScriptedEngine, deny
from support.envelopes import HOUR, MINUTE, NOW, TRUST_DOMAIN, Issuer, agent, private_key
from support.lab import until
from support.results import TASK
from support.status_desk import RESULT, SUBJECT, Desk, result, status, written

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.gate.status_reader import AskedTask, StatusLimits
from sealbus.bus.ports import Delivery
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import STATUS_TYPE, State
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.errors import BusUnavailable, Code, Denied, PolicyUnavailable, SealbusError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.records.decision import StreamPlace
from sealbus.envelopes.trust.bundles import JwtBundle, Trust, TrustBundles
from sealbus.policies.decision.decision import Decision


@pytest.fixture(autouse=True, params=[False, True], ids=["alone", "together"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each way: by a consumer of its own, and as an edge does, which waits for the news of all its tasks."""
    monkeypatch.setattr(Desk, "together", request.param)


async def test_statuses_come_in_order_up_to_the_final_one() -> None:
    desk = Desk()
    desk.say("working", 1024)
    reading = asyncio.ensure_future(desk.read())
    await asyncio.sleep(0)
    desk.say("working", 2048, code="handler_failed")
    desk.done(2049)
    desk.say("working", 3072)
    found = await reading
    assert [(one.state, one.code, one.sequence) for one in found] == [
        (State.WORKING, "", 1024),
        (State.WORKING, "handler_failed", 2048),
        (State.COMPLETED, "", 2049),
    ]
    assert found[-1].result == Content(body=RESULT, typ="application/json")
    assert await desk.refused() == []


async def test_a_number_counts_once() -> None:
    desk = Desk()
    desk.say("working", 1024)
    desk.say("working", 1024, note="again, under another header")
    desk.put(status("working", 1024))
    desk.done()
    found = await desk.read()
    assert [(one.sequence, one.note) for one in found] == [(1024, ""), (1025, "")]
    assert await desk.refused() == []


STRANGER = agent("shop-web").value


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"garbage", "malformed"),
        (result(1025, aud=STRANGER), "wrong_subject"),
        (result(1025, to=f"status.planner.{'0' * 32}"), "wrong_subject"),
        (result(1025, re=bytes(32)), "unexpected_reply"),
        (result(1025, exp=NOW + MINUTE), "expired"),
        (result(1025, dig=bytes(32)), "bad_digest"),
        (result(1025, crd=bytes(32)), "bad_credential"),
        (result(1025, fin=False), "bad_body"),
        (status("working", 1025, fin=True), "bad_body"),
        (status("rejected", 1025, fin=False), "bad_body"),
        (status("done", 1025, fin=True), "bad_body"),
        (written(b"[]", STATUS_TYPE, 1025, fin=True), "bad_body"),
    ],
)
async def test_what_fails_is_refused_and_changes_nothing(bad: Message | bytes, code: str) -> None:
    desk = Desk()
    desk.put(bad)
    desk.done()
    assert [one.state for one in await desk.read()] == [State.COMPLETED]
    assert await desk.refused() == [code]


async def test_a_status_by_another_than_was_asked_is_refused() -> None:
    desk = Desk()
    desk.put(replace(result(1025), sealer=ISSUER.sealer(agent("inventory"))))
    desk.done()
    assert len(await desk.read()) == 1
    assert await desk.refused() == ["unexpected_reply"]


async def test_the_result_is_decided_for_the_user_whom_we_asked_for() -> None:
    desk = Desk()
    context = parse_payload(statement().payload)
    desk.task = AskedTask(pending=desk.task.pending, action="pricing.update", context=context)
    desk.say("working", 1024)
    desk.done()
    await desk.read()
    [asked] = desk.engine.asked
    assert (asked["action"]["name"], asked["context"]["kind"]) == ("pricing.update.reply", "status")
    assert (asked["subject"]["id"], asked["context"]["user"]["id"]) == (agent("pricing").value, context.sub)
    [record] = desk.notes.records
    assert (record.action, record.allow, record.code) == ("pricing.update.reply", True, None)
    assert record.place == StreamPlace(stream="RESULTS", sequence=2, stored=desk.now)


@pytest.mark.parametrize(
    ("verdict", "error", "code"),
    [
        (deny("no_answers"), Denied, Code.DENIED),
        (PolicyUnavailable("away"), PolicyUnavailable, Code.POLICY_UNAVAILABLE),
    ],
)
async def test_a_result_that_our_own_policy_does_not_allow_is_not_given(
    verdict: Decision | PolicyUnavailable, error: type[SealbusError], code: Code
) -> None:
    desk = Desk(engine=ScriptedEngine(lambda _: verdict))
    desk.done()
    with pytest.raises(error):
        await desk.read()
    assert [(one.allow, one.code) for one in desk.notes.records] == [(False, code)]
    assert desk.reader.reading == 0
    desk.engine.verdict = ScriptedEngine().verdict
    assert len(await desk.read()) == 1


async def test_at_end_the_requester_concludes_expired() -> None:
    desk = Desk()
    desk.say("working", 1024)
    desk.now = TASK.end + 5 * SECOND if TASK.end is not None else 0
    found = await desk.read()
    assert [(one.state, one.code, one.final) for one in found] == [
        (State.WORKING, "", False),
        (State.EXPIRED, "expired", True),
    ]
    assert [one.state for one in await desk.read(follow=False)] == [State.WORKING, State.EXPIRED]


async def test_what_was_stored_before_end_counts_after_it_and_nothing_later() -> None:
    assert TASK.end is not None
    desk = Desk(now=TASK.end)
    desk.done(1025, iat=TASK.end - MINUTE, exp=TASK.end + HOUR)
    desk.now = TASK.end + 5 * SECOND
    assert [one.state for one in await desk.read()] == [State.EXPIRED]
    assert await desk.refused() == ["unexpected_reply"]
    desk = Desk(now=TASK.end - 1)
    desk.done(1025, iat=TASK.end - MINUTE, exp=TASK.end + HOUR)
    desk.now = TASK.end + HOUR
    assert [one.state for one in await desk.read()] == [State.COMPLETED]


async def test_expired_is_concluded_while_waiting() -> None:
    """Not before the clocks of two hosts can no longer disagree about it."""
    assert TASK.end is not None
    desk = Desk(limits=StatusLimits(settle=0.05))
    desk.now = TASK.end
    reading = asyncio.ensure_future(desk.read())
    await desk.read_from()
    assert not reading.done()
    desk.now += SECOND
    assert [one.state for one in await reading] == [State.EXPIRED]


async def test_a_status_of_a_key_that_the_bundle_gets_later_counts() -> None:
    desk = Desk(trust=Trust(bundles=TrustBundles([])))
    desk.done()
    reading = asyncio.ensure_future(desk.read())
    await desk.read_from()
    desk.trust = TRUST
    assert [one.state for one in await reading] == [State.COMPLETED]
    assert await desk.refused() == []


async def test_expired_is_not_concluded_over_a_status_whose_key_may_still_come() -> None:
    assert TASK.end is not None

    class Lagging(Desk):
        looks = 0

        def current_trust(self) -> Trust:
            self.looks += 1
            return TRUST if self.looks > 2 else self.trust

    desk = Lagging(trust=Trust(bundles=TrustBundles([])), now=TASK.end - SECOND)
    desk.done(1025, iat=TASK.end - MINUTE, exp=TASK.end + HOUR)
    desk.now = TASK.end + 6 * SECOND
    assert [one.state for one in await desk.read()] == [State.COMPLETED]
    assert desk.looks == 3


async def test_a_key_that_stays_unknown_is_refused_in_the_end() -> None:
    desk = Desk()
    desk.put(replace(result(1025), sealer=Issuer(kid="other", key=private_key("other")).sealer(agent("pricing"))))
    reading = asyncio.ensure_future(desk.read())
    await desk.read_from()
    assert await desk.refused() == []
    desk.now += MINUTE
    await until(lambda: desk.counted("unknown_key") == 1)
    desk.done(1026)
    assert [one.sequence for one in await reading] == [1026]
    assert await desk.refused() == ["unknown_key"]


async def test_what_is_tried_again_is_bounded() -> None:
    desk = Desk(limits=StatusLimits(backoff=Backoff(initial_interval=0.001, maximum_interval=0.01), postponed=3))
    for seq in range(1025, 1035):
        desk.put(replace(result(seq), sealer=Issuer(kid="other", key=private_key("other")).sealer(agent("pricing"))))
    reading = asyncio.ensure_future(desk.read())
    await until(lambda: desk.counted("unknown_key") == 7)
    desk.done(2048)
    # It may be the second final status of the task, for as long as a bundle may lag.
    await until(lambda: desk.broker.streams["RESULTS"].last_of(SUBJECT) == 11)
    desk.now += 11 * SECOND
    assert [one.sequence for one in await reading] == [2048]
    assert await desk.refused() == ["unknown_key"] * 7


async def test_a_final_status_waits_for_one_before_it_whose_key_is_not_known_yet() -> None:
    """Two readers with different bundles must not take two different ends."""
    desk = Desk()
    other = Issuer(kid="other", key=private_key("other"))
    first = replace(status("canceled", 1025), sealer=other.sealer(agent("pricing")))
    desk.put(first)
    desk.done(1026)
    reading = asyncio.ensure_future(desk.read())
    await until(lambda: desk.reader.reading == 1)
    assert await desk.read(follow=False) == []
    assert not reading.done()
    keys = json.dumps({"keys": [ISSUER.jwk(), other.jwk()]}).encode()
    desk.trust = Trust(bundles=TrustBundles([JwtBundle.parse(TRUST_DOMAIN, keys)]))
    assert [one.state for one in await reading] == [State.CANCELED]
    assert [one.state for one in await desk.read(follow=False)] == [State.CANCELED]


class Broken(MemoryTransport):
    """A transport whose stream cannot be read so many times."""

    def __init__(self, broker: MemoryBroker, times: int) -> None:
        super().__init__(broker)
        self.times = times
        self.starts: list[int] = []

    async def read(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        start: int = 1,
        since: int = 0,
        follow: bool = False,
        current: asyncio.Event | None = None,
        headers_only: bool = False,
    ) -> AsyncGenerator[Sequence[Delivery], None]:
        if headers_only:
            # The news of all tasks, in which nothing breaks here.
            async with aclosing(super().read(stream, subjects, since=since, follow=follow)) as batches:
                async for batch in batches:
                    yield batch
        self.starts.append(start)
        if self.times:
            self.times -= 1
            raise BusUnavailable("not connected")
        async with aclosing(super().read(stream, subjects, start=start, since=since, follow=follow)) as batches:
            async for batch in batches:
                yield batch
                if self.times:
                    raise BusUnavailable("the link was lost")


def broken_desk(times: int, **fields: Any) -> tuple[Desk, Broken]:
    desk = Desk(connect=lambda broker: Broken(broker, times), **fields)
    assert isinstance(desk.transport, Broken)
    return desk, desk.transport


async def test_a_lost_connection_is_waited_out_and_nothing_is_read_twice() -> None:
    desk, transport = broken_desk(3)
    desk.say("working", 1024)
    desk.done()
    assert [one.sequence for one in await desk.read()] == [1024, 1025]
    assert transport.starts == [1, 1, 1, 1]
    desk, transport = broken_desk(0)
    desk.say("working", 1024)
    found = []
    async with asyncio.timeout(60), aclosing(desk.reader.statuses(desk.task)) as statuses:
        async for one in statuses:
            found.append(one.sequence)
            if len(found) == 1:
                transport.times = 1
                desk.done()
    assert found == [1024, 1025]
    assert transport.starts == [1, 2, 2]


def end_it(desk: Desk) -> None:
    desk.now = NOW + 2 * HOUR


def close_it(desk: Desk) -> None:
    desk.reader.closed = True


@pytest.mark.parametrize("change", [end_it, close_it])
async def test_what_cannot_be_read_is_told_where_waiting_has_no_sense(change: Callable[[Desk], None]) -> None:
    """Above all, `expired` is not concluded about a stream that was not read."""
    desk, _ = broken_desk(1)
    change(desk)
    with pytest.raises(BusUnavailable):
        await desk.read()
    desk, _ = broken_desk(1)
    with pytest.raises(BusUnavailable):
        await desk.read(follow=False)
