"""Runs a handler again on recorded messages, for debugging: read from TASKS and checked against their decision.

Nothing is acknowledged, sealed, published or recorded. The messages to replay come from verified decision records alone, and
a stored message counts only if it is, byte for byte, the one that was decided on.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final, cast

from sealbus.agents.runtime.endpoint import HandlerEndpoint, routes_of
from sealbus.agents.runtime.node import Deployment
from sealbus.agents.runtime.replay.context import ReplayContext
from sealbus.agents.runtime.replay.sender import NotSent, Unsent, WouldSend
from sealbus.agents.sdk.agent import Agent
from sealbus.bus.audit.trail import AuditEntry, Finding
from sealbus.bus.ports import Transport
from sealbus.bus.routing.routes import RouteTable
from sealbus.bus.sending.message import Content
from sealbus.bus.stream_names import TASKS
from sealbus.envelopes.encoding.strict_json import parse_object
from sealbus.envelopes.errors import EnvelopeError
from sealbus.envelopes.message.wire import parse_envelope
from sealbus.envelopes.records.decision import DecisionRecord, StreamPlace
from sealbus.envelopes.records.work import OutcomeRecord
from sealbus.policies.decision.decision import OBLIGATION_NESTING

__all__ = ["MOST", "Replay", "Replayed", "Result"]

MOST: Final = 100
"""Most messages that are replayed, the newest ones."""


class Result(StrEnum):
    """The result of one replayed message."""

    DONE = "done"
    FAILED = "failed"
    """The handler raised, hung, or returned what cannot be encoded; or its resource or body could not be loaded."""
    STOPPED = "stopped"
    """The handler asked another agent for an answer, which a replay does not get."""
    DENIED = "denied"
    """It was denied: the handler did not get it then and does not get it now."""
    GONE = "gone"
    """The stream no longer holds it, and its body was not recorded."""
    OTHER = "other"
    """The stream holds another message in its place: a finding."""
    UNKNOWN = "unknown"
    """The agent has no handler for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One message: what was recorded of it, and what the handler did this time.

    `error` is what it ended with; `resource` what its loader returned; `micros` how long the handler took.
    """

    entry: AuditEntry
    outcome: OutcomeRecord | None
    result: Result
    error: BaseException | None = None
    resource: str = ""
    answer: Content | None = None
    sent: tuple[WouldSend, ...] = ()
    micros: int = 0


@dataclass(slots=True)
class _Held:
    entry: AuditEntry
    record: DecisionRecord
    outcome: OutcomeRecord | None = None


@dataclass(slots=True, kw_only=True)
class Replay:
    """A replay into `agent`, under the names and subjects of `deployment`; `transport` reads TASKS.

    Enter the agent's lifespan around it if the handlers need one.
    """

    agent: Agent
    deployment: Deployment
    transport: Transport
    most: int = MOST
    on_finding: Callable[[Finding], None]
    """Called with every record that does not verify."""

    async def replay(self, entries: AsyncIterable[AuditEntry | Finding]) -> AsyncGenerator[Replayed, None]:
        """Yield the newest messages that the agent has decided on among `entries`, in stream order, each replayed.

        If a message was delivered several times, its last decision counts.
        """
        held = await self._decided(entries)
        if not held:
            return
        wanted = dict(held)
        subjects = sorted({one.entry.decided.to for one in held.values() if one.entry.decided is not None})
        source = self.transport.read(TASKS, subjects, start=min(held))
        async with aclosing(source) as batches:
            async for batch in batches:
                for delivery in batch:
                    sequence = delivery.arrival.sequence if delivery.arrival is not None else 0
                    one = wanted.pop(sequence, None)
                    if one is not None:
                        yield await self._one(one, delivery.subject, delivery.payload)
                if not wanted:
                    break
        for one in wanted.values():
            body = one.record.body
            yield await self._given(one, body) if body is not None else _came_to(one, Result.GONE)

    async def _decided(self, entries: AsyncIterable[AuditEntry | Finding]) -> Mapping[int, _Held]:
        """Return the newest decisions by the sequence of their message, with their outcomes."""
        own = self.deployment.names.id_of(self.agent.name)
        held: OrderedDict[int, _Held] = OrderedDict()
        by_leaf: dict[bytes, _Held] = {}
        async for entry in entries:
            if isinstance(entry, Finding):
                self.on_finding(entry)
                continue
            record = entry.record
            if isinstance(record, OutcomeRecord):
                if record.decision in by_leaf and entry.recorder == own:
                    by_leaf[record.decision].outcome = record
                continue
            if entry.recorder != own or not isinstance(record, DecisionRecord):
                continue
            place = record.place
            if not isinstance(place, StreamPlace) or place.stream != TASKS:
                continue
            replaced = held.pop(place.sequence, None)
            if replaced is None and len(held) == self.most:
                _, replaced = held.popitem(last=False)
            if replaced is not None:
                del by_leaf[replaced.entry.leaf]
            held[place.sequence] = by_leaf[entry.leaf] = _Held(entry, record)
        return OrderedDict(sorted(held.items()))

    async def _one(self, held: _Held, subject: str, payload: bytes) -> Replayed:
        """Replay the message that the stream holds at the decided one's place, if it is that message."""
        message = held.entry.message
        try:
            envelope = parse_envelope(payload)
        except EnvelopeError as error:
            return _came_to(held, Result.OTHER, error)
        if message is None or envelope.header != held.record.header or subject != message.header.to:
            return _came_to(held, Result.OTHER)
        if sha256(envelope.body).digest() != message.header.dig:
            return _came_to(held, Result.OTHER)
        return await self._given(held, envelope.body)

    async def _given(self, held: _Held, body: bytes) -> Replayed:
        """Give a message to its handler, if it was allowed; `body` is the one that was signed."""
        record, message = held.record, held.entry.message
        if message is None:
            return _came_to(held, Result.OTHER)
        if not record.allow:
            return _came_to(held, Result.DENIED)
        names, own_subjects = self.deployment.names, self.deployment.own_subjects
        unsent = Unsent(own=names.id_of(self.agent.name), names=names, own_subjects=own_subjects)
        routes = RouteTable(routes_of(self.agent, sending=unsent, names=names, own_subjects=own_subjects))
        try:
            endpoint = cast(
                "HandlerEndpoint", routes.route_of(message.header.to).endpoint
            )  # `routes_of` makes no other
        except EnvelopeError as error:
            return _came_to(held, Result.UNKNOWN, error)
        context = ReplayContext(message, record, _obligations(record.obligations), unsent)
        return await _run(held, endpoint, body, message.header.typ, context, unsent)


def _came_to(held: _Held, result: Result, error: BaseException | None = None) -> Replayed:
    return Replayed(entry=held.entry, outcome=held.outcome, result=result, error=error)


async def _run(
    held: _Held, endpoint: HandlerEndpoint, body: bytes, typ: str, context: ReplayContext, unsent: Unsent
) -> Replayed:
    handler = endpoint.handler
    error: BaseException | None = None
    answer: Content | None = None
    shown = ""
    result = Result.DONE
    started = time.perf_counter_ns()
    try:
        async with asyncio.timeout(handler.timeout):
            value = endpoint.decode(body, typ)
            resource = await endpoint.resource(value)
            shown = f"{resource.type}:{resource.id}"
            started = time.perf_counter_ns()
            if handler.streams:
                async for part in handler.function(value, context):
                    unsent.note("part", held.record.action, len(handler.gives.encode(part).body))
            else:
                given = await handler.function(value, context)
                answer = handler.gives.encode(given) if given is not None else None
    except NotSent as stopped:
        result, error = Result.STOPPED, stopped
    except Exception as failed:  # noqa: BLE001  a handler may raise anything, which is shown
        result, error = Result.FAILED, failed
    return Replayed(
        entry=held.entry,
        outcome=held.outcome,
        result=result,
        error=error,
        resource=shown,
        answer=answer,
        sent=tuple(unsent.noted),
        micros=(time.perf_counter_ns() - started) // 1_000,
    )


def _obligations(recorded: bytes) -> tuple[Mapping[str, object], ...]:
    """Return recorded obligations; none if they are not in the form of a policy's answer."""
    if not recorded:
        return ()
    try:
        found = parse_object(b'{"all":' + recorded + b"}", depth=OBLIGATION_NESTING + 3).get("all")
    except ValueError:
        return ()
    return tuple(one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()
