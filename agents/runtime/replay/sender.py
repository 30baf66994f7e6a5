"""`Unsent`: a `Sender` for replayed handlers that sends nothing and notes the messages that it would have sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from sealbus.agents.sdk.messages import NO_SUBJECTS
from sealbus.agents.sdk.sender import Receipt, Sender
from sealbus.bus.clocks import wall_clock
from sealbus.bus.gate.calls import Requests
from sealbus.bus.gate.status_reader import AskedTask, StatusReader
from sealbus.bus.sending.message import Content, OutgoingMessage
from sealbus.bus.sending.status import Status
from sealbus.envelopes.accept.open_request import PendingRequest
from sealbus.envelopes.errors import SealError
from sealbus.envelopes.message.subjects import OwnSubjects
from sealbus.envelopes.trust.names import Names
from sealbus.envelopes.trust.spiffe_id import SpiffeId

NOTED = 1_000
"""Most messages noted in one handling; a handler that sends more is ended."""
_NO_ID = bytes(16)
_NO_DIGEST = bytes(32)


class NotSent(SealError):
    """A replayed handler needs an answer, which a replay does not get; the replay ends here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WouldSend:
    """A message that would have been sent: its kind, or `status` or `part` for the requester; subject; size of its body."""

    kind: str
    subject: str
    size: int


class Unsent(Sender):
    """A `Sender` that composes every message, so that composing fails in the same cases, and then drops it.

    It does not find refusals by sealing, such as of an envelope over its limit. `own` is the sender. Tasks and events are
    noted, and the handler continues with a handle and a receipt that name no message. If the handler needs an answer, it ends
    with `NotSent`.
    """

    def __init__(self, *, own: SpiffeId, names: Names, own_subjects: OwnSubjects = NO_SUBJECTS) -> None:
        # Not the base's `__init__`: there is no outbox.
        self._own = own
        self._names = names
        self._own_subjects = own_subjects
        self._clock = wall_clock
        self._requests = _NoRequests(self)
        self._reader = _NoStatuses()
        self.noted: list[WouldSend] = []

    def note(self, kind: str, subject: str, size: int) -> None:
        """Note one message; raises `NotSent` beyond `NOTED`."""
        if len(self.noted) >= NOTED:
            raise NotSent(f"over {NOTED} messages in one replay")
        self.noted.append(WouldSend(kind=kind, subject=subject, size=size))

    def note_message(self, message: OutgoingMessage) -> None:
        """Note one composed message."""
        self.note(message.draft.kind.value, message.draft.to, len(message.draft.body))

    async def _emitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> Receipt:
        self.note_message(message)
        return Receipt(message_id=_NO_ID.hex(), digest=_NO_DIGEST, subject=message.draft.to, stream="", sequence=0)

    async def _submitted(self, message: OutgoingMessage, sent: list[bytes] | None) -> tuple[Receipt, PendingRequest]:
        pending = PendingRequest(digest=_NO_DIGEST, id=_NO_ID, aud=message.draft.aud or self._own, end=0)
        return await self._emitted(message, sent), pending


class _NoRequests(Requests):
    """Requests that call nothing."""

    def __init__(self, unsent: Unsent) -> None:
        # Not the base's `__init__`: there is no inbox for answers.
        self._unsent = unsent

    def address(self) -> str:
        """Return no address."""
        return ""

    async def call(
        self,
        message: OutgoingMessage,
        *,
        action: str,
        within: float,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Content:
        """Note a call and raise `NotSent`."""
        self._unsent.note_message(message)
        raise NotSent(f"this is a replay: {action} is not called")

    async def stream(
        self,
        message: OutgoingMessage,
        *,
        action: str,
        within: float,
        sent: list[bytes] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> AsyncGenerator[Content, None]:
        """Note a call, and raise `NotSent` instead of yielding a first chunk."""
        yield await self.call(message, action=action, within=within)


class _NoStatuses(StatusReader):
    """A status reader that reads nothing."""

    def __init__(self) -> None:
        # Not the base's `__init__`: there is no stream to read from.
        pass

    async def statuses(self, task: AskedTask, *, after: int = -1, follow: bool = True) -> AsyncGenerator[Status, None]:
        """Raise `NotSent`."""
        del after, follow
        raise NotSent(f"this is a replay: {task.action} was not submitted, and has no result")
        yield  # makes this a generator, as in the base
