"""Puts the schedules of a node's identity together: how they are kept, claimed and sent."""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from sealbus.agents.runtime.node import Node
from sealbus.agents.sdk.messages import Origin, task_message
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

__all__ = ["book_of", "claims_of", "schedule_endpoint", "scheduler_of", "schedules_of"]

WEEK: Final = 7 * 86_400 * SECOND
"""After which a schedule is written anew: HELD keeps 32 days."""
QUARTER: Final = 6 * 3_600 * SECOND
"""The same where no past keys are known: bundles keep a key for half a day after it was used last."""


def book_of(node: Node) -> ScheduleBook:
    """Return the schedules of the node's identity as HELD has them."""
    return ScheduleBook(node.held, identity=node.identity, token=node.token)


def claims_of(node: Node, claimed_for: float = CLAIMED_FOR) -> TickClaims:
    """Return the claims on ticks of the node's identity."""
    return TickClaims(node.site, claimed_for=claimed_for)


def scheduler_of(node: Node, *, claimed_for: float = CLAIMED_FOR, standing: StandingGrants | None = None) -> Scheduler:
    """Return what runs the schedules of the node's identity in this process; with `standing`, those for users."""

    def compose(planned: Planned, statement: Statement | None) -> OutgoingMessage:
        return task_message(
            planned.action,
            planned.body,
            names=node.deployment.names,
            origin=Origin.user(statement),
            life=planned.life * SECOND if planned.life is not None else None,
            partition=planned.partition,
            grants=planned.grants,
            own=node.deployment.own_subjects,
        )

    async def has_ended(task: PendingRequest, wait: bool) -> bool:
        # Only whether it has ended is of interest: as of a control message, whose result is not decided on.
        asked = AskedTask(pending=task, action=f"{node.token}._schedule")
        async with aclosing(node.status_reader.statuses(asked, follow=wait)) as statuses:
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
    """Return what handles the messages that ask for schedules of the node's identity."""
    return ScheduleEndpoint(scheduler, trust=node.trust, caches=node.caches, standing=standing)


def schedules_of(node: Node) -> Schedules:
    """Return how the node's identity asks for schedules, and sees its own."""
    return Schedules(
        node.sending,
        book_of(node),
        claims_of(node),
        own=node.own,
        names=node.deployment.names,
        own_subjects=node.deployment.own_subjects,
        clock=node.clock,
    )
