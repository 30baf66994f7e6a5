"""Builds the objects that store, claim and send the schedules of a node's identity."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.messages import Origin, task_message
from sealbus.agents.sdk.options import SubmitOptions
from sealbus.agents.sdk.schedules import Schedules
from sealbus.bus.gate.status_reader import AskedTask
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.streams.held import current_only
from sealbus.bus.work.schedules.book import ScheduleBook
from sealbus.bus.work.schedules.endpoint import ScheduleEndpoint
from sealbus.bus.work.schedules.request import Planned
from sealbus.bus.work.schedules.scheduler import Scheduler, TickTasks
from sealbus.bus.work.schedules.standing import StandingGrants
from sealbus.bus.work.schedules.tick import CLAIMED_FOR, TickClaims
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.wire import Statement

WEEK: Final = 7 * 86_400 * SECOND
"""Time after which a schedule is written again: HELD keeps values for 32 days."""
QUARTER: Final = 6 * 3_600 * SECOND
"""The same without a notary: bundles keep a key for half a day after its last use."""


def book_of(node: Node) -> ScheduleBook:
    """Return the book of the schedules of the node's identity, in HELD."""
    return ScheduleBook(node.held, identity=node.identity, token=node.token)


def claims_of(node: Node, claimed_for: float = CLAIMED_FOR) -> TickClaims:
    """Return the claims on ticks of the node's identity."""
    return TickClaims(node.site, claimed_for=claimed_for)


def scheduler_of(node: Node, *, claimed_for: float = CLAIMED_FOR, standing: StandingGrants | None = None) -> Scheduler:
    """Return the scheduler of the node's identity in this process; with `standing`, its schedules are those of users."""

    def compose(planned: Planned, statement: Statement | None) -> OutgoingMessage:
        return task_message(
            planned.action,
            planned.body,
            names=node.deployment.names,
            origin=Origin.user(statement),
            options=SubmitOptions(life=planned.life, partition=planned.partition, grants=planned.grants),
            own=node.deployment.own_subjects,
        )

    async def has_ended(task: PendingRequest, wait: bool) -> bool:
        # Read as a control message: no policy decides about its result, and only its end matters here.
        request = AskedTask(pending=task, action=f"{node.token}._schedule")
        async with aclosing(node.status_reader.statuses(request, follow=wait)) as statuses:
            async for status in statuses:
                if status.final:
                    return True
        return False

    return Scheduler(
        node.site,
        book_of(node),
        claims_of(node, claimed_for),
        TickTasks(compose, has_ended),
        outbox=node.outbox,
        settle=node.clocks.settle,
        renewed_after=WEEK if node.past is not current_only else QUARTER,
        standing=standing,
    )


def schedule_endpoint(node: Node, scheduler: Scheduler, standing: StandingGrants | None = None) -> ScheduleEndpoint:
    """Return the endpoint of the messages that ask for schedules of the node's identity."""
    return ScheduleEndpoint(scheduler, trust=node.trust, caches=node.caches, standing=standing)


def schedules_of(node: Node) -> Schedules:
    """Return the schedules of the node's identity, for a client."""
    return Schedules(node.sending, book_of(node), claims_of(node), site=node.site)
