"""`Unsent`: a `Sending` that sends nothing and notes what it would have sent; for handlers that are replayed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sealbus.agents.sdk.bodies import JSON, TypedAction
from sealbus.agents.sdk.messages import NO_SUBJECTS, Origin, call_message, event_message, task_message
from sealbus.agents.sdk.sender import Receipt, Sending, encoded, name_of
from sealbus.agents.sdk.task_handle import TaskHandle
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.sending.message import OutgoingMessage
from sealbus.bus.sending.status import Status
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.limits import SECOND
from sealbus.envelopes.message.kinds import Kind
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.message.wire import Statement
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

__all__ = ["NOTED", "NotSent", "Unsent", "WouldSend"]

Res = TypeVar("Res")

NOTED = 1_000
"""Messages of one handling that are noted; a handler that goes on sending is ended there."""
_NO_ID = bytes(16)
_NO_DIGEST = bytes(32)


class NotSent(SealError):
    """A replayed handler asked for an answer, and nothing was asked: whoever replays it sees what it got as far as."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldSend:
    """What would have been sent: its kind, or `status` for word to the requester; its subject; the bytes of its body."""

    kind: str
    subject: str
    size: int


class Unsent(Sending):
    """Composes every message as `Sending` would, so that what cannot be composed fails alike, and then lets it be.

    What only sealing refuses, an envelope over its limit for instance, is not found out. `own` is who would send. Tasks
    and events are noted, and the handler goes on with a handle and a receipt that name no message; where it needs an
    answer, it ends with `NotSent`.
    """

    def __init__(self, *, own: SpiffeId, names: Names, own_subjects: OwnSubjects = NO_SUBJECTS) -> None:
        # Not the base's: there is no outbox that anything could be sent by.
        self._own = own
        self._names = names
        self._own_subjects = own_subjects
        self.noted: list[WouldSend] = []

    def note(self, kind: str, subject: str, size: int) -> None:
        """Note one message; raises `NotSent` beyond `NOTED`."""
        if len(self.noted) >= NOTED:
            raise NotSent(f"over {NOTED} messages in one replay")
        self.noted.append(WouldSend(kind=kind, subject=subject, size=size))

    async def submit(
        self,
        action: TypedAction[Any, Awaitable[Res]] | str,
        body: object,
        *,
        origin: Origin | None = None,
        user: Statement | None = None,
        life: float | None = None,
        partition: str | None = None,
        grants: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        media_type: str = JSON,
        sent: list[bytes] | None = None,
    ) -> TaskHandle[Res]:
        """Note a task; return a handle that raises `NotSent` when it is asked.

        Raises as `Sending` does for what cannot be composed.
        """
        del user, sent
        name = name_of(action, Kind.TASK)
        message = task_message(
            name,
            encoded(body, media_type),
            names=self._names,
            origin=origin or Origin(),
            life=int(life * SECOND) if life is not None else None,
            partition=partition,
            grants=grants,
            idempotency_key=idempotency_key,
            own=self._own_subjects,
        )
        self._note(message)
        pending = PendingRequest(digest=_NO_DIGEST, id=_NO_ID, aud=message.draft.aud or self._own, end=0)
        task = AskedTask(pending=pending, action=name, context=None)
        gives = None if isinstance(action, str) else action.gives
        return TaskHandle(task=task, reader=_NoStatuses(), gives=gives, subject=message.draft.to)

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
        """Note an event; return a receipt that names no message. Raises as `Sending` does for what cannot be composed."""
        del sent
        message = event_message(
            name,
            encoded(body, media_type),
            names=self._names,
            own=self._own,
            origin=origin or Origin(),
            re=re,
            own_subjects=self._own_subjects,
        )
        self._note(message)
        return Receipt(message_id=_NO_ID.hex(), digest=_NO_DIGEST, subject=message.draft.to, stream="", sequence=0)

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
        sent: list[bytes] | None = None,
    ) -> Res:
        """Note a call and raise `NotSent`; raises as `Sending` does for what cannot be composed."""
        del returns, user, sent
        raise self._not_asked(action, body, origin or Origin(), timeout, grants, media_type)

    async def stream(
        self,
        action: TypedAction[Any, AsyncIterator[Res]] | str,
        body: object,
        *,
        returns: type[Res] | None = None,
        origin: Origin | None = None,
        user: Statement | None = None,
        timeout: float = 30.0,
        sent: list[bytes] | None = None,
    ) -> AsyncGenerator[Res, None]:
        """Note a call and raise `NotSent` in place of the first chunk.

        Raises as `Sending` does for what cannot be composed.
        """
        del returns, user, sent
        raise self._not_asked(action, body, origin or Origin(), timeout, None, JSON)
        yield  # which makes this a generator, as a stream is

    def _not_asked(
        self,
        action: TypedAction[Any, object] | str,
        body: object,
        origin: Origin,
        timeout: float,
        grants: Sequence[str] | None,
        media_type: str,
    ) -> NotSent:
        name = name_of(action, Kind.CALL)
        message = call_message(
            name,
            encoded(body, media_type),
            names=self._names,
            origin=origin,
            reply_to="",
            life=int(timeout * SECOND),
            grants=grants,
            own=self._own_subjects,
        )
        self._note(message)
        return NotSent(f"this is a replay: {name} is not called")

    def _note(self, message: OutgoingMessage) -> None:
        self.note(message.draft.kind.value, message.draft.to, len(message.draft.body))


class _NoStatuses(StatusReader):
    """What nothing can be read by."""

    def __init__(self) -> None:
        # Not the base's: there is no stream that anything could be read from.
        pass

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Raise `NotSent`."""
        del after, follow
        raise NotSent(f"this is a replay: {task.action} was not submitted, and has no result")
        yield  # which makes this a generator, as the base's is
