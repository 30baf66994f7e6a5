"""Tasks that wait for approvals while their worker is killed, nats-server is restarted or the edge is another one.

The ledger: each is done once and never without an approval, and its requester is told how it ended. `PARKED_KILLS` says how
often a worker is killed; a few times unless said.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from support import parked_worker
from support.edge import edge_table
from support.issuer import TRUSTS_NOBODY, LoopbackIssuer
from support.lab import until
from support.parked_worker import Invoice
from support.payments import Pay, Payments
from support.real_bus import RealBus, real_bus
from support.worker_process import small_environment, worker_process

from sealbus import Client
from sealbus.agents.dev.environment import Environment
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.edge.edge import serve_edge
from sealbus.agents.edge.http.limits import EdgeLimits
from sealbus.agents.runtime.assembly import WorkerLimits
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_audit_trail, open_node
from sealbus.agents.runtime.worker import Worker
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.audit.trail import AuditEntry
from sealbus.bus.clocks import wall_clock
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.approval import ApprovalRequest, Verdict
from sealbus.bus.sending.status import State, Status
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, ParkedState, parse_parked
from sealbus.envelopes.errors import BusUnavailable, Code
from sealbus.envelopes.export.approvals import approvals_of
from sealbus.envelopes.records.decision import DecisionRecord

KILLS = int(os.environ.get("PARKED_KILLS", "6"))
TASKS = 200
WITHIN = 150.0
"""Seconds after which a test has hung; no measure of speed."""

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(2 * WITHIN + 20 * KILLS)]

POLICY = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	request.action.name != "payments.pay"
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	count(request.context.approvals) >= 1
} else := {"allow": false, "reasons": ["over_limit"], "obligations": [asked], "policy": "p"}

asked := {"type": "approval", "queue": "managers", "text": "Pay", "until": 3600}
"""
APPROVERS = """package sealbus.approval

decision := decide(input)

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	request.context.user.id == "boss"
} else := {"allow": false, "reasons": ["not_boss"], "obligations": [], "policy": "p"}
"""


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[Environment]:
    async with small_environment(tmp_path, "payments", "shop", authz=POLICY, approval=APPROVERS) as running:
        yield running


class Ledger:
    """What becomes of each task, as its requester is told, and an approver who says yes to whatever waits."""

    def __init__(self, edge: Node) -> None:
        self.edge = edge
        self.waited: set[str] = set()
        self.ended: dict[str, Status] = {}
        self.seen = asyncio.Event()
        """Set when a requester sees that a task waits, or has ended."""
        self.all_ended = asyncio.Event()
        """Set when as many tasks have ended as there are."""

    async def follow(self, handle: TaskHandle) -> None:
        """Follow one task to its end; once it waits, approve it."""
        async with asyncio.TaskGroup() as group, aclosing(handle.statuses()) as statuses:
            async for status in statuses:
                if status.state is State.INPUT_REQUIRED and handle.message_id not in self.waited:
                    self.waited.add(handle.message_id)
                    self.seen.set()
                    group.create_task(self.approve(handle.digest))
                if status.final:
                    assert handle.message_id not in self.ended, "told twice"
                    self.ended[handle.message_id] = status
                    self.seen.set()
                    if len(self.ended) == TASKS:
                        self.all_ended.set()

    async def approve(self, digest: bytes) -> None:
        """Say yes until it is counted: whoever does not hear says it again."""
        node = self.edge
        while True:
            try:
                found = (await node.held.newest(f"held.payments.task.*.{digest.hex()}", PARKED_TYPE)).values()
                [parked] = [parse_parked(one) for one in found]
                if parked.state is ParkedState.ENDED:
                    return
                user = mint_user(
                    node.identity.sealer(),
                    DevUser("boss", login_age=0.0),
                    trust_domain=node.own.trust_domain,
                    now=wall_clock(),
                )
                await node.sending.approve(
                    digest,
                    ApprovalRequest(decision=parked.leaf, verdict=Verdict.APPROVE),
                    agent=parked.header.aud or node.own,
                    follows=(),
                    user=user,
                )
            except (TimeoutError, BusUnavailable):
                continue
            except RemoteError as error:
                # An earlier one was counted, though nobody heard of it then.
                assert error.code in (Code.APPROVAL_CLOSED, Code.APPROVAL_REPEATED)  # noqa: PT017  others are raised
            return


def handled(file: Path) -> list[tuple[int, str]]:
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [(int(number), approvers) for number, approvers in lines]


async def test_a_killed_worker_loses_no_task_and_does_none_twice(environment: Environment, tmp_path: Path) -> None:
    file, chance = tmp_path / "paid.txt", random.Random(11)  # noqa: S311  the same moments each time
    async with (
        open_node("shop", environment.settings) as shop,
        open_node("edge", environment.settings) as edge,
        AsyncExitStack() as stack,
    ):
        client, ledger = Client.on(shop), Ledger(edge)
        handles: list[TaskHandle] = []
        async with asyncio.timeout(WITHIN + 20 * KILLS), asyncio.TaskGroup() as group:
            await stack.enter_async_context(shop.status_reader.together())

            async def submit(tasks: int) -> None:
                while len(handles) < tasks:
                    handle = await client.submit("payments.pay", Invoice(number=len(handles)))
                    handles.append(handle)
                    group.create_task(ledger.follow(handle))

            for number in range(1, KILLS + 1):
                # New ones for each worker, so that there is something to see of it, however fast the others were.
                submitting = group.create_task(submit(TASKS * number // (KILLS + 1)))
                async with worker_process(parked_worker, environment.settings_file, file, says=b"open") as process:
                    ledger.seen.clear()
                    await ledger.seen.wait()
                    await asyncio.sleep(chance.uniform(0, 0.3))
                    process.kill()
                    await process.wait()
                await submitting
            async with worker_process(parked_worker, environment.settings_file, file, says=b"open") as process:
                await submit(TASKS)
                await ledger.all_ended.wait()
                process.terminate()
                assert await process.wait() == 0
    done, told = handled(file), Counter((one.state.value, one.code) for one in ledger.ended.values())
    assert max(Counter(number for number, _ in done).values()) == 1, "done twice"
    assert {approvers for _, approvers in done} == {"boss"}, "done unapproved"
    completed = {
        number for number, handle in enumerate(handles) if ledger.ended[handle.message_id].state is State.COMPLETED
    }
    assert completed <= {number for number, _ in done}
    # Killed between the claim of its effect and the mark, which is told: nobody knows, and it is not done again.
    unknown = told[State.FAILED.value, "outcome_unknown"]
    assert len(completed) + unknown == TASKS
    assert unknown < TASKS // 4
    assert len(done) <= TASKS
    assert ledger.waited == {handle.message_id for handle in handles}
    approved = await decided(environment)
    assert approved >= {handles[number].message_id for number, _ in done}


async def decided(environment: Environment) -> set[str]:
    """Return the ids of all tasks that verified decisions allow; each must name an approval."""
    found = set()
    async with open_audit_trail("operator", environment.settings) as trail:
        async for entry in trail.entries():
            assert isinstance(entry, AuditEntry)
            record = entry.record
            if isinstance(record, DecisionRecord) and record.allow and record.action == "payments.pay":
                assert approvals_of(record.input or b"")
                assert entry.decided is not None
                found.add(entry.decided.id.hex())
    return found


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[RealBus]:
    async with real_bus(tmp_path, "payments", "shop", "edge") as running:
        yield running


async def test_what_waits_is_done_once_over_a_restart_of_the_server(bus: RealBus) -> None:
    payments, stop = Payments(once=True), asyncio.Event()
    number = 50
    edge = await bus.node("edge", payments.engine)
    shop = await bus.node("shop", payments.engine)
    client, ledger = Client.on(shop), Ledger(edge)
    async with (
        asyncio.timeout(WITHIN),
        Worker(
            payments.agent, await bus.node("payments", payments.engine), WorkerLimits(parked_a_minute=1_000)
        ) as worker,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(worker.run(stop))
        handles = [await client.submit("payments.pay", Pay(invoice=str(one))) for one in range(number)]
        await until(
            lambda: worker.node.counters.value("sealbus_parked_total", outcome="parked") == number, seconds=WITHIN
        )
        await bus.server.kill9()
        await until(lambda: not bus.connections["payments"].connected)
        await bus.server.restart()
        for connection in bus.connections.values():
            await connection.ready(WITHIN)
        await asyncio.gather(*(ledger.follow(handle) for handle in handles))
        stop.set()
    assert {one.state for one in ledger.ended.values()} == {State.COMPLETED}
    assert sorted(payments.paid) == sorted((str(one), ("boss",)) for one in range(number))


async def test_another_edge_shows_and_approves_what_waits(bus: RealBus, tmp_path: Path) -> None:
    payments, stop = Payments(once=True), asyncio.Event()
    number = 10
    limits = EdgeLimits(user_rate=1e6, user_burst=10**6)
    async with (
        asyncio.timeout(WITHIN),
        LoopbackIssuer() as issuer,
        Worker(payments.agent, await bus.node("payments", payments.engine)) as worker,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(worker.run(stop))
        table = edge_table(issuer, actions=("payments.*",))

        @asynccontextmanager
        async def edge() -> AsyncIterator[httpx2.AsyncClient]:
            async with (
                serve_edge(
                    table, await bus.node("edge", payments.engine), limits=limits, issuer_tls=TRUSTS_NOBODY
                ) as one,
                httpx2.AsyncClient(
                    base_url=f"http://127.0.0.1:{one.port}", trust_env=False, verify=TRUSTS_NOBODY, timeout=WITHIN
                ) as http,
            ):
                yield http

        alice = {"Authorization": f"Bearer {issuer.token(sub='alice', life=3_600)}"}
        boss = {"Authorization": f"Bearer {issuer.token(sub='boss', life=3_600, scope='sealbus:approve')}"}
        async with edge() as http:
            for one in range(number):
                answer = await http.post("/v1/tasks/payments/pay", json={"invoice": str(one)}, headers=alice)
                assert answer.status_code == 202, answer.text
        counters = worker.node.counters
        await until(lambda: counters.value("sealbus_parked_total", outcome="parked") == number, seconds=WITHIN)
        assert not payments.paid
        async with edge() as http:
            waiting = (await http.get("/v1/approvals?queue=managers", headers=boss)).json()["approvals"]
            assert len(waiting) == number
            for one in waiting:
                said = {"decision": one["decision"], "verdict": "approve"}
                answer = await http.post(f"/v1/approvals/{one['id']}", json=said, headers=boss)
                assert answer.status_code == 200, answer.text
            await until(lambda: len(payments.paid) >= number, seconds=WITHIN)
            assert not (await http.get("/v1/approvals?queue=managers", headers=boss)).json()["approvals"]
        stop.set()
    assert sorted(payments.paid) == sorted((str(one), ("boss",)) for one in range(number))
