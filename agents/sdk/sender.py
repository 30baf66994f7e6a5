"""`Sender`: submit a task, call an action, emit an event; shared by handlers' contexts and by clients."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, TypeVar, cast

from sealbus.agents.sdk.bodies import JSON, MSGPACK, Body, TypedAction, body_of, decoded
from sealbus.agents.sdk.messages import (
    NO_SUBJECTS,
    Origin,
    call_message,
    event_message,
    own_subject,
    task_message,
)
from sealbus.agents.sdk.task_handle import TaskHandle, parse_handle
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.calls import Requests
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.ports import Clock
from sealbus.bus.sending.answer import DETACHED
from sealbus.bus.sending.approval import LONGEST_WAIT, ApprovalRequest, approval_message, waiting
from sealbus.bus.sending.cancel import CancelRequest, CancelRole, cancel_message
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.outbox import Outbox, Posted
from sealbus.bus.work.approvals.marker import marker_of
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import HandlingError, SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.header import ExtValue
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects, action_of
from sealbus.envelopes.message.user_context import parse_payload
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["CallOptions", "ChildCallOptions", "ChildSubmitOptions", "Receipt", "Sender", "SubmitOptions"]

Res = TypeVar("Res")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A stored event: its id and hash, and its place in its stream."""

    message_id: str
    digest: bytes
    subject: str
    stream: str
    sequence: int


class _Options(TypedDict, total=False):
    grants: Sequence[str] | None
    """The only actions that may follow from it; by default any."""
    media_type: str
    """Media type of the body, by default JSON; or `application/msgpack`."""


class CallOptions(_Options, total=False):
    """Options of a call."""

    timeout: float
    """Seconds to wait for the answer, by default 30."""


class SubmitOptions(_Options, total=False):
    """Options of a task."""

    life: float | None
    """Seconds until it may no longer be handled; see `Sender.submit`."""
    partition: str | None
    """The part of the task's subject that it goes to."""
    wait: float | None
    """Seconds for which it may wait for an approval; see `Sender.submit`."""


class ChildCallOptions(CallOptions, total=False):
    """Options of a call from a handler."""

    detached: bool
    """Whether it goes on if the work that it follows from is canceled; by default it is canceled, too."""


class ChildSubmitOptions(SubmitOptions, total=False):
    """Options of a task from a handler."""

    detached: bool
    """As for a call."""


class Sender:
    """The sender of one identity. Bodies are pydantic models or what pydantic can adapt, by default as JSON."""

    def __init__(
        self,
        *,
        own: SpiffeId,
        names: Names,
        outbox: Outbox,
        requests: Requests,
        reader: StatusReader,
        own_subjects: OwnSubjects = NO_SUBJECTS,
        clock: Clock = wall_clock,
    ) -> None:
        self._own = own
        self._names = names
        self._own_subjects = own_subjects
        self._outbox = outbox
        self._requests = requests
        self._reader = reader
        self._clock = clock

    async def submit(
        self,
        action: TypedAction[Any, Awaitable[object] | AsyncIterator[object]] | str,
        body: object,
        *,
        origin: Origin | None = None,
        user: Statement | None = None,
        life: float | None = None,
        partition: str | None = None,
        grants: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        media_type: str = JSON,
        detached: bool = False,
        wait: float | None = None,
        sent: list[bytes] | None = None,
    ) -> TaskHandle[Any]:
        """Store a task for `action` and return its handle.

        `action` is a declared handler or a text: `<agent>.<verb>`, or an own subject or its action. The recipient decides
        about the task later: the handle shows a denial. `life` is seconds until the task may no longer be handled: at most a
        day, and no longer than the user's context or the handled task may go on; by default an hour, or what is left of
        these. If the policy then asks for somebody's approval, the task waits for it at most `wait` seconds from now, up to
        30 days, or without `wait` as long as it may go on. Raises `Overloaded` if the stream is full, `BusUnavailable`,
        `SealError` for what no reader would accept, `IdentityUnavailable`.
        """
        origin = origin or Origin.user(user)
        name = _name_of(action, Kind.TASK)
        message = task_message(
            name,
            encoded(body, media_type),
            names=self._names,
            origin=origin,
            life=int(life * SECOND) if life is not None else None,
            partition=partition,
            grants=grants,
            idempotency_key=idempotency_key,
            own=self._own_subjects,
        )
        ext: dict[str, ExtValue] = dict(DETACHED) if detached else {}
        if wait is not None:
            if not 0 < wait * SECOND <= LONGEST_WAIT:
                raise SealError(f"wait is over 0 and at most {LONGEST_WAIT // SECOND} s")
            ext |= waiting(self._clock() + int(wait * SECOND))
        if ext:
            message = message.with_entries(ext=ext)
        declared = own_subject(Kind.TASK, name, self._own_subjects)
        receipt, pending = await self._submitted(message, sent)
        task = AskedTask(
            pending=pending,
            action=declared.action if declared is not None else name,
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
        """Have the agent of `task` stop it, and what follows from it; see `TaskHandle.cancel`."""
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
        """Send a control message, and return once its agent has done what it says; raises as `TaskHandle.result` does.

        Where this process follows too many answers already, `Overloaded` is raised before anything is sent.
        """
        with self._reader.reserve() as reader:
            _, pending = await self._submitted(message, None)
            told = AskedTask(pending=pending, action=action_of(message.draft.to, self._own_subjects))
            await TaskHandle(task=told, reader=reader).result(object, timeout=timeout)

    async def _open_until(self, task: AskedTask) -> AskedTask:
        """Return `task` with the end until which it waits, if its own has passed and it is parked."""
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
        """Have `agent` count what the person of `user` says about its parked task with H(header) `task`.

        Returns once that is decided, recorded and counted. Raises as `cancel` does; a floor that it does not meet is the code
        of a `RemoteError`.
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
        origin: Origin | None = None,
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
            origin=origin or Origin(),
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
        origin: Origin | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
        grants: Sequence[str] | None = None,
        media_type: str = JSON,
        detached: bool = False,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Res:
        """Call `action` and return its answer as `returns` (or as the handler itself declares).

        Raises `Denied` if the other side's policy or ours denies, `RemoteError` with the other side's code for any other
        failure there, `BusUnavailable` with the code `expired` if no answer came in `timeout` seconds.
        """
        gives: Body[Res] = _gives(action, returns)
        message, name = self._call(action, body, origin or Origin.user(user), timeout, grants, media_type, detached)
        reply = await self._requests.call(message, action=name, within=timeout, sent=sent, stopped=stopped)
        return decoded(gives, reply)

    async def stream(
        self,
        action: TypedAction[Any, AsyncIterator[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        origin: Origin | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
        detached: bool = False,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> AsyncGenerator[Res, None]:
        """Call an action that answers in chunks, and yield each as it comes; raises as `call` does."""
        gives: Body[Res] = _gives(action, returns)
        message, name = self._call(action, body, origin or Origin.user(user), timeout, None, JSON, detached)
        async with contextlib.aclosing(
            self._requests.stream(message, action=name, within=timeout, sent=sent, stopped=stopped)
        ) as chunks:
            async for chunk in chunks:
                yield decoded(gives, chunk)

    async def _emitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> Receipt:
        return _receipt(await self._outbox.publish(message), sent)

    async def _submitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> tuple[Receipt, PendingRequest]:
        posted = await self._outbox.publish(message)
        return _receipt(posted, sent), PendingRequest.of(posted.sealed.header)

    def _call(
        self,
        action: TypedAction[Any, object] | str,
        body: object,
        origin: Origin,
        timeout: float,
        grants: Sequence[str] | None,
        media_type: str,
        detached: bool,
    ) -> tuple[OutgoingMessage, str]:
        name = _name_of(action, Kind.CALL)
        message = call_message(
            name,
            encoded(body, media_type),
            names=self._names,
            origin=origin,
            reply_to=self._requests.address(),
            life=int(timeout * SECOND),
            grants=grants,
            own=self._own_subjects,
        )
        if detached:
            message = message.with_entries(ext=DETACHED)
        declared = own_subject(Kind.CALL, name, self._own_subjects)
        return message, declared.action if declared is not None else name


def encoded(body: object, media_type: str) -> Content:
    """Return `body` encoded by its own type; raises `SealError` if it cannot be encoded."""
    if isinstance(body, Content):
        return body
    try:
        return body_of(type(body)).encode(body, MSGPACK if media_type == MSGPACK else JSON)
    except HandlingError as error:
        raise SealError(f"body of type {type(body).__name__} cannot be encoded") from error


def _name_of(action: TypedAction[Any, object] | str, kind: Kind) -> str:
    """Return the name of an action; raise `SealError` for a declared handler of another kind, which nobody would answer."""
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
