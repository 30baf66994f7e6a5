"""`Sender`: submits tasks, calls actions and emits events, for the contexts of handlers and for clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from sealbus.agents.sdk.bodies import JSON, MSGPACK, Body, TypedAction, body_of, decoded
from sealbus.agents.sdk.messages import (
    NOBODY,
    Origin,
    call_message,
    event_message,
    own_subject,
    task_message,
)
from sealbus.agents.sdk.options import DEFAULT_CALL, DEFAULT_SUBMIT, CallOptions, SubmitOptions
from sealbus.agents.sdk.task_handle import TaskHandle, parse_handle
from sealbus.bus.gate.calls import Requests
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.ports import Clock
from sealbus.bus.sending.approval import LONGEST_WAIT, ApprovalRequest, approval_message, waiting
from sealbus.bus.sending.cancel import CancelRequest, CancelRole, cancel_message
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.site import Site
from sealbus.bus.work.approvals.marker import marker_of
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import HandlingError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import action_of
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.spiffe_id import SpiffeId

Res = TypeVar("Res")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A stored event: its id and hash, and its place in its stream."""

    message_id: str
    digest: bytes
    subject: str
    stream: str
    sequence: int


class Sender:
    """The sender of one identity. Bodies are pydantic models or other types that pydantic can adapt, by default as JSON."""

    def __init__(self, site: Site, *, outbox: Outbox, requests: Requests, reader: StatusReader) -> None:
        self._own = site.own
        self._names = site.names
        self._own_subjects = site.own_subjects
        self._clock: Clock = site.bus_clock
        self._outbox = outbox
        self._requests = requests
        self._reader = reader

    async def submit(
        self,
        action: TypedAction[Any, Awaitable[object] | AsyncIterator[object]] | str,
        body: object,
        *,
        origin: Origin = NOBODY,
        options: SubmitOptions = DEFAULT_SUBMIT,
        sent: list[bytes] | None = None,
    ) -> TaskHandle[Any]:
        """Store a task for `action` and return its handle.

        `action` is a declared handler or a text: `<agent>.<verb>`, or an own subject or its action. The recipient decides
        about the task later: the handle shows a denial. The hash of the task's header is added to `sent`. Raises `Overloaded`
        if the stream is full, `BusUnavailable`, `SealError` for a message that no reader would accept, `IdentityUnavailable`.
        """
        name = _name_of(action, Kind.TASK)
        content = encoded(body, options.media_type)
        message = task_message(name, content, names=self._names, origin=origin, options=options, own=self._own_subjects)
        if options.wait is not None:
            if not 0 < options.wait * SECOND <= LONGEST_WAIT:
                raise SealError(f"wait is over 0 and at most {LONGEST_WAIT // SECOND} s")
            mark = waiting(self._clock() + int(options.wait * SECOND))
            message = message.with_entries(ext={**(message.draft.ext or {}), **mark})
        receipt, pending = await self._submitted(message, sent)
        task = AskedTask(
            pending=pending,
            action=self._action_of(Kind.TASK, name) if self._own_subjects else name,
            context=parse_payload(origin.statement.payload) if origin.statement is not None else None,
        )
        return TaskHandle(
            task=task,
            reader=self._reader,
            canceller=self,
            gives=None if isinstance(action, str) else action.gives,
            subject=receipt.subject,
            stream=receipt.stream,
            sequence=receipt.sequence,
        )

    def handle(self, text: str) -> TaskHandle:
        """Return the handle in `text`; raises `EnvelopeError` (`malformed`, step 0) for any other text.

        It works in every process of the identity that submitted the task; another identity never gets an answer.
        """
        return TaskHandle(task=parse_handle(text), reader=self._reader, canceller=self)

    async def cancel(
        self,
        task: AskedTask,
        *,
        reason: str = "",
        operator: bool = False,
        user: Statement | None = None,
        timeout: float = 10.0,
    ) -> None:
        """Have the agent of `task` stop it, and all messages that follow from it; see `TaskHandle.cancel`."""
        role = CancelRole.OPERATOR if operator else CancelRole.REQUESTER
        task = await self._open_until(task)
        try:
            request = CancelRequest(
                digest=task.pending.digest, action=task.action, end=task.pending.end, role=role, reason=reason
            )
        except ValueError as error:
            raise SealError(str(error)) from error
        await self.tell(
            cancel_message(request, task.pending, names=self._names, statement=user, now=self._clock()), timeout=timeout
        )

    async def tell(self, message: OutgoingMessage, *, timeout: float) -> None:
        """Send a control message, and return once its agent has done it; raises as `TaskHandle.result` does.

        If this process follows too many answers already, it raises `Overloaded` before it sends anything.
        """
        with self._reader.reserve() as reader:
            _, pending = await self._submitted(message, None)
            task = AskedTask(pending=pending, action=action_of(message.draft.to, self._own_subjects))
            await TaskHandle(task=task, reader=reader).result(object, timeout=timeout)

    async def _open_until(self, task: AskedTask) -> AskedTask:
        """Return `task`; if it is parked and its own end has passed, with the end of its wait instead."""
        held, profile = self._reader.held, self._reader.profile
        if held is None or task.pending.rpl is not None or self._clock() < task.pending.end:
            return task
        marker = await marker_of(held, task.pending, own=profile.own, names=profile.names)
        if marker is None or marker.ended or marker.until <= task.pending.end:
            return task
        return replace(task, pending=replace(task.pending, end=marker.until))

    async def approve(
        self,
        task: bytes,
        request: ApprovalRequest,
        *,
        agent: SpiffeId,
        follows: Sequence[str],
        user: Statement,
        timeout: float = 10.0,
    ) -> None:
        """Have `agent` count the verdict of the person of `user` on its parked task with H(header) `task`.

        Returns once the verdict is decided, recorded and counted. Raises as `cancel` does, and `RemoteError` with the code of
        a floor that the verdict does not meet.
        """
        message = approval_message(
            request, agent=agent, task=task, follows=follows, statement=user, names=self._names, now=self._clock()
        )
        await self.tell(message, timeout=timeout)

    async def emit(
        self,
        name: str,
        body: object,
        *,
        origin: Origin = NOBODY,
        re: bytes | None = None,
        media_type: str = JSON,
        sent: list[bytes] | None = None,
    ) -> Receipt:
        """Store an event of our own, `event.<agent>.<name>` or the own subject `name`; raises as `submit` does."""
        message = event_message(
            name,
            encoded(body, media_type),
            names=self._names,
            own=self._own,
            origin=origin,
            re=re,
            own_subjects=self._own_subjects,
        )
        return await self._emitted(message, sent)

    async def call(
        self,
        action: TypedAction[Any, Awaitable[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        origin: Origin = NOBODY,
        options: CallOptions = DEFAULT_CALL,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Res:
        """Call `action` and return its answer as `returns` (or as the handler itself declares).

        Raises `Denied` if the other side's policy or ours denies, `RemoteError` with the other side's code for any other
        failure there, `BusUnavailable` with the code `expired` if no answer came in `options.timeout` seconds.
        """
        gives: Body[Res] = _gives(action, returns)
        message, name = self._call(action, body, origin, options)
        reply = await self._requests.call(message, action=name, within=options.timeout, sent=sent, stopped=stopped)
        return decoded(gives, reply)

    async def stream(
        self,
        action: TypedAction[Any, AsyncIterator[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        origin: Origin = NOBODY,
        options: CallOptions = DEFAULT_CALL,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> AsyncGenerator[Res, None]:
        """Call an action that answers in chunks, and yield each as it comes; raises as `call` does."""
        gives: Body[Res] = _gives(action, returns)
        message, name = self._call(action, body, origin, options)
        async with contextlib.aclosing(
            self._requests.stream(message, action=name, within=options.timeout, sent=sent, stopped=stopped)
        ) as chunks:
            async for chunk in chunks:
                yield decoded(gives, chunk)

    async def _emitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> Receipt:
        return _receipt(await self._outbox.publish(message), sent)

    async def _submitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> tuple[Receipt, PendingRequest]:
        posted = await self._outbox.publish(message)
        return _receipt(posted, sent), PendingRequest.of(posted.sealed.header)

    def _call(
        self, action: TypedAction[Any, object] | str, body: object, origin: Origin, options: CallOptions
    ) -> tuple[OutgoingMessage, str]:
        name = _name_of(action, Kind.CALL)
        message = call_message(
            name,
            encoded(body, options.media_type),
            names=self._names,
            origin=origin,
            reply_to=self._requests.address(),
            options=options,
            own=self._own_subjects,
        )
        return message, self._action_of(Kind.CALL, name) if self._own_subjects else name

    def _action_of(self, kind: Kind, name: str) -> str:
        declared = own_subject(kind, name, self._own_subjects)
        return declared.action if declared is not None else name


def encoded(body: object, media_type: str) -> Content:
    """Return `body` encoded by its own type; raises `SealError` if it cannot be encoded."""
    if isinstance(body, Content):
        return body
    try:
        return body_of(type(body)).encode(body, MSGPACK if media_type == MSGPACK else JSON)
    except HandlingError as error:
        raise SealError(f"body of type {type(body).__name__} cannot be encoded") from error


def _name_of(action: TypedAction[Any, object] | str, kind: Kind) -> str:
    """Return the name of an action; raise `SealError` for a declared handler of another kind, which would never answer."""
    if isinstance(action, str):
        return action
    if action.kind not in (kind, None):
        raise SealError(f"{action.action} is a handler of another kind: it cannot be requested as a {kind}")
    return action.action


def _gives(action: TypedAction[Any, Awaitable[Res] | AsyncIterator[Res]] | str, returns: type[Res] | None) -> Body[Res]:
    if returns is not None:
        return body_of(returns)
    if isinstance(action, str):
        raise SealError("give the type that the call returns: returns=SomeType")
    return cast("Body[Res]", action.gives)  # read from the same annotation as `Res`


def _receipt(posted: Posted, sent: list[bytes] | None) -> Receipt:
    header, ack = posted.sealed.header, posted.ack
    if sent is not None:
        sent.append(header.digest)
    return Receipt(
        message_id=header.id.hex(),
        digest=header.digest,
        subject=header.to,
        stream=ack.stream if ack is not None else "",
        sequence=ack.sequence if ack is not None else 0,
    )
