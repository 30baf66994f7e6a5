"""Runs a handler again on recorded messages, for debugging: read from TASKS and checked against their decision.

Nothing is acknowledged, sealed, published or recorded. The messages to replay come from verified decision records alone. A
stored message counts only if its bytes are those that were decided on.
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

MOST: Final = 100
"""Most messages that are replayed: the newest."""


class Result(StrEnum):
    """The result of one replayed message."""

    DONE = "done"
    FAILED = "failed"
    """The handler raised, hung, or returned a value that cannot be encoded; or its resource or body could not be loaded."""
    STOPPED = "stopped"
    """The handler needed an answer of another agent, which a replay does not get."""
    DENIED = "denied"
    """The message was denied: the handler did not get it then and does not get it now."""
    GONE = "gone"
    """The stream no longer holds the message, and its body was not recorded."""
    OTHER = "other"
    """The stream holds another message in its place, which is a finding."""
    UNKNOWN = "unknown"
    """The agent has no handler for the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One message: its records, and the result of the handler this time.

    `error` is the handler's exception, `resource` the loaded resource as `type:id`, `micros` the handler's time in
    microseconds.
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
class _DecidedMessage:
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
        unread = await self._read_decisions(entries)
        if not unread:
            return
        subjects = sorted(
            {decided.entry.decided.to for decided in unread.values() if decided.entry.decided is not None}
        )
        source = self.transport.read(TASKS, subjects, start=min(unread))
        async with aclosing(source) as batches:
            async for batch in batches:
                for delivery in batch:
                    sequence = delivery.arrival.sequence if delivery.arrival is not None else 0
                    decided = unread.pop(sequence, None)
                    if decided is not None:
                        yield await self._replay_stored(decided, delivery.subject, delivery.payload)
                if not unread:
                    break
        for decided in unread.values():
            body = decided.record.body
            yield await self._handle(decided, body) if body is not None else _not_run(decided, Result.GONE)

    async def _read_decisions(self, entries: AsyncIterable[AuditEntry | Finding]) -> dict[int, _DecidedMessage]:
        """Return the newest decisions by the sequence of their message, with their outcomes."""
        own = self.deployment.names.id_of(self.agent.name)
        newest: OrderedDict[int, _DecidedMessage] = OrderedDict()
        by_leaf: dict[bytes, _DecidedMessage] = {}
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
            replaced = newest.pop(place.sequence, None)
            if replaced is None and len(newest) == self.most:
                _, replaced = newest.popitem(last=False)
            if replaced is not None:
                del by_leaf[replaced.entry.leaf]
            newest[place.sequence] = by_leaf[entry.leaf] = _DecidedMessage(entry, record)
        return dict(sorted(newest.items()))

    async def _replay_stored(self, decided: _DecidedMessage, subject: str, payload: bytes) -> Replayed:
        """Replay the message that the stream holds at the place of the decision, if it is the decided message."""
        message = decided.entry.message
        try:
            envelope = parse_envelope(payload)
        except EnvelopeError as error:
            return _not_run(decided, Result.OTHER, error)
        if message is None or envelope.header != decided.record.header or subject != message.header.to:
            return _not_run(decided, Result.OTHER)
        if sha256(envelope.body).digest() != message.header.dig:
            return _not_run(decided, Result.OTHER)
        return await self._handle(decided, envelope.body)

    async def _handle(self, decided: _DecidedMessage, body: bytes) -> Replayed:
        """Run the handler of a message that was allowed; `body` is the signed body."""
        record, message = decided.record, decided.entry.message
        if message is None:
            return _not_run(decided, Result.OTHER)
        if not record.allow:
            return _not_run(decided, Result.DENIED)
        names, own_subjects = self.deployment.names, self.deployment.own_subjects
        unsent = Unsent(own=names.id_of(self.agent.name), names=names, own_subjects=own_subjects)
        routes = RouteTable(routes_of(self.agent, sending=unsent, names=names, own_subjects=own_subjects))
        try:
            endpoint = cast("HandlerEndpoint", routes.of(message.header.to).endpoint)  # `routes_of` makes no other
        except EnvelopeError as error:
            return _not_run(decided, Result.UNKNOWN, error)
        context = ReplayContext(message, record, _obligations(record.obligations), unsent)
        return await _run_handler(decided, endpoint, body, message.header.typ, context, unsent)


def _not_run(decided: _DecidedMessage, result: Result, error: BaseException | None = None) -> Replayed:
    return Replayed(entry=decided.entry, outcome=decided.outcome, result=result, error=error)


async def _run_handler(
    decided: _DecidedMessage, endpoint: HandlerEndpoint, body: bytes, typ: str, context: ReplayContext, unsent: Unsent
) -> Replayed:
    handler = endpoint.handler
    error: BaseException | None = None
    answer: Content | None = None
    resource_name = ""
    result = Result.DONE
    started = time.perf_counter_ns()
    try:
        async with asyncio.timeout(handler.options.timeout):
            value = endpoint.decode(body, typ)
            resource = await endpoint.resource(value)
            resource_name = f"{resource.type}:{resource.id}"
            started = time.perf_counter_ns()
            if handler.streams:
                async for part in handler.function(value, context):
                    unsent.note("part", decided.record.action, len(handler.gives.encode(part).body))
            else:
                returned = await handler.function(value, context)
                answer = handler.gives.encode(returned) if returned is not None else None
    except NotSent as stopped:
        result, error = Result.STOPPED, stopped
    except Exception as failed:  # noqa: BLE001  a handler may raise any exception, which is shown
        result, error = Result.FAILED, failed
    return Replayed(
        entry=decided.entry,
        outcome=decided.outcome,
        result=result,
        error=error,
        resource=resource_name,
        answer=answer,
        sent=tuple(unsent.noted),
        micros=(time.perf_counter_ns() - started) // 1_000,
    )


def _obligations(recorded: bytes) -> tuple[Mapping[str, object], ...]:
    """Return recorded obligations; empty if they do not have the form of a policy's answer."""
    if not recorded:
        return ()
    try:
        obligations = parse_object(b'{"all":' + recorded + b"}", depth=OBLIGATION_NESTING + 3).get("all")
    except ValueError:
        return ()
    return tuple(item for item in obligations if isinstance(item, dict)) if isinstance(obligations, list) else ()
