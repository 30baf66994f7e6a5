"""A requester at its desk: a broker in memory, what pricing says of the planner's task, and who reads it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, ClassVar, cast

from support.acceptance import TRUST, Message
from support.engines import ScriptedEngine
from support.envelopes import HOUR, MINUTE, NOW, agent, message_id
from support.identity import StaticIdentity
from support.lab import until
from support.results import TASK, answer
from support.sites import site_of
from support.x509 import ThrowawayCa

from sealbus.agents.dev.memory.broker import MemoryBroker, MemoryTransport
from sealbus.bus.audit.redaction import DECISIONS_ALONE
from sealbus.bus.audit.writer import AuditWriter
from sealbus.bus.clocks import BusClock
from sealbus.bus.gate.authorizer import Authorizer
from sealbus.bus.gate.refusals import Refusals
from sealbus.bus.gate.reply_policy import ReplyPolicy
from sealbus.bus.gate.status_reader import AskedTask, StatusLimits, StatusReader
from sealbus.bus.sending.status import STATUS_TYPE, Status
from sealbus.bus.telemetry import Counters
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.backoff import Backoff
from sealbus.envelopes.records.decision import DecisionRecord
from sealbus.envelopes.trust.bundles import Trust
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["RESULT", "Desk", "result", "status", "written"]

SUBJECT = f"status.planner.{TASK.id.hex()}"
RESULT = b'{"item":"42"}'


class Notes:
    """Stands for the audit writer, of which only `note` is asked, and what is not to be recorded."""

    recording = DECISIONS_ALONE

    def __init__(self) -> None:
        self.records: list[DecisionRecord] = []

    async def note(self, record: DecisionRecord, **about: object) -> None:
        self.records.append(record)

    def counted_again(self, issuer: SpiffeId, code: str | None) -> bool:
        """Leave nothing out: each decision is recorded here."""
        del issuer, code
        return False


@dataclass
class Desk:
    """The planner, which waits for what comes of the task that it gave to pricing."""

    now: int = NOW + MINUTE
    trust: Trust = TRUST
    engine: ScriptedEngine = field(default_factory=ScriptedEngine)
    notes: Notes = field(default_factory=Notes)
    counters: Counters = field(default_factory=Counters)
    limits: StatusLimits = field(
        default_factory=lambda: StatusLimits(backoff=Backoff(initial_interval=0.001, maximum_interval=0.01))
    )
    connect: Callable[[MemoryBroker], MemoryTransport] = MemoryBroker.connect
    number: int = 100
    together: ClassVar[bool] = False
    """Whether readings wait together, as an edge's do; a test sets it for all desks."""

    def __post_init__(self) -> None:
        self.broker = MemoryBroker(lambda: self.now)
        self.broker.add_stream("RESULTS", ["status.>"])
        self.broker.add_stream("REFUSALS", ["refused.>"])
        self.transport = transport = self.connect(self.broker)
        self.refusals = Refusals(
            transport=transport, subject="refused.planner", counters=self.counters, clock=BusClock(lambda: self.now)
        )
        planner = StaticIdentity(ThrowawayCa("example.org"), agent("planner").value)
        self.site = site_of(
            transport,
            lambda: self.now,
            identity=planner,
            trust=self.current_trust,
            counters=self.counters,
        )
        self.reader = StatusReader(
            self.site,
            policy=ReplyPolicy(authorizer=Authorizer(engine=self.engine), audit=cast("AuditWriter", self.notes)),
            refusals=self.refusals,
            limits=self.limits,
        )
        self.task = AskedTask(pending=PendingRequest.of(TASK), action="pricing.update")

    def current_trust(self) -> Trust:
        """Return the trust that is in force now."""
        return self.trust

    def put(self, message: Message | bytes) -> None:
        """Store a status as it is."""
        self.broker.inject(SUBJECT, message if isinstance(message, bytes) else message.payload())

    def say(self, state: str, seq: int, **more: Any) -> None:
        """Store a status that pricing writes."""
        self.put(status(state, seq, **more))

    def done(self, seq: int = 1025, **fields: Any) -> None:
        """Store the result."""
        self.put(result(seq, **fields))

    async def read(self, *, after: int = -1, follow: bool = True) -> list[Status]:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            if self.together:
                await stack.enter_async_context(self.reader.together())
            found = await stack.enter_async_context(
                aclosing(self.reader.statuses(self.task, after=after, follow=follow))
            )
            return [one async for one in found]

    async def read_from(self) -> None:
        """Wait until somebody waits for statuses."""
        await until(lambda: bool(self.broker.streams["RESULTS"].arrived))

    def counted(self, code: str) -> int:
        return self.counters.value("sealbus_refused_total", code=code)

    async def refused(self) -> list[str]:
        await self.refusals.flush()
        said = [json.loads(one.payload) for one in self.broker.streams["REFUSALS"].stored]
        return [one["code"] for one in said for _ in range(one["count"])]


def status(state: str, seq: int, *, fin: bool | None = None, **more: object) -> Message:
    """Return a status by pricing; `fin` stands where it should unless it is said."""
    final = state not in ("working", "input-required") if fin is None else fin
    body = json.dumps({"state": state, **more}).encode()
    return written(body, STATUS_TYPE, seq, fin=final)


def result(seq: int, *, fin: bool = True, **fields: object) -> Message:
    """Return the status that is a result."""
    return written(RESULT, "application/json", seq, fin=fin, **fields)


def written(body: bytes, typ: str, seq: int, *, fin: bool, **fields: object) -> Message:
    own: dict[str, object] = {"typ": typ, "seq": seq, "fin": True if fin else None, "dig": sha256(body).digest()}
    own |= {"id": message_id(10_000 + seq), "iat": NOW, "exp": NOW + 2 * HOUR}
    return replace(answer("status", **(own | fields)), body=body)
