"""Tasks that were done: told together, settled each after it was tried, and all of them before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from support.audit import opened

from sealbus.bus.ports import Delivery
from sealbus.bus.routing.cancellation import Cancellation
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.routing.routes import Endpoint, HandlerOptions, Permitted, Route
from sealbus.bus.sending.message import Content
from sealbus.bus.sending.status import State, Status
from sealbus.bus.work.executor.completion import AT_A_TIME, TOGETHER, Completion, Finished, Outcomes
from sealbus.bus.work.executor.work import Work
from sealbus.bus.work.idempotency.claim_store import Claim
from sealbus.bus.work.idempotency.effects import Effects
from sealbus.bus.work.status_writer import Statuses, StatusReporter
from sealbus.envelopes.errors import Code
from sealbus.envelopes.message.header import Header
from sealbus.envelopes.message.kinds import Kind

TASK = opened()
ROUTE = Route(
    kind=Kind.TASK,
    subject="task.a.run",
    action="a.run",
    endpoint=cast("Endpoint", None),
    options=HandlerOptions(retry=RetryPolicy()),
)


class Worker:
    """Statuses, effects and outcomes that note what is asked of them, in order; `full` results are not stored."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self.batches: list[int] = []
        self.full: frozenset[bytes] = frozenset()
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.storing = asyncio.Event()
        self.completion = Completion(
            statuses=cast("Statuses", self),
            effects=cast("Effects", self),
            outcomes=cast("Outcomes", self),
            waiting=4 * TOGETHER,
        )

    async def store_each(self, told: Sequence[tuple[Header, Status | None]]) -> list[bool]:
        self.batches.append(len(told))
        self.storing.set()
        await self.may_store.wait()
        results = [status.result.body for _, status in told if status is not None and status.result is not None]
        assert all(status is not None and status.state is State.COMPLETED for _, status in told)
        self.seen += [("told", body) for body in results]
        return [body not in self.full for body in results]

    def told(self, claim: Claim) -> None:
        self.seen.append(("noted", claim.key))

    def untold(self, claim: Claim) -> None:
        self.seen.append(("untold", claim.key))

    async def settle(self, work: Work, code: Code | None) -> None:
        assert code is None
        self.seen.append(("settled", work.permitted.leaf))


def done(name: bytes) -> Finished:
    permitted = Permitted(message=TASK, value=None, route=ROUTE, leaf=name, sent=[], cancellation=Cancellation())
    work = Work(permitted, Delivery("task.works.plain", b"", b""), None, {})
    reporter = StatusReporter(cast("Statuses", None), TASK.header, 1)
    return Finished(work, Claim(key=name, dig=b"", first=b""), reporter, Content(body=name, typ="application/json"))


@pytest.fixture
async def worker() -> Worker:
    return Worker()


async def test_what_waits_is_told_together_and_settled_in_order(worker: Worker) -> None:
    for name in (b"1", b"2", b"3"):
        await worker.completion.put(done(name))
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.completion.run())
        await worker.completion.join()
        await worker.completion.close()
    assert worker.batches == [3]
    told = [("told", name) for name in (b"1", b"2", b"3")]
    assert worker.seen == [*told, *((step, name) for name in (b"1", b"2", b"3") for step in ("noted", "settled"))]


async def test_what_could_not_be_told_is_settled_and_noted_as_untold(worker: Worker) -> None:
    worker.full = frozenset({b"2"})
    await worker.completion.put(done(b"1"))
    await worker.completion.put(done(b"2"))
    await worker.completion.close()
    await worker.completion.run()
    assert [event for event in worker.seen if event[0] != "told"] == [
        ("noted", b"1"), ("settled", b"1"), ("untold", b"2"), ("settled", b"2"),
    ]  # fmt: skip


async def test_no_batch_is_larger_than_a_signature_takes(worker: Worker) -> None:
    for number in range(TOGETHER + 1):
        await worker.completion.put(done(b"%d" % number))
    await worker.completion.close()
    await worker.completion.run()
    assert worker.batches == [TOGETHER, 1]


async def test_a_batch_that_waits_does_not_hold_up_the_next(worker: Worker) -> None:
    worker.may_store.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(worker.completion.run())
        await worker.completion.put(done(b"1"))
        await worker.storing.wait()
        worker.storing.clear()
        await worker.completion.put(done(b"2"))
        await worker.storing.wait()
        assert worker.seen == []
        worker.may_store.set()
        await worker.completion.join()
        await worker.completion.close()
    assert worker.batches == [1, 1]


async def test_the_end_waits_for_what_was_taken_over(worker: Worker) -> None:
    worker.may_store.clear()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(worker.completion.run())
        await worker.completion.put(done(b"1"))
        await worker.storing.wait()
        await worker.completion.close()
        worker.may_store.set()
    assert ("settled", b"1") in worker.seen
