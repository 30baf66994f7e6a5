"""Tasks that wait: what 100,000 of them cost a worker and an edge, and what parking and resuming cost beside a plain task.

Guards are ratios of one run: parking to a denial, resuming to a task that is allowed at once.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

from bench.approvals_worker import LIMITS, Invoice, agent
from bench.processes import resident
from bench.report import Figure
from sealbus import Client
from sealbus.agents.dev.environment import DevOptions, Environment, open_environment
from sealbus.agents.dev.users import DevUser, mint_user
from sealbus.agents.edge.v1.approvals import ParkedTaskReader
from sealbus.agents.runtime.node import Node
from sealbus.agents.runtime.open import open_node
from sealbus.agents.runtime.worker import Worker, settle_collector
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.clocks import wall_clock
from sealbus.bus.nats.api import EXPECTED_LAST
from sealbus.bus.ports import Outgoing, PubAck, uuid7
from sealbus.bus.sending.approval import ApprovalRequest, Verdict, approval_message
from sealbus.bus.stream_names import RESULTS
from sealbus.bus.streams.signed_value import signed
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked, parse_parked
from sealbus.envelopes.encoding.codec import encode
from sealbus.envelopes.limits import DEFAULT_LIMITS, SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.seal import Draft, seal
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.policies.decision.request import NO_RESOURCE, Caller, Request, input_document

__all__ = ["figures"]

MANY = int(os.environ.get("PARKED_TASKS", "100000"))
LISTED = 5_000
"""Tasks that wait when all of them are listed."""
TASKS = 500
"""Of each kind, for throughput: fewer denials than are recorded singly."""
SINGLE = 100
"""One after the other, for latency."""
ROUNDS = 3
BATCH = 250
GOAL = 3.0
GUARD, RESUMED_GUARD = 5.0, 25.0
"""Times of a denied task, and of a fresh one."""
WAIT: Final = 7 * 86_400.0
"""Seconds that a requester looks for the result, for people are asked."""

POLICY: Final = """package sealbus.authz

decision := decide(input)

batch := [decide(request) | some request in input.batch]

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	request.action.name in {"payments.note", "payments._approve"}
} else := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	count(request.context.approvals) >= 1
} else := {"allow": false, "reasons": ["over_limit"], "obligations": o, "policy": "p"} if {
	request.action.name == "payments.pay"
	o := [{"type": "approval", "queue": "managers", "text": "Pay", "until": 2592000}]
} else := {"allow": false, "reasons": ["never"], "obligations": [], "policy": "p"}
"""
APPROVERS: Final = """package sealbus.approval

decision := decide(input)

decide(request) := {"allow": true, "reasons": [], "obligations": [], "policy": "p"} if {
	request.context.user.id == "boss"
} else := {"allow": false, "reasons": ["not_boss"], "obligations": [], "policy": "p"}
"""


class Site:
    """The nodes of a requester and of an edge, and the news of what the requester is told."""

    def __init__(self, environment: Environment, shop: Node, edge: Node) -> None:
        self.environment = environment
        self.shop = shop
        self.edge = edge
        self.client = Client.on(shop)
        self.told: dict[str, int] = {}
        self.news = asyncio.Event()

    async def watch(self, current: asyncio.Event) -> None:
        """Note what is stored for the requester, as it comes."""
        source = self.shop.transport.read(
            RESULTS, ["status.shop.*"], follow=True, current=current, headers_only=True, since=wall_clock()
        )
        async for batch in source:
            for one in batch:
                self.told[one.subject] = self.told.get(one.subject, 0) + 1
            self.news.set()

    async def until_told(self, handles: Sequence[TaskHandle], times: int) -> None:
        """Wait until each requester was told something so many times."""
        wanted = [f"status.shop.{one.message_id}" for one in handles]
        while not all(self.told.get(one, 0) >= times for one in wanted):
            self.news.clear()
            await self.news.wait()

    async def submit(self, action: str, number: int) -> list[TaskHandle]:
        """Submit so many at once."""
        return list(
            await asyncio.gather(
                *[self.client.submit(f"payments.{action}", Invoice(number=one), wait=WAIT) for one in range(number)]
            )
        )

    def user(self) -> Statement:
        """Return a manager's context, who has just logged in."""
        node = self.edge
        return mint_user(
            node.identity.sealer(),
            DevUser("boss", login_age=0.0),
            trust_domain=node.own.trust_domain,
            now=wall_clock(),
        )

    async def approve(self, parked: Sequence[Parked]) -> None:
        """Store an approval of each."""
        await self.edge.outbox.publish_each(
            [
                approval_message(
                    ApprovalRequest(decision=one.leaf, verdict=Verdict.APPROVE),
                    agent=self.environment.names.id_of("payments"),
                    task=one.digest,
                    follows=(),
                    statement=self.user(),
                    names=self.environment.names,
                    now=wall_clock(),
                )
                for one in parked
            ]
        )

    async def parked(self, handles: Sequence[TaskHandle]) -> list[Parked]:
        """Return what waits of these."""
        found = []
        for one in handles:
            [value] = (await self.edge.held.newest(f"held.payments.task.*.{one.digest.hex()}", PARKED_TYPE)).values()
            found.append(parse_parked(value))
        return found


@asynccontextmanager
async def _working(site: Site) -> AsyncIterator[Worker]:
    """Run a worker in this process."""
    async with (
        open_node("payments", site.environment.settings) as node,
        Worker(agent(), node, LIMITS) as worker,
    ):
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))
        await worker.ready.wait()
        settle_collector()
        yield worker
        stop.set()
        await running


async def _rate(site: Site, handles: Sequence[TaskHandle], times: int) -> float:
    """Run a worker on what is queued; return how many a second are told."""
    began = time.perf_counter()
    async with _working(site) as worker:
        ready = time.perf_counter()
        await site.until_told(handles, times)
        await worker.settle()
        # What was taken before the worker said that it is ready counts, too.
        return len(handles) / (time.perf_counter() - min(ready, began + 0.05))


async def _latency(site: Site, action: str, times: int = 1) -> list[float]:
    """Return the milliseconds until each of some tasks, one after the other, is told."""
    taken = []
    for _ in range(SINGLE):
        began = time.perf_counter()
        handles = await site.submit(action, 1)
        await site.until_told(handles, times)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


async def _resumed(site: Site) -> list[float]:
    handles = await site.submit("pay", SINGLE)
    await site.until_told(handles, 1)
    taken = []
    for handle, parked in zip(handles, await site.parked(handles), strict=True):
        began = time.perf_counter()
        await site.approve([parked])
        await site.until_told([handle], 2)
        taken.append((time.perf_counter() - began) * 1e3)
    return taken


async def _put(node: Node, requester: Node, number: int) -> int:
    """Store so many parked tasks, as they would be: real messages, real records, signed one by one.

    Returns the place in the stream before the first of them.
    """
    before = -1
    names, own, now = node.deployment.names, node.own, wall_clock()
    for first in range(0, number, BATCH):
        drafts = [
            Draft(
                kind=Kind.TASK,
                to="task.payments.pay",
                aud=own,
                body=b'{"number":%d}' % one,
                typ="application/json",
                id=uuid7(now),
                iat=now,
                exp=now + 3_600 * SECOND,
                end=now + 3_600 * SECOND,
            )
            for one in range(first, min(first + BATCH, number))
        ]
        outgoing = []
        for sealed in seal(drafts, requester.identity.sealer()):
            header = sealed.header
            asked = Request(
                caller=Caller(
                    subject=header.iss.value,
                    trust_domain=header.iss.trust_domain.name,
                    tenant="",
                    chain=(header.iss.value,),
                ),
                action="payments.pay",
                properties={},
                resource=NO_RESOURCE,
                time=now,
                nats_subject=header.to,
                kind=header.kind.value,
                message_id=header.id.hex(),
            )
            record = DecisionRecord(
                header=header.raw,
                proof=sealed.ancestor.proof,
                action="payments.pay",
                place=StreamPlace(stream="TASKS", sequence=1, stored=now),
                delivery=1,
                allow=False,
                code="denied",
                input=input_document(asked),
                reasons=("over_limit",),
                obligations=b'[{"type":"approval","queue":"managers","text":"Pay","until":2592000}]',
                revision="1",
                policy="p",
                engine="embedded",
                micros=1,
            )
            parked = Parked(record=record.encode(), envelope=sealed.wire, since=now, until=now + 30 * 86_400 * SECOND)
            outgoing.append(_value(node, parked, parked.subject(names.token(own))))
        answers = await node.transport.publish(outgoing, deadline=30.0)
        if not all(isinstance(one, PubAck) for one in answers):
            raise RuntimeError(f"not stored: {answers[0]}")
        if before < 0:
            before = min(one.sequence for one in answers if isinstance(one, PubAck)) - 1
    return before


def _value(node: Node, parked: Parked, subject: str) -> Outgoing:
    payload = encode(
        {
            **parked.keys(),
            "v": 1,
            "own": node.own.value,
            "sub": subject,
            "n": 1,
            "at": wall_clock(),
            "ext": sha256(parked.envelope).digest(),
        },
        text_bytes=DEFAULT_LIMITS.spiffe_id_bytes,
    )
    raw = encode([*signed(payload, PARKED_TYPE, node.identity.sealer()), parked.envelope])
    return Outgoing(subject=subject, payload=raw, headers={EXPECTED_LAST: "0"})


async def _process(settings: Path) -> tuple[float, float]:
    """Return how long a worker takes until it is ready, and what it holds then."""
    began = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.approvals_worker",
        str(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("no pipes")
    if await child.stdout.readline() != b"ready\n":
        raise RuntimeError("the worker did not start")
    taken, held = time.perf_counter() - began, resident(child.pid)
    child.stdin.close()
    await child.wait()
    return taken, held


async def _best(of: Callable[[], AsyncIterator[tuple[float, float]]]) -> tuple[float, float]:
    found = [one async for one in of()]
    return min(one for one, _ in found), min(one for _, one in found)


async def _worker(settings: Path) -> tuple[float, float]:
    """Return the best of some starts: others on this machine only make one slower or larger."""

    async def starts() -> AsyncIterator[tuple[float, float]]:
        for _ in range(ROUNDS):
            yield await _process(settings)

    return await _best(starts)


async def figures() -> AsyncGenerator[Figure, None]:
    """Yield each figure."""
    with tempfile.TemporaryDirectory(prefix="sb-") as name:
        folder = Path(name)
        policy = folder / "policy"
        policy.mkdir()
        (policy / "authz.rego").write_text(POLICY)
        (policy / "approval.rego").write_text(APPROVERS)
        options = DevOptions(
            folder=folder / "dev",
            agents=("payments", "shop"),
            port=-1,
            policy=policy,
            max_bytes=1 << 28,
            sync=False,
        )
        async with (
            open_environment(options) as environment,
            open_node("shop", environment.settings) as shop,
            open_node("edge", environment.settings) as edge,
        ):
            site, current = Site(environment, shop, edge), asyncio.Event()
            watching = asyncio.create_task(site.watch(current))
            await current.wait()
            async for figure in _few(site):
                yield figure
            async with open_node("payments", environment.settings) as node:
                before = await _put(node, shop, LISTED)
            yield await _listed(site, before)
            ready, held = await _worker(environment.settings_file)
            async with open_node("payments", environment.settings) as node:
                before = await _put(node, shop, MANY)
            async for figure in _many(site, ready, held, before):
                yield figure
            watching.cancel()


async def _few(site: Site) -> AsyncGenerator[Figure, None]:
    rates: dict[str, list[float]] = {"refuse": [], "pay": [], "note": [], "resume": []}
    for _ in range(ROUNDS):
        for action in ("refuse", "note", "pay"):
            handles = await site.submit(action, TASKS)
            rates[action].append(await _rate(site, handles, 1))
        await site.approve(await site.parked(handles))
        rates["resume"].append(await _rate(site, handles, 2))
    for label, ours, theirs, guard in (
        ("tasks parked, to denied ones", "pay", "refuse", GUARD),
        ("tasks resumed, to fresh ones", "resume", "note", RESUMED_GUARD),
    ):
        yield Figure.of(
            [other / one for one, other in zip(rates[ours], rates[theirs], strict=True)],
            name=label,
            unit="x",
            guard=guard,
            goal=GOAL,
            beside=f"{statistics.median(rates[ours]):.0f} and {statistics.median(rates[theirs]):.0f} a second",
        )
    async with _working(site):
        await _latency(site, "note")
        for figure in await _latencies(site):
            yield figure


async def _latencies(site: Site) -> list[Figure]:
    """Return what parking and resuming take one after the other, with what they are compared with."""
    refused, parked, fresh = [statistics.median(await _latency(site, one)) for one in ("refuse", "pay", "note")]
    resumed = statistics.median(await _resumed(site))
    return [
        Figure(
            name="  until told that it waits, p50, to denied",
            value=parked / refused,
            unit="x",
            guard=GUARD,
            goal=GOAL,
            beside=f"{parked:.1f} and {refused:.1f} ms",
        ),
        Figure(
            name="  from the approval until done, p50, to fresh",
            value=resumed / fresh,
            unit="x",
            guard=GUARD,
            goal=GOAL,
            beside=f"{resumed:.1f} and {fresh:.1f} ms",
        ),
    ]


async def _listed(site: Site, before: int) -> Figure:
    """Return how long it takes to list all that waits: read, asked about, and proved."""
    waiting, person = ParkedTaskReader(site.edge), parse_payload(site.user().payload)
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        after = found = pages = 0
        while not pages or after:
            page = await waiting.page("managers", person, after=after or before)
            found, after, pages = found + len(page.tasks), page.after, pages + 1
        taken.append(time.perf_counter() - began)
        if found != LISTED:
            raise RuntimeError(f"{found} of {LISTED} are listed")
    return Figure(name=f"{LISTED:,} listed in {pages} pages", value=min(taken), unit="s", goal=2.0)


async def _many(site: Site, ready: float, held: float, before: int) -> AsyncGenerator[Figure, None]:
    full_ready, full_held = await _worker(site.environment.settings_file)
    yield Figure(
        name=f"a worker with {MANY:,} parked tasks, to none: memory",
        value=full_held / held,
        unit="x",
        guard=1.02,
        goal=1.02,
        beside=f"{full_held:.1f} and {held:.1f} MB",
    )
    yield Figure(
        name="  time to ready",
        value=full_ready / ready,
        unit="x",
        guard=1.4,
        goal=1.2,
        beside=f"{full_ready:.2f} and {ready:.2f} s",
    )
    async with _working(site):
        for figure in await _latencies(site):
            yield figure
    waiting, person = ParkedTaskReader(site.edge), parse_payload(site.user().payload)
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        page = await waiting.page("managers", person, after=before)
        taken.append(time.perf_counter() - began)
        if not page.tasks:
            raise RuntimeError(f"{len(page.tasks)} of them are shown")
    yield Figure(name=f"the first page of {len(page.tasks)} of them", value=min(taken), unit="s", goal=2.0)
