"""A task that is parked and approved, with faults at chosen stores, and what has to hold whatever has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from support.payments import Pay, Payments
from support.replicas import Fault, Faults, Replicas

from sealbus import Context
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.routing.retry import RetryPolicy
from sealbus.bus.sending.answer import RemoteError
from sealbus.bus.sending.status import FINAL
from sealbus.bus.stream_names import AUDIT, DEAD, TASKS
from sealbus.bus.work.approvals.marker import MARKER_TYPE, parsed_marker
from sealbus.bus.work.approvals.parked_tasks import PARKED_TYPE, Parked, ParkedState, parse_parked
from sealbus.envelopes.errors import Code
from sealbus.envelopes.export.approvals import approvals_of
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.testing import TestBus

__all__ = ["QUICK", "Played", "approved", "looked_at", "play", "submitted"]

QUICK = RetryPolicy(initial_interval=0.001, maximum_interval=0.002, maximum_attempts=3)


@dataclass
class Played:
    """What came of a task that was parked and approved."""

    payments: Payments
    faults: Faults
    runs: list[tuple[int, int]] = field(default_factory=list)
    """Of each run of the handler: how many records there were, and how many people had approved."""
    final: list[tuple[str, str]] = field(default_factory=list)
    parked: list[Parked] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    """What the markers say."""
    allowed: list[int] = field(default_factory=list)
    """The places of records that allow it and name an approval."""
    unapproved: int = 0
    dead: list[bytes] = field(default_factory=list)
    sent: bytes = b""

    def check(self, *, once: bool) -> None:
        """Check what has to hold whatever has failed."""
        assert self.unapproved == 0
        assert len(self.final) == 1, "told once"
        if self.final[0] == ("failed", "outcome_unknown"):
            # Killed between its claim and the mark, or another took it up after a claim whose storing was not heard of:
            # nobody knows whether it was done, and it is not done again.
            assert once
            assert set(self.faults.at.values()) & {Fault.KILLED_AFTER, Fault.KILLED_BEFORE, Fault.UNACKNOWLEDGED}
            assert len(self.runs) <= 1
        else:
            assert self.final[0] == ("completed", "")
            assert len(self.runs) == 1 or (self.runs and not once)
        for records, approvals in self.runs:
            assert approvals > 0
            assert any(place <= records for place in self.allowed), "run before its decision was stored"
        assert [one.state for one in self.parked] == [ParkedState.ENDED]
        assert self.ended == [True]


async def play(
    at: Mapping[int, Fault], *, once: bool, number: int = 1, people: tuple[str, ...] = ("boss",), each: int = 1
) -> Played:
    """Park a task and have `people` approve it, with faults at these stores; then everything is delivered again."""
    payments = Payments(once=once, timeout=0.2, retry=QUICK)
    faults = Faults(at)
    played = Played(payments, faults)
    async with (
        TestBus(engine=payments.engine) as bus,
        Replicas(bus, payments.agent, payments.engine, faults=faults, number=number) as replicas,
    ):

        def run(ctx: Context) -> None:
            played.runs.append((len(bus.stored(AUDIT)), len(ctx.approvals)))

        payments.raises = run
        handle = await submitted(bus)
        await replicas.idle()
        [parked] = await bus.waiting()
        await asyncio.gather(*(approved(bus, parked, one) for one in people for _ in range(each)))
        await replicas.idle()
        for consumer in list(bus.broker.consumers.values()):
            consumer.rewind()
        await replicas.idle()
        await looked_at(bus, handle, played)
    return played


async def submitted(bus: TestBus, **options: Any) -> TaskHandle:
    client = await bus.client("shop")
    return await client.submit("payments.pay", Pay(), user=bus.user("alice", "shop"), **options)


async def approved(bus: TestBus, parked: Parked, person: str) -> None:
    """Say yes, and hear that it was counted, or that somebody else's yes was enough."""
    try:
        await bus.approve(parked, person)
    except RemoteError as error:
        assert error.code in (Code.APPROVAL_CLOSED, Code.APPROVAL_REPEATED)  # noqa: PT017  others are raised
    except LookupError:
        return


async def looked_at(bus: TestBus, handle: TaskHandle, played: Played) -> None:
    """Fill in what came of a task."""
    played.final = [(one.state.value, one.code) for one in await bus.statuses(handle) if one.state in FINAL]
    held = (await bus.client("edge")).node.held
    played.parked = [parse_parked(one) for one in (await held.newest("held.*.task.>", PARKED_TYPE)).values()]
    markers = [parsed_marker(one) for one in (await held.newest("held.*.wait.>", MARKER_TYPE)).values()]
    played.ended = [one.ended for one in markers if one is not None]
    for entry in await bus.audit():
        record = entry.record
        if isinstance(record, DecisionRecord) and record.action == "payments.pay" and record.allow:
            approvals = approvals_of(record.input or b"")
            played.allowed.append(entry.sequence)
            played.unapproved += not approvals
    played.dead = [one.payload for one in bus.stored(DEAD)]
    [played.sent] = [one.payload for one in bus.stored(TASKS) if one.subject == "task.payments.pay"]
