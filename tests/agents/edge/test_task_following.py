from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from support.a2a import Lines, Site, site, token_of

from sealbus.agents.edge.actions import Actions
from sealbus.agents.edge.http.problem import TokenRefused
from sealbus.agents.edge.task_following import follow_task, parts_of, waits_for_approval
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.sending.status import State, Status
from sealbus.policies.bundle.revocations import NONE_REVOKED, Revocations

LIMITS = {"event_pause_seconds": 0.02}


@pytest.fixture
def revoked() -> list[Revocations]:
    return [NONE_REVOKED]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def running(tmp_path: Path, lines: Lines, revoked: list[Revocations]) -> AsyncIterator[Site]:
    async with site(tmp_path, lines.agent, revocations=lambda: revoked[0], limits=LIMITS) as found:
        yield found
        lines.go_on.set()


async def begun(running: Site, count: int) -> TaskHandle:
    answer = await running.door.post("/v1/tasks/writer/write", count)
    token = token_of(running.door.issuer.issuer, "alice")
    return await Actions(running.door.edge.front).tasks.owners.find_task(answer.json()["id"], token)


@pytest.mark.parametrize("parts", [False, True])
async def test_statuses_come_to_the_end_with_parts_only_where_asked_for(
    running: Site, lines: Lines, parts: bool
) -> None:
    lines.go_on.set()
    handle, token = await begun(running, 2), token_of(running.door.issuer.issuer, "alice")
    front = running.door.edge.front
    async with aclosing(follow_task(handle, front, token, after=-1, within=20, parts=parts)) as statuses:
        found = [one async for one in statuses]
    assert found[-1].state is State.COMPLETED
    assert sum(one.part is not None for one in found) == (2 if parts else 0)
    assert [one.body for one in await parts_of(handle)] == [b'"line 0"', b'"line 1"']


async def test_it_ends_with_its_time_with_the_edge_and_with_the_session(
    running: Site, revoked: list[Revocations]
) -> None:
    handle, token = await begun(running, 1), token_of(running.door.issuer.issuer, "alice")
    front = running.door.edge.front
    async with asyncio.timeout(60):
        async with aclosing(follow_task(handle, front, token, after=-1, within=0.1)) as statuses:
            assert not any([one.final async for one in statuses])
        revoked[0] = Revocations(sessions=frozenset({(token.issuer, token.session)}))
        async with aclosing(follow_task(handle, front, token, after=0, within=20)) as statuses:
            with pytest.raises(TokenRefused):
                await anext(statuses)
        revoked[0] = NONE_REVOKED
        front.stopping.set()
        async with aclosing(follow_task(handle, front, token, after=0, within=20)) as statuses:
            assert not any([one.final async for one in statuses])


def test_only_a_task_that_waits_for_somebody_waits_for_an_approval() -> None:
    assert waits_for_approval(Status(state=State.INPUT_REQUIRED, code="approval_required"))
    for other in (None, Status(state=State.WORKING), Status(state=State.INPUT_REQUIRED, code="other")):
        assert not waits_for_approval(other)
